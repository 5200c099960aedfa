"""How a policy server is waited for, tried again, held back from and given up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from agent.engines import model_server
from agent.engines.model_server import REST_S, RETRY_AFTER_S, TRIES, Patience
from agent.engines.protocols import Message
from agent.engines.responder_openai import OpenAIResponder
from agent.errors import EngineError
from tests.agent.engines.sse_server import (
    Script,
    begin,
    chunk,
    endless,
    send,
    serving,
    status,
    stream,
    until_closed,
)

pytestmark = pytest.mark.transport

CHAT = [Message("user", "Hello.")]
LONG_S = 60.0
"""Longer than any of these tests may take."""
PATIENCE = Patience(first_token_s=20, between_tokens_s=20)


@pytest.fixture(autouse=True)
def _strangers() -> None:
    """No server of another test is known, though the system gave this one its port."""
    model_server.server_at.cache_clear()


class Clock:
    """The module's `time`, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(model_server, "time", made)
    return made


def reply(
    url: str, patience: Patience = PATIENCE, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    return OpenAIResponder(url, "tiny", patience=patience).open().reply(CHAT, should_stop)


def in_thread(work: Callable[[], str], results: queue.Queue[str | EngineError]) -> threading.Thread:
    def run() -> None:
        try:
            results.put(work())
        except EngineError as error:
            results.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Takes the request, begins to answer, and says nothing more."""
    begin(handler)
    send(handler, 'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n')
    until_closed(handler)


def then_silent(text: str, finish: str | None = None) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        send(handler, chunk(text))
        if finish:
            send(handler, f'data: {{"choices": [{{"finish_reason": "{finish}"}}]}}\n\n')
        until_closed(handler)

    return script


# --- attempts ---------------------------------------------------------------------------------


def test_the_server_says_when_to_try_again() -> None:
    with serving(status(503, retry_after="1"), stream("Here.")) as server:
        assert list(reply(server.url)) == ["Here."]
        first, second = server.came
        assert second - first >= 1.0 > RETRY_AFTER_S


@pytest.mark.parametrize("after_s", [0, -3600])
def test_it_may_say_at_once(monkeypatch: pytest.MonkeyPatch, after_s: int) -> None:
    """Where it does not, this test would end without a second attempt."""
    monkeypatch.setattr(model_server, "RETRY_AFTER_S", LONG_S)
    after = "0" if after_s == 0 else _date(after_s)
    with serving(status(429, retry_after=after), stream("Here.")) as server:
        assert list(reply(server.url)) == ["Here."]
    with serving(status(429, retry_after="soon"), stream("Here.")) as server:
        with pytest.raises(EngineError, match="HTTP 429"):
            list(reply(server.url))
        assert len(server.requests) == 1


def _date(in_s: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=in_s), usegmt=True)


def test_it_may_name_a_date() -> None:
    with serving(status(503, retry_after=_date(2)), stream("Here.")) as server:
        assert list(reply(server.url)) == ["Here."]
        first, second = server.came
        assert second - first >= 0.9  # a date has whole seconds
    with serving(status(503, retry_after=_date(3600)), stream("Here.")) as server:
        with pytest.raises(EngineError, match="HTTP 503"):
            list(reply(server.url))
        assert len(server.requests) == 1


def test_later_than_anybody_waits_is_not_at_all() -> None:
    with serving(status(503, retry_after="21"), stream("Here.")) as server:
        with pytest.raises(EngineError, match="HTTP 503"):
            list(reply(server.url))
        assert len(server.requests) == 1


def test_after_the_first_token_nothing_is_tried_again() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Retry-After", "0")
        handler.end_headers()
        send(handler, chunk("So I"))

    with serving(cut, stream("Again.")) as server:
        pieces = reply(server.url)
        assert next(pieces) == "So I"
        with pytest.raises(EngineError, match="broke off"):
            list(pieces)
        assert len(server.requests) == 1


def test_attempts_are_counted_over_all_ways_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "RETRY_AFTER_S", 0.01)

    def hangs_up(handler: BaseHTTPRequestHandler) -> None:
        """Without a word."""

    with serving(status(503, retry_after="0"), hangs_up, status(500), stream("Late.")) as server:
        with pytest.raises(EngineError, match="HTTP 500"):
            list(reply(server.url))
        assert len(server.requests) == TRIES


def test_a_refusal_ends_the_attempts() -> None:
    with serving(status(503, retry_after="0"), status(400), stream("Late.")) as server:
        with pytest.raises(EngineError, match="HTTP 400"):
            list(reply(server.url))
        assert len(server.requests) == 2


# --- time-outs --------------------------------------------------------------------------------


def test_too_long_to_the_first_token() -> None:
    """Headers and a role are no token; there is no second attempt, the time is up."""
    with serving(silent) as server:
        with pytest.raises(EngineError, match="too slow"):
            list(reply(server.url, Patience(first_token_s=0.3)))
        assert len(server.requests) == 1
        assert server.broken.wait(20), "the connection stays open"


def test_too_long_between_tokens() -> None:
    with serving(then_silent("Well,")) as server:
        pieces = reply(server.url, Patience(first_token_s=20, between_tokens_s=0.3))
        assert next(pieces) == "Well,"
        with pytest.raises(EngineError, match="too slow"):
            list(pieces)
        assert len(server.requests) == 1
        assert server.broken.wait(20), "the connection stays open"


def test_too_long_in_all() -> None:
    """Each token in time, but no end of them."""
    begun = time.monotonic()
    with serving(endless) as server:
        pieces = reply(server.url, Patience(first_token_s=20, total_s=0.5))
        assert next(pieces) == "more "
        with pytest.raises(EngineError, match="too slow"):
            list(pieces)
        assert time.monotonic() - begun < 30, "it ended by itself"
        assert len(server.requests) == 1
        assert server.broken.wait(20), "the server writes on"


# --- back-pressure ----------------------------------------------------------------------------


def test_more_than_work_and_wait_fail_at_once() -> None:
    """Of four, two are written and one waits; the fourth fails while those are not done."""
    gate, came = threading.Event(), threading.Semaphore(0)

    def held(handler: BaseHTTPRequestHandler) -> None:
        came.release()
        assert gate.wait(20)
        stream("Done.")(handler)

    patience = Patience(first_token_s=20, in_flight=2, waiting=1)
    results: queue.Queue[str | EngineError] = queue.Queue()
    with serving(held) as server:
        asked = [in_thread(lambda: "".join(reply(server.url, patience)), results) for _ in range(4)]
        refused = results.get(timeout=10)
        assert isinstance(refused, EngineError)
        assert "2 replies in work and 1 waiting" in str(refused)
        assert "responder.in_flight" in str(refused)
        assert came.acquire(timeout=10) and came.acquire(timeout=10)
        assert not came.acquire(timeout=0.3) and results.empty()
        gate.set()
        assert [results.get(timeout=10) for _ in range(3)] == ["Done."] * 3
        for thread in asked:
            thread.join()
        assert len(server.requests) == 3


def test_who_waits_gives_up_in_time_and_asks_nothing() -> None:
    patience = Patience(first_token_s=2, between_tokens_s=20, in_flight=1)
    with serving(endless) as server:
        first = reply(server.url, patience)
        next(first)
        with pytest.raises(EngineError, match="too slow"):
            list(reply(server.url, patience))
        stopped = iter([False, True])
        assert list(reply(server.url, patience, lambda: next(stopped, True))) == []
        assert len(server.requests) == 1
        first.close()  # type: ignore[attr-defined]
        server.scripts = [stream("Me now.")]
        assert list(reply(server.url, patience)) == ["Me now."]


def test_a_reply_given_up_leaves_its_place() -> None:
    patience = Patience(first_token_s=20, in_flight=1, waiting=0)
    with serving(endless) as server:
        for _ in range(3):
            pieces = reply(server.url, patience)
            assert next(pieces) == "more "
            pieces.close()  # type: ignore[attr-defined]
            assert server.broken.wait(20)
            server.broken.clear()
        assert len(server.requests) == 3


# --- out of reach -----------------------------------------------------------------------------


def test_out_of_reach_it_is_left_alone_for_a_while(clock: Clock) -> None:
    with serving() as gone:
        port, url = gone.port, gone.url
    with pytest.raises(EngineError, match="is it running"):
        list(reply(url))
    with serving(stream("Back."), port=port) as server:
        with pytest.raises(EngineError, match="asked again in"):
            list(reply(url))
        assert not server.requests, "it was asked in its rest"
        clock.ahead_s = REST_S
        assert list(reply(url)) == ["Back."]
        assert list(reply(url)) == ["Back."]
    clock.ahead_s += 1.0
    with pytest.raises(EngineError, match="is it running"):
        list(reply(url))
    with pytest.raises(EngineError, match="asked again in"):
        list(reply(url))
    clock.ahead_s += REST_S
    with pytest.raises(EngineError, match="is it running"):
        list(reply(url))


def test_too_slow_twice_it_is_left_alone(clock: Clock) -> None:
    slow = Patience(first_token_s=1)
    with serving(silent) as server:
        with pytest.raises(EngineError, match="too slow"):
            list(reply(server.url, slow))
        server.scripts = [stream("Hi.")]
        assert list(reply(server.url, slow)) == ["Hi."]  # one miss is none, and is forgotten
        server.scripts = [silent]
        for _ in range(2):
            with pytest.raises(EngineError, match="too slow"):
                list(reply(server.url, slow))
        with pytest.raises(EngineError, match="asked again in"):
            list(reply(server.url, slow))
        assert len(server.requests) == 4
        clock.ahead_s = REST_S
        server.scripts = [stream("Hi.")]
        assert list(reply(server.url, slow)) == ["Hi."]


def test_a_server_that_refuses_is_asked_again() -> None:
    with serving(status(404)) as server:
        for _ in range(5):
            with pytest.raises(EngineError, match="HTTP 404"):
                list(reply(server.url))
        assert len(server.requests) == 5


# --- given up ---------------------------------------------------------------------------------


def test_nobody_wants_it_before_the_first_token() -> None:
    asked = threading.Event()

    def script(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        silent(handler)

    with serving(script) as server:
        assert list(reply(server.url, PATIENCE, asked.is_set)) == []
        assert server.broken.wait(20), "the server was not told"


def test_nobody_wants_it_before_it_is_answered_at_all() -> None:
    asked = threading.Event()

    def script(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        until_closed(handler)

    with serving(script) as server:
        assert list(reply(server.url, PATIENCE, asked.is_set)) == []
        assert server.broken.wait(20), "the server was not told"


def test_nobody_wants_it_between_two_attempts() -> None:
    with serving(status(503, retry_after="15")) as server:
        assert list(reply(server.url, PATIENCE, lambda: bool(server.requests))) == []
        assert len(server.requests) == 1


# --- ends -------------------------------------------------------------------------------------


def test_a_finished_reply_needs_no_done() -> None:
    """Nor that the server hangs up: what is finished is not too slow."""
    with serving(then_silent("Bye.", finish="stop")) as server:
        assert list(reply(server.url)) == ["Bye."]
        assert server.broken.wait(20), "the connection stays open"

    def hangs_up(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for text in (chunk("Bye."), 'data: {"choices": [{"finish_reason": "stop"}]}\n\n'):
            send(handler, f"{len(text):x}\r\n{text}\r\n")  # and no last chunk

    with serving(hangs_up) as server:
        assert list(reply(server.url)) == ["Bye."]


def test_neither_done_nor_finished_is_broken_off() -> None:
    with serving(stream("Bye", end="")) as server:
        pieces = reply(server.url)
        assert next(pieces) == "Bye"
        with pytest.raises(EngineError, match="broke off"):
            list(pieces)


@pytest.mark.parametrize(
    "line", ['{"choices": [{"delta', '{"choices": [{"delta": {"content": 3}}]}']
)
def test_nonsense_in_mid_reply(line: str) -> None:
    with serving(stream("So", end=f"data: {line}\n\n")) as server:
        pieces = reply(server.url)
        assert next(pieces) == "So"
        with pytest.raises(EngineError, match="not a completion chunk"):
            list(pieces)
        assert len(server.requests) == 1


def test_an_error_instead_of_a_first_token() -> None:
    """The status was 200: the server has taken the request, so it is not asked a second time."""
    error = 'data: {"error": {"type": "internal", "message": "you said: my secret"}}\n\n'
    with serving(stream(end=error), stream("Again.")) as server:
        with pytest.raises(EngineError, match="internal") as raised:
            list(reply(server.url))
        assert "my secret" not in str(raised.value)
        assert len(server.requests) == 1
