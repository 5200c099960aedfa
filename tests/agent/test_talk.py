"""`geli talk` around a sound card that the test plays: who is heard when, and what errors say."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent import talk
from agent.config import load
from agent.errors import MediaError
from agent.host import Host
from agent.records import Consent, Session
from tests import scripted

pytestmark = pytest.mark.unit


class FakeSound(types.ModuleType):
    """As much of sounddevice as is used."""

    class PortAudioError(Exception):
        pass

    def __init__(self, devices: list[dict[str, Any]], opens: bool = True) -> None:
        super().__init__("sounddevice")
        self.devices = devices
        self.callback: Callable[..., None] | None = None
        fake = self

        class Stream:
            def __init__(self, callback: Callable[..., None], **settings: Any) -> None:
                if not opens:
                    raise FakeSound.PortAudioError("Device unavailable")
                assert settings["samplerate"] == 48_000 and settings["blocksize"] == talk.BLOCK
                fake.callback = callback

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *problem: object) -> None:
                fake.callback = None

        self.Stream = Stream

    def query_devices(self, name: Any = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        usable = [d for d in self.devices if d[f"max_{kind}_channels"]]
        found = [d for d in usable if name is None or name in (d["index"], d["name"])]
        if not found:
            raise ValueError(f"no {kind} device matching {name!r}")
        return found[0]


CARD = [
    {"index": 0, "name": "mic", "max_input_channels": 1, "max_output_channels": 0},
    {"index": 1, "name": "ears", "max_input_channels": 0, "max_output_channels": 2},
]


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> FakeSound:
    fake = FakeSound(CARD)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_devices_are_found_by_name_number_or_default(sound: FakeSound) -> None:
    assert talk.check_devices(None, None) == (0, 1)
    assert talk.check_devices("mic", "1") == (0, 1)


def test_an_unknown_device_is_one_line_that_names_the_others(sound: FakeSound) -> None:
    with pytest.raises(MediaError, match=r"no microphone 'foo' .*--microphone one of: 0: mic"):
        talk.check_devices("foo", None)


def test_no_sound_card_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSound([]))
    with pytest.raises(MediaError, match="no microphone was found"):
        talk.check_devices(None, None)


def test_missing_portaudio_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(MediaError, match="apt-get install libportaudio2"):
        talk.check_devices(None, None)


@pytest.mark.parametrize("headphones", [False, True])
async def test_the_microphone_is_closed_while_the_loudspeaker_talks(
    sound: FakeSound, headphones: bool
) -> None:
    """Speech during the greeting: with loudspeakers it is taken as echo, with headphones it
    interrupts."""
    config = load("cpu", ["perception.enabled=false"])
    host = Host(config, None, scripted.engines(lambda pcm: "stop that please"))
    session = Session(consent=Consent.KEEP, source="talk")
    call = host.new_call(session, lambda event: None, paced=False)
    running = asyncio.create_task(call.run())
    card = talk.SoundCard(call, 0, 1, headphones=headphones)
    heard = []
    with card.running():
        speech = scripted.resampled(scripted.tone(1.5), 48_000)
        quiet = np.zeros(48_000 * 2, np.int16)
        signal = np.concatenate([quiet[:48_000], speech, quiet])
        for begin in range(0, len(signal) - talk.BLOCK, talk.BLOCK):
            out = np.zeros((talk.BLOCK, 1), np.int16)
            assert sound.callback is not None
            block = signal[begin : begin + talk.BLOCK, np.newaxis]
            sound.callback(block, out, talk.BLOCK, None, None)
            heard.append(out.any())
            await asyncio.sleep(0)
            await call.settle()
    call.hang_up()
    await running
    assert any(heard), "the greeting came out of the loudspeaker"
    user = [turn for turn in session.turns if turn.speaker == "user"]
    assert bool(user) is headphones
    assert session.turns[0].interrupted is headphones
    await host.close()


async def test_devices_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSound(CARD, opens=False))
    host = Host(load("cpu", ["perception.enabled=false"]), None, scripted.engines())
    call = host.new_call(Session(consent=Consent.KEEP), lambda event: None)
    card = talk.SoundCard(call, 0, 1, headphones=True)
    with pytest.raises(MediaError, match="cannot be opened: Device unavailable"), card.running():
        pass
    await host.close()


def test_a_missing_camera_is_one_line() -> None:
    with pytest.raises(MediaError, match="no camera 77 was found"):
        talk.Webcam(77)
