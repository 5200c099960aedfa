"""Files that Chromium plays as microphone and camera, made at test time from the test media.

Chromium starts each file when the page opens the device, so both share one clock: seconds since
the devices were opened. After its end a wav with `%noloop` is silent, a y4m begins anew.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from agent.engines.protocols import SAMPLE_RATE_HZ
from agent.media import read_audio
from tests import media

WIDTH, HEIGHT, FRAMES_HZ = 320, 240, 10
NOT_SMILING_S = (0.2, 6.5)
SMILING_S = (12.0, 19.0)
"""The parts of the face clip that are clearly the one or the other."""


@dataclass(slots=True, frozen=True)
class Line:
    """Something the user says at `at_s` on the devices' clock."""

    at_s: float
    pcm: NDArray[np.int16]  # [n] at 16 kHz
    text: str

    @property
    def end_s(self) -> float:
        return self.at_s + len(self.pcm) / SAMPLE_RATE_HZ


def recorded(at_s: float, name: str) -> Line:
    """A recording of `media.SPEECH` without the silence around it."""
    path, text = media.speech(name)
    return Line(at_s, _trimmed(read_audio(path)), text)


def spoken(at_s: float, text: str) -> Line:
    """A line spoken by the packaged voice."""
    return Line(at_s, _trimmed(media.say(text)), text)


def _trimmed(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 0.01 * 32768)
    return pcm[loud[0] : loud[-1] + 1]


def write_microphone(path: Path, lines: Sequence[Line]) -> None:
    """All lines at their times, silence between them: 16 kHz mono s16."""
    samples = np.zeros(round((lines[-1].end_s + 1) * SAMPLE_RATE_HZ), np.int16)
    for line in lines:
        begin = round(line.at_s * SAMPLE_RATE_HZ)
        samples[begin : begin + len(line.pcm)] = line.pcm
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE_HZ)
        wav.writeframes(samples.tobytes())


def write_camera(path: Path, smiles_at_s: float, length_s: float) -> None:
    """A face that does not smile until `smiles_at_s` and smiles from then on; 115 KB a frame.

    Format: YUV4MPEG2 (yuv4mpeg(5)): a header line, then `FRAME` and the planes of each picture.
    """
    parts = _pictures(NOT_SMILING_S), _pictures(SMILING_S)
    with path.open("wb") as out:
        out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FRAMES_HZ}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(round(length_s * FRAMES_HZ)):
            part = parts[number >= smiles_at_s * FRAMES_HZ]
            out.write(b"FRAME\n")
            out.write(part[_back_and_forth(number, len(part))])


def _back_and_forth(number: int, count: int) -> int:
    """0, 1, … count - 1, count - 2, … 1, 0, 1, …: a loop without a jump."""
    step = number % (2 * count - 2)
    return min(step, 2 * count - 2 - step)


def _pictures(span_s: tuple[float, float]) -> list[bytes]:
    """Pictures of the face clip in `span_s`, FRAMES_HZ a second, as planar 4:2:0."""
    pictures: list[bytes] = []
    with av.open(str(media.face_clip())) as clip:
        for frame in _frames(clip):
            due_s = span_s[0] + len(pictures) / FRAMES_HZ
            if due_s > span_s[1]:
                break
            if frame.time >= due_s:
                rgb = frame.to_ndarray(format="rgb24")
                side = (rgb.shape[1] - rgb.shape[0] * WIDTH // HEIGHT) // 2
                cut = np.ascontiguousarray(rgb[:, side : rgb.shape[1] - side])
                small = av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(
                    WIDTH, HEIGHT, "yuv420p"
                )
                pictures.append(small.to_ndarray().tobytes())
    return pictures


def _frames(clip: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    return clip.decode(video=0)
