"""Video files: real timestamps, and one line for whatever cannot be read."""

from __future__ import annotations

import dataclasses
import math
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from perception import clip
from perception.clip import ClipResult, perceive_clip
from perception.errors import PerceptionError
from perception.faces import Face, Frame
from perception.settings import Settings
from tests.perception.doubles import ColourClassifier, ColourDetector

pytestmark = pytest.mark.unit

SETTINGS = Settings(min_face_px=8)


def video(path: Path, frames: Sequence[tuple[float, int]], fps: int = 30) -> Path:
    """A lossless file of (seconds, red) pictures."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for t_s, red in frames:
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., 0] = red
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * t_s), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def steady(
    seconds: float, red: int, fps: int = 30, start_s: float = 0.0
) -> list[tuple[float, int]]:
    return [(start_s + n / fps, red) for n in range(int(seconds * fps))]


def test_a_clip_in_windows(tmp_path: Path) -> None:
    path = video(
        tmp_path / "a.mkv", [*steady(2, 0), *steady(2, 10, start_s=2), *steady(2, 90, start_s=4)]
    )
    told: list[tuple[float, float | None]] = []
    result = perceive_clip(
        path, ColourDetector(), ColourClassifier(), SETTINGS, lambda *done: told.append(done)
    )
    assert [w.positive for w in result.windows] == [None, False, False, False, True, True]
    assert (result.frames, result.frames_analysed, result.frames_with_face) == (180, 30, 20)
    assert result.duration_s == pytest.approx(6.0, abs=0.04)
    assert result.fps == pytest.approx(30, rel=0.01)
    assert result.late == 0
    assert len(told) == 30 and told == sorted(told)


def test_times_are_the_files_own(tmp_path: Path) -> None:
    """A camera that froze: 2 s of pictures, 6 s of none, 2 s of pictures."""
    path = video(tmp_path / "a.mkv", [*steady(2, 90), *steady(2, 90, start_s=8)])
    result = perceive_clip(path, ColourDetector(), ColourClassifier(), SETTINGS)
    assert result.duration_s == pytest.approx(10, abs=0.04)
    positive = [w.positive for w in result.windows]
    assert positive[0] is True and positive[8] is True
    assert positive[2:7] == [None] * 5
    assert [w.index for w in result.windows] == list(range(10))


def test_a_file_that_does_not_start_at_zero(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", steady(2, 90, start_s=500))
    result = perceive_clip(path, ColourDetector(), ColourClassifier(), SETTINGS)
    assert result.windows[0].start_s == 0.0
    assert [w.positive for w in result.windows] == [True, True]


def test_a_single_picture_is_one_window(tmp_path: Path) -> None:
    result = perceive_clip(
        video(tmp_path / "a.mkv", [(0.0, 90)]), ColourDetector(), ColourClassifier(), SETTINGS
    )
    assert [w.positive for w in result.windows] == [True]
    assert math.isfinite(result.fps)


def test_a_faster_video_gives_the_same_windows(tmp_path: Path) -> None:
    results = [
        perceive_clip(
            video(tmp_path / f"{fps}.mkv", [*steady(3, 90, fps), *steady(3, 10, fps, 3)], fps),
            ColourDetector(),
            ColourClassifier(),
            SETTINGS,
        )  # fmt: skip
        for fps in (10, 25, 60)
    ]
    for result in results:
        labels = [w.positive for w in result.windows]
        assert labels[:2] == [True, True] and labels[3:] == [False] * (len(labels) - 3)


def bad_files(folder: Path) -> dict[str, Path]:
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(32_000))
    (folder / "text.mp4").write_text("no video at all")
    (folder / "empty.mp4").touch()
    return {
        "no such file": folder / "nope.mp4",
        "is a folder": folder,
        "has no video stream": folder / "sound.wav",
        "not a readable video": folder / "text.mp4",
        "not a readable": folder / "empty.mp4",
    }


@pytest.mark.parametrize(
    "problem",
    [
        "no such file",
        "is a folder",
        "has no video stream",
        "not a readable video",
        "not a readable",
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, problem: str) -> None:
    path = bad_files(tmp_path)[problem]
    with pytest.raises(PerceptionError, match=problem) as caught:
        perceive_clip(path, ColourDetector(), ColourClassifier(), SETTINGS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_rule_is_checked_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match="valence"):
        perceive_clip(
            tmp_path / "nope.mp4", ColourDetector(), ColourClassifier(),
            Settings(positive_rule="valence"),
        )  # fmt: skip


def test_valence_reaches_the_window(tmp_path: Path) -> None:
    settings = Settings(min_face_px=8, positive_rule="valence", positive_threshold=0.5)
    result = perceive_clip(
        video(tmp_path / "a.mkv", steady(2, 90)), ColourDetector(), ColourClassifier(True), settings
    )
    assert result.windows[0].valence == pytest.approx(0.8)
    assert result.windows[0].positive is True


def compressed(path: Path, seconds: int = 4) -> Path:
    """H.264 as x264 makes it: many frames that no other is predicted from. Redder each second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "veryfast", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(30 * seconds):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., 0] = 25 * (n // 30) + 10
            picture[: n % 48, :20, 1] = 200
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


class Keeping(ColourDetector):
    """Keeps the pictures that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[bytes] = []

    def detect(self, frame_rgb: Frame) -> list[Face]:
        self.shown.append(frame_rgb.tobytes())
        return super().detect(frame_rgb)


def whole(path: Path, detector: Keeping) -> ClipResult:
    """With every frame decoded."""
    return clip._perceive(path, detector, ColourClassifier(), SETTINGS, None, None)


def decoded_by(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many frames the decoder gives for a clip's reading."""
    given = 0
    needed = clip._needed

    def counted(container: Any, stream: Any, plan: Any) -> Any:
        class Counting:
            def demux(self, stream: Any) -> Any:
                for packet in container.demux(stream):
                    yield Packet(packet)

        class Packet:
            def __init__(self, packet: Any) -> None:
                self.size, self.pts, self._packet = packet.size, packet.pts, packet

            def decode(self) -> Any:
                nonlocal given
                frames = self._packet.decode()
                given += len(frames)
                return frames

        return needed(Counting(), stream, plan)

    with monkeypatch.context() as patch:
        patch.setattr(clip, "_needed", counted)
        perceive_clip(path, ColourDetector(), ColourClassifier(), SETTINGS)
    return given


def test_frames_that_are_left_out_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(tmp_path / "a.mp4")
    every, needed = Keeping(), Keeping()
    result = perceive_clip(path, needed, ColourClassifier(), SETTINGS)
    assert result == whole(path, every)
    assert needed.shown == every.shown and len(set(every.shown)) > 10
    assert (result.frames, result.frames_analysed) == (120, 20)
    assert 20 <= decoded_by(path, monkeypatch) < 100


def test_a_file_that_promises_other_frames_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(tmp_path / "a.mp4")
    real = clip._plan

    def promises_more(*args: Any) -> Any:
        plan = real(*args)
        assert plan is not None
        return dataclasses.replace(plan, taken=plan.taken | {max(plan.taken) + 10**9})

    monkeypatch.setattr(clip, "_plan", promises_more)
    seen, every = Keeping(), Keeping()
    assert perceive_clip(path, seen, ColourClassifier(), SETTINGS) == whole(path, every)
    assert seen.shown[-len(every.shown) :] == every.shown
