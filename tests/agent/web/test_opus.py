"""The sound of a call as Opus: what goes in comes out, silence is free, damage is survived."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs import CODECS
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from agent.web.opus import SETTLED_FRAMES, Encoder, Hearing

pytestmark = pytest.mark.unit

OPUS = next(codec for codec in CODECS["audio"] if codec.name == "opus")
PCMU = next(codec for codec in CODECS["audio"] if codec.name == "PCMU")
FRAME = 960


def tone(frames: int, hz: float = 440.0) -> np.ndarray:
    """A tone, int16 [frames, 960] at 48 kHz."""
    t = np.arange(frames * FRAME) / 48_000
    return (8000 * np.sin(2 * np.pi * hz * t)).astype(np.int16).reshape(frames, FRAME)


class Ears:
    """A `Hearing` and what it heard."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.blocks: list[np.ndarray] = []
        self.packets = 0
        self.failures: list[Exception] = []
        self._problem = problem
        self.hearing = Hearing(self._hear, self._alive, self.failures.append)

    def feed(self, codec: RTCRtpCodecParameters, data: bytes, at: int) -> None:
        self.hearing.put((codec, JitterFrame(data, at * codec.clockRate // 50)))

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate(self.blocks)

    def _hear(self, pcm: np.ndarray) -> None:
        if self._problem is not None:
            raise self._problem
        self.blocks.append(pcm)

    def _alive(self) -> None:
        self.packets += 1


def packets(blocks: np.ndarray) -> list[Any]:
    encoder = Encoder()
    return [encoder.encode(block, k * FRAME) for k, block in enumerate(blocks)]


def pitch_hz(pcm: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(pcm))) * 16_000 / len(pcm))


def test_what_is_said_is_heard_at_the_same_pitch_and_loudness() -> None:
    ears = Ears()
    for k, packet in enumerate(packets(tone(50))):
        assert packet.pts == k * FRAME
        ears.feed(OPUS, bytes(packet), k)
    heard = ears.pcm[3200:]
    assert ears.packets == 50
    assert abs(len(ears.pcm) - 16_000) < 700
    assert pitch_hz(heard) == pytest.approx(440, abs=3)
    assert np.abs(heard).max() == pytest.approx(8000, rel=0.1)


def test_lasting_silence_is_one_packet_over_and_over_and_sounds_silent() -> None:
    blocks = np.concatenate([tone(20), np.zeros((60, FRAME), np.int16), tone(20)])
    made = packets(blocks)
    settled = {bytes(p) for p in made[20 + SETTLED_FRAMES : 80]}
    assert len(settled) == 1
    assert len({bytes(p) for p in made[:20]}) > 10
    ears = Ears()
    for k, packet in enumerate(made):
        ears.feed(OPUS, bytes(packet), k)
    quiet = ears.pcm[(20 + SETTLED_FRAMES) * 320 : 79 * 320]
    assert np.abs(quiet).max() <= 3
    assert pitch_hz(ears.pcm[85 * 320 :]) == pytest.approx(440, abs=6)


def test_damage_and_empty_packets_are_passed_over() -> None:
    ears = Ears()
    for k, packet in enumerate(packets(tone(30))):
        ears.feed(OPUS, {10: b"", 11: b"\xff" * 3}.get(k, bytes(packet)), k)
    assert ears.packets == 30
    assert pitch_hz(ears.pcm[-4800:]) == pytest.approx(440, abs=6)
    assert ears.failures == []


def test_the_peer_may_change_its_codec() -> None:
    ears = Ears()
    for k, packet in enumerate(packets(tone(20))):
        ears.feed(OPUS, bytes(packet), k)
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", 8000
    wave = (8000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.int16)
    for k in range(50):
        frame = av.AudioFrame.from_ndarray(wave[None, k * 160 : k * 160 + 160], "s16", "mono")
        frame.sample_rate = 8000
        (packet,) = encoder.encode(frame)
        ears.feed(PCMU, bytes(packet), 20 + k)
    assert pitch_hz(ears.pcm[-8000:]) == pytest.approx(440, abs=6)


def test_a_call_that_fails_is_told_once_and_hears_no_more() -> None:
    ears = Ears(RuntimeError("broken"))
    for k, packet in enumerate(packets(tone(5))):
        ears.feed(OPUS, bytes(packet), k)
    assert [str(error) for error in ears.failures] == ["broken"]
    ears.hearing.put(None)
    ears.hearing.get()  # returns


def test_what_is_lost_is_silence_of_the_same_length() -> None:
    """The session clock counts what is heard: it must not run slow in a bad network."""
    ears = Ears()
    for k, packet in enumerate(packets(tone(100))):
        if k % 10 != 5:
            ears.feed(OPUS, bytes(packet), k)
    assert abs(len(ears.pcm) - 32_000) < 700
    assert sum(not block.any() and len(block) == 320 for block in ears.blocks) == 10


def test_a_pause_of_the_sender_is_not_heard() -> None:
    ears = Ears()
    for k, packet in enumerate(packets(tone(20))):
        ears.feed(OPUS, bytes(packet), k if k < 10 else k + 50)
    assert abs(len(ears.pcm) - 6400) < 700
