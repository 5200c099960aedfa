"""The remote policy against a real HTTP server that misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from agent.config import Config
from agent.engines.model_server import TRIES, Patience
from agent.engines.protocols import Message
from agent.engines.responder_openai import OpenAIResponder, open_openai
from agent.engines.sampling import Sampling
from agent.errors import ConfigError, EngineError
from tests.agent.engines.sse_server import (
    Server,
    begin,
    chunk,
    endless,
    send,
    serving,
    status,
    stream,
)

pytestmark = pytest.mark.transport

CHAT = [Message("system", "Be kind."), Message("user", "Hello.")]
PATIENCE = Patience(first_token_s=5)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def reply(server: Server, **more) -> Iterator[str]:
    responder = OpenAIResponder(server.url, "tiny", patience=PATIENCE, **more)
    return responder.open(seed=7).reply(CHAT, lambda: False)


def test_it_streams(server: Server) -> None:
    gate = threading.Event()

    def script(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        send(handler, chunk("Hello"))
        assert gate.wait(10), "the first piece was not handed on before the second was there"
        send(handler, chunk(" there."))
        send(handler, "data: [DONE]\n\n")

    server.scripts = [script]
    pieces = reply(server)
    assert next(pieces) == "Hello"
    gate.set()
    assert list(pieces) == [" there."]


def test_what_it_asks(server: Server) -> None:
    server.scripts = [stream("Hi.")]
    sampling = Sampling(temperature=0.4, top_p=0.8, max_new_tokens=33)
    assert list(reply(server, api_key="secret", sampling=sampling)) == ["Hi."]
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "tiny",
        "messages": [{"role": m.role, "content": m.content} for m in CHAT],
        "stream": True,
        "temperature": 0.4,
        "top_p": 0.8,
        "max_tokens": 33,
        "seed": 7,
    }


def test_an_empty_delta_and_usage_say_nothing(server: Server) -> None:
    end = 'data: {"choices": [], "usage": {"total_tokens": 3}}\n\ndata: [DONE]\n\n'
    server.scripts = [stream("Hi.", "", end=end)]
    assert list(reply(server)) == ["Hi."]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_error_before_the_first_token_is_tried_again(server: Server, code: int) -> None:
    server.scripts = [status(code), stream("Here I am.")]
    assert list(reply(server)) == ["Here I am."]
    assert len(server.requests) == 2


def test_it_gives_up_after_some_tries(server: Server) -> None:
    server.scripts = [status(503, "busy\nbusy")]
    with pytest.raises(EngineError, match="HTTP 503"):
        list(reply(server))
    assert len(server.requests) == TRIES


def test_an_error_names_its_codes_and_quotes_nobody(server: Server) -> None:
    error = {"type": "invalid_request_error", "code": 400, "message": "too long: 'my secret'"}
    server.scripts = [status(400, json.dumps({"error": error}))]
    with pytest.raises(EngineError, match="HTTP 400, invalid_request_error, 400") as raised:
        list(reply(server))
    assert "my secret" not in str(raised.value)


@pytest.mark.parametrize("code", [400, 401, 404])
def test_a_refusal_is_not_tried_again(server: Server, code: int) -> None:
    server.scripts = [status(code)]
    with pytest.raises(EngineError, match=f"HTTP {code}") as error:
        list(reply(server, api_key="very-secret"))
    assert len(server.requests) == 1
    assert "very-secret" not in str(error.value) and "\n" not in str(error.value)


def test_broken_off_after_the_first_token(server: Server) -> None:
    """Nothing is said twice: what was begun is not begun anew."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        data = chunk("Half a").encode()
        send(handler, f"{len(data):x}\r\n{data.decode()}\r\n")  # and no last chunk

    server.scripts = [script]
    pieces = reply(server)
    assert next(pieces) == "Half a"
    with pytest.raises(EngineError, match="failed"):
        list(pieces)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "line", ["data: {half a", "data: [1]", 'data: "text"', 'data: {"choices": 3}']
)
def test_a_chunk_that_is_none(server: Server, line: str) -> None:
    server.scripts = [stream(end=f"{line}\n\n")]
    with pytest.raises(EngineError, match="not a completion chunk"):
        list(reply(server))


def test_an_error_in_the_stream(server: Server) -> None:
    server.scripts = [stream("So", end='data: {"error": {"type": "out_of_memory"}}\n\n')]
    with pytest.raises(EngineError, match="out_of_memory"):
        list(reply(server))
    assert len(server.requests) == 1


def test_no_server() -> None:
    gone = Server()
    gone.close()
    with pytest.raises(EngineError, match="is it running"):
        list(reply(gone))


def test_stopping_closes_the_stream(server: Server) -> None:
    server.scripts = [endless]
    stop = False
    pieces = OpenAIResponder(server.url, "tiny").open().reply(CHAT, lambda: stop)
    next(pieces)
    stop = True
    assert list(pieces) == []
    assert server.broken.wait(20), "the server writes on"


def test_closing_the_reply_closes_the_stream(server: Server) -> None:
    server.scripts = [endless]
    pieces = reply(server)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert server.broken.wait(20), "the server writes on"


def test_a_url_is_needed() -> None:
    config = Config.model_validate({"responder": {"engine": "openai"}})
    with pytest.raises(ConfigError, match="responder.url"):
        open_openai(config)


def test_the_key_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "from-env")
    server.scripts = [stream("Hi.")]
    settings = {"engine": "openai", "url": server.url, "api_key_env": "MY_KEY", "model": "big"}
    responder = open_openai(Config.model_validate({"responder": settings}))
    assert list(responder.open().reply(CHAT, lambda: False)) == ["Hi."]
    assert server.requests[0][1]["Authorization"] == "Bearer from-env"
    assert "seed" not in server.requests[0][2] and responder.policy_id == "big"
