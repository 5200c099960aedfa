"""The small parts: the outbox, messages of the page, log lines, frames."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import av
import numpy as np
import pytest
import sqlalchemy as sa

from agent import log
from agent.config import Logging
from agent.errors import StoreError
from agent.web.opus import Hearing
from agent.web.outbox import HIGH_WATER_BYTES, Outbox
from agent.web.rtc import parse_message
from agent.web.tracks import rgb

pytestmark = pytest.mark.unit


class Channel:
    """A data channel that is read by nobody until `read`."""

    def __init__(self) -> None:
        self.readyState = "open"
        self.bufferedAmount = 0
        self.bufferedAmountLowThreshold = 0
        self.sent: list[dict[str, Any]] = []
        self._low: Any = None

    def send(self, data: str) -> None:
        self.sent.append(json.loads(data))
        self.bufferedAmount += len(data)

    def on(self, event: str, f: Any) -> None:
        assert event == "bufferedamountlow"
        self._low = f

    def read(self) -> None:
        self.bufferedAmount = 0
        self._low()


def caption(number: int, *, final: bool) -> dict[str, Any]:
    return {"type": "caption", "text": str(number), "final": final}


def test_messages_wait_for_the_channel_in_order() -> None:
    outbox, channel = Outbox(), Channel()
    for number in range(3):
        outbox.put(caption(number, final=True))
    outbox.attach(channel)
    outbox.put(caption(3, final=True))
    assert [m["text"] for m in channel.sent] == ["0", "1", "2", "3"]
    assert len(outbox) == 0


def test_partial_captions_are_dropped_first() -> None:
    outbox, channel = Outbox(cap=3), Channel()
    outbox.put(caption(0, final=True))
    outbox.put(caption(1, final=False))
    for number in (2, 3):
        outbox.put(caption(number, final=True))
    outbox.put({"type": "ended"})
    outbox.attach(channel)
    assert outbox.dropped == 2
    assert [m.get("text") for m in channel.sent] == ["2", "3", None]


def test_a_page_that_reloads_learns_the_state() -> None:
    outbox, first, second = Outbox(), Channel(), Channel()
    outbox.attach(first)
    outbox.put({"type": "state", "state": "speaking"})
    outbox.detach(first)
    outbox.put(caption(0, final=True))
    outbox.attach(second)
    outbox.detach(first)  # late news of the old channel
    outbox.put(caption(1, final=True))
    assert [m["type"] for m in second.sent] == ["state", "caption", "caption"]
    assert len(first.sent) == 1


def test_a_channel_that_is_not_read_is_not_flooded() -> None:
    outbox, channel = Outbox(cap=10_000), Channel()
    outbox.attach(channel)
    for number in range(3000):
        outbox.put(caption(number, final=True))
    assert channel.bufferedAmount < 2 * HIGH_WATER_BYTES
    assert not outbox.drained
    while len(outbox):
        channel.read()
    assert [int(m["text"]) for m in channel.sent] == list(range(3000))
    channel.read()
    assert outbox.drained


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"ping","t":1.5,"more":1}', {"type": "ping", "t": 1.5}),
        ('{"type":"mute","on":true}', {"type": "mute", "on": True}),
        ('{"type":"camera","on":false}', {"type": "camera", "on": False}),
        ('{"type":"hangup"}', {"type": "hangup"}),
        ('{"type":"ping"}', None),
        ('{"type":"ping","t":"x"}', None),
        ('{"type":"ping","t":Infinity}', None),
        ('{"type":"ping","t":NaN}', None),
        ('{"type":"mute","on":1}', None),
        ('{"type":"ended","how":"crashed"}', None),
        ('{"type":["hangup"]}', None),
        ("{}", None),
        ("", None),
        ("[" * 4000, None),
        ('{"type":"hangup","x":"' + "y" * 4096 + '"}', None),
        (b'{"type":"hangup"}', None),
    ],
)
def test_messages_of_the_page(text: str | bytes, message: dict[str, Any] | None) -> None:
    assert parse_message(text) == message


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines(form: Any) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        log.configure(Logging(format=form), io.StringIO())
        log.configure(Logging(format=form), stream)  # replaces, does not double
        logging.getLogger("geli.web").info("call opened", extra={"session": "s-1"})
        logging.getLogger("aiortc").info("an offer with addresses")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("geli.web").exception("a fault")
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    lines = stream.getvalue().splitlines()
    if form == "json":
        first, second = (json.loads(line) for line in lines)
        assert (first["level"], first["session"]) == ("INFO", "s-1")
        assert first["message"] == "call opened"
        assert second["exception"].endswith("\nValueError")
    else:
        assert lines[0].endswith("INFO geli.web: call opened session=s-1")
        assert lines[-1] == "ValueError"
    assert "addresses" not in stream.getvalue()


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """`error` as it is caught, with a traceback and a cause."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


WORDS = " ".join(("xylophone", "confession"))
"""What somebody said; put together here, since a traceback shows the lines of this file."""
TROUBLES = {
    "a row": sa.exc.IntegrityError("INSERT INTO turns", {"text": WORDS}, ValueError(WORDS)),
    "a cause": raised(RuntimeError(WORDS), raised(KeyError(WORDS))),
    "a group": ExceptionGroup(WORDS, [raised(TypeError(WORDS))]),
    "a reason without a number": OSError(WORDS),
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_traceback_quotes_nobody(trouble: str, form: Any) -> None:
    error = raised(TROUBLES[trouble])
    record = logging.makeLogRecord({"name": "geli.web", "levelname": "ERROR", "msg": "a fault"})
    record.exc_info = (type(error), error, error.__traceback__)
    record.exc_text = WORDS  # what another handler's formatter left there
    line = (log.JsonLines() if form == "json" else log.Text()).format(record)
    assert "xylophone" not in line
    assert type(error).__qualname__ in line
    assert "in raised" in line  # the frames are there


def test_a_traceback_keeps_what_is_known_to_be_harmless() -> None:
    told = raised(StoreError("the disk is full", "make room"), raised(OSError(28, "No space left")))
    trace = log.trace(told)
    assert "No space left" in trace
    assert trace.endswith("agent.errors.StoreError: the disk is full — make room")
    assert trace.index("No space left") < trace.index("which led to") < trace.index("make room")


def test_asyncio_shows_no_repr_of_a_task() -> None:
    message = f"Task exception was never retrieved\nfuture: <Task exception=ValueError({WORDS!r})>"
    record = logging.makeLogRecord({"name": "asyncio", "levelname": "ERROR", "msg": message})
    assert log.Text("%(message)s").format(record) == "Task exception was never retrieved"


@pytest.mark.parametrize(
    ("size", "shape"), [((320, 240), (240, 320, 3)), ((1280, 720), (360, 640, 3))]
)
def test_frames_become_rgb_of_a_bounded_size(
    size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    red = np.zeros((size[1], size[0], 3), np.uint8)
    red[..., 0] = 200
    frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p")
    pixels = rgb(frame)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    assert pixels[..., 0].mean() > 150 > 60 > pixels[..., 2].mean()


def test_aiortc_still_keeps_what_is_replaced_under_its_names() -> None:
    """`rtc` sets private attributes; an aiortc without them would ignore that."""
    from aiortc import RTCPeerConnection

    from agent.web.rtc import _decode_by, _hold_back

    async def check() -> None:
        pc = RTCPeerConnection()
        receiver = pc.addTransceiver("audio").receiver
        assert receiver._RTCRtpReceiver__jitter_buffer._prefetch == 4
        _hold_back(receiver, 2)
        assert receiver._RTCRtpReceiver__jitter_buffer.held == 2
        assert hasattr(receiver, "_RTCRtpReceiver__decoder_queue")
        hearing = Hearing(lambda pcm: None, lambda: None, lambda error: None)
        _decode_by(receiver, hearing)
        assert receiver._RTCRtpReceiver__decoder_queue is hearing
        await pc.close()

    asyncio.run(check())
