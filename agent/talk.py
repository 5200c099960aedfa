"""A call without a browser: sound card and webcam in place of WebRTC.

The sound card's clock drives everything: each 20 ms block of microphone in is one block of the
agent's voice out. There is no echo cancellation here, so with loudspeakers the microphone is taken
as silent while the agent is audible (no barge-in); with headphones it stays open.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.call import Call
from agent.engines.protocols import SAMPLE_RATE_HZ
from agent.errors import MediaError
from agent.playback import RATE_HZ

BLOCK = 960
"""20 ms at 48 kHz."""
ECHO_S = 0.3
"""How long the room may still carry the agent's voice."""
QUEUED_BLOCKS = 5
"""Most of the agent's voice that waits for the sound card: 100 ms."""

log_ = logging.getLogger("geli.talk")


def sound_library() -> Any:
    """The sounddevice module.

    Raises:
        MediaError: PortAudio is missing.
    """
    try:
        import sounddevice
    except OSError as error:
        raise MediaError(
            f"no sound here: {error}", "install PortAudio (Debian: apt-get install libportaudio2)"
        ) from None
    return sounddevice


def check_devices(microphone: str | None, speaker: str | None) -> tuple[int, int]:
    """Indices of the microphone and the speaker to use.

    Raises:
        MediaError: no such device, or none at all; names those there are.
    """
    sound = sound_library()
    return _device(sound, microphone, "input"), _device(sound, speaker, "output")


def _device(sound: Any, wanted: str | None, kind: str) -> int:
    word = "microphone" if kind == "input" else "speaker"
    known = [
        f"{d['index']}: {d['name']}" for d in sound.query_devices() if d[f"max_{kind}_channels"] > 0
    ]
    if not known:
        raise MediaError(f"no {word} was found", "plug one in, or use `geli call` or `geli replay`")
    name = int(wanted) if wanted is not None and wanted.isdigit() else wanted
    try:
        return int(sound.query_devices(name, kind)["index"])
    except (ValueError, sound.PortAudioError):
        option = "--microphone" if kind == "input" else "--speaker"
        what = f"no {word} {wanted!r}" if wanted else f"no default {word}"
        raise MediaError(what, f"{option} one of: {'; '.join(known)}") from None


class SoundCard:
    """Moves audio between the sound card and a call."""

    def __init__(self, call: Call, microphone: int, speaker: int, *, headphones: bool) -> None:
        import av

        self._call = call
        self._devices = (microphone, speaker)
        self._headphones = headphones
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        self._out: collections.deque[NDArray[np.int16]] = collections.deque(maxlen=QUEUED_BLOCKS)
        self._loop = asyncio.get_running_loop()
        self._audible_s = ECHO_S  # since the agent was last heard

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The stream, open.

        Raises:
            MediaError: the devices cannot be opened together.
        """
        sound = sound_library()
        try:
            with sound.Stream(
                samplerate=RATE_HZ,
                blocksize=BLOCK,
                channels=1,
                dtype="int16",
                device=self._devices,
                callback=self._callback,
            ):
                yield
        except sound.PortAudioError as error:
            raise MediaError(
                f"the sound devices cannot be opened: {error}",
                "is another program using them? choose with --microphone and --speaker",
            ) from None

    def _callback(self, taken: Any, given: Any, frames: int, time: Any, status: Any) -> None:
        """PortAudio's thread: hand over and return."""
        block = self._out.popleft() if self._out else None
        given[:, 0] = block if block is not None and len(block) == frames else 0
        samples = taken[:, 0].copy()
        with contextlib.suppress(RuntimeError):  # the loop is closing
            self._loop.call_soon_threadsafe(self._moved, samples)

    def _moved(self, samples: NDArray[np.int16]) -> None:
        import av

        if not self._headphones and self._audible_s < ECHO_S:
            samples = np.zeros_like(samples)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        for out in self._resampler.resample(frame):
            self._call.hear(out.to_ndarray()[0])
        voice = self._call.play(len(samples))
        self._audible_s = 0.0 if voice.any() else self._audible_s + len(samples) / RATE_HZ
        self._out.append(voice)


class Webcam:
    """A thread that shows the call what the camera sees.

    Raises:
        MediaError: there is no such camera.
    """

    def __init__(self, index: int) -> None:
        # OpenCV tells the terminal about every backend it tries; our one line is enough.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        import cv2

        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise MediaError(
                f"no camera {index} was found", "choose with --camera N, or go without: --no-camera"
            )
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, 640)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, 480)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, call: Call) -> None:
        """Feed frames to `call` until `close`."""
        loop = asyncio.get_running_loop()

        def watch() -> None:
            while not self._stop.is_set():
                found, frame = self._capture.read()
                if not found:
                    log_.warning("the camera stopped; labels are unknown from here on")
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(call.set_camera, False)
                    return
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(call.see, np.ascontiguousarray(frame[:, :, ::-1]))

        self._thread = threading.Thread(target=watch, name="geli-webcam", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching and let the camera go."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        self._capture.release()
