"""The same reading on a video file: real timestamps, every frame decoded in order, no seeking.

Seeking by frame number gave wrong frames with OpenCV 5 (`CAP_PROP_POS_FRAMES`), so PyAV decodes
from the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import PerceptionError
from perception.faces import Frame
from perception.reading import Engines, Reader, Sampler
from perception.settings import Settings
from perception.windows import Window, WindowAggregator

MAX_SIDE_PX = 1280
"""Larger pictures are shrunk while they are converted; a face loses nothing that is read."""
MAX_GAP_S = 3600.0
"""Timestamps further apart than this are broken."""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What a clip showed."""

    windows: list[Window]
    frames: int
    """Frames in the file."""
    frames_analysed: int
    frames_with_face: int
    fps: float
    """Frames in the file over its duration."""
    duration_s: float
    late: int
    """Analysed frames whose timestamp went back behind a finished window."""


def perceive_clip(
    path: Path,
    settings: Settings,
    engines: Engines,
    *,
    progress: Callable[[float, float | None], None] | None = None,
) -> ClipResult:
    """Read the facial affect of a video file.

    Args:
        path: any file that FFmpeg reads and that has a video stream.
        settings: the same as for a call.
        engines: see `perception.reading.open_engines`.
        progress: called with (seconds done, seconds in all or None) after every analysed frame.

    Raises:
        PerceptionError: no such file, no video, damaged, or impossible timestamps.
    """
    import av

    if not path.is_file():
        raise PerceptionError(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            streams = [s for s in container.streams.video if not _is_cover(s)]
            if not streams:
                raise PerceptionError(f"{path}: has no video stream")
            return _perceive(path, container, streams[0], settings, engines, progress)
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise PerceptionError(f"{path}: not a readable video: {reason}") from None


def _perceive(
    path: Path,
    container: Any,
    stream: Any,
    settings: Settings,
    engines: Engines,
    progress: Callable[[float, float | None], None] | None,
) -> ClipResult:
    rate = float(stream.average_rate or 0) or 25.0
    total_s = None if container.duration is None else container.duration / 1e6
    reader, sampler = Reader(engines, settings), Sampler(settings.frames_hz)
    aggregator = WindowAggregator.of(settings, frames_hz=min(rate, settings.frames_hz))
    windows: list[Window] = []
    frames = analysed = seen = 0
    end_s = 0.0
    for t_s, frame in _timed(container, stream, rate):
        if t_s > end_s + MAX_GAP_S:
            raise PerceptionError(f"{path}: broken timestamps ({end_s:.1f} s, then {t_s:.1f} s)")
        frames += 1
        end_s = max(end_s, t_s + 1.0 / rate)
        if not sampler.take(t_s):
            continue
        reading = reader.read(_rgb(frame), t_s)
        analysed += 1
        seen += reading.affect is not None
        windows += aggregator.add(reading)
        if progress is not None:
            progress(end_s, total_s)
    if not frames:
        raise PerceptionError(f"{path}: holds no video frame")
    windows += aggregator.advance(end_s)
    windows += aggregator.flush()
    return ClipResult(
        windows=windows,
        frames=frames,
        frames_analysed=analysed,
        frames_with_face=seen,
        fps=frames / end_s,
        duration_s=end_s,
        late=aggregator.late,
    )


def _timed(container: Any, stream: Any, rate: float) -> Iterator[tuple[float, Any]]:
    """Frames in presentation order with seconds since the first; by count where a pts lacks."""
    first: float | None = None
    for number, frame in enumerate(container.decode(stream)):
        time_s = number / rate if frame.time is None else float(frame.time)
        if not math.isfinite(time_s):
            time_s = number / rate
        first = time_s if first is None else first
        yield max(0.0, time_s - first), frame


def _rgb(frame: Any) -> Frame:
    """RGB, not larger than `MAX_SIDE_PX`, turned as the camera was held."""
    scale = max(1.0, max(frame.width, frame.height) / MAX_SIDE_PX)
    size = (max(1, round(frame.width / scale)), max(1, round(frame.height / scale)))
    picture = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    # Phones store upright video lying on its side; FFmpeg's rotation is counter-clockwise.
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters), dtype=np.uint8)


def _is_cover(stream: Any) -> bool:
    """Whether the stream is the still picture of a music file."""
    return "attached_pic" in str(stream.disposition).lower()
