"""The same reading on a video file: real timestamps, decoded in order, no seeking.

Seeking by frame number gave wrong frames with OpenCV 5 (`CAP_PROP_POS_FRAMES`), so PyAV decodes
from the start. Of the frames that nobody looks at, those that no other is predicted from are not
decoded: the ones looked at come out the same to the bit. (Key frames alone would be cheaper still
and wrong: an encoder makes one every few seconds, and a window of two seconds would be judged by
one picture or none.)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.affect import AffectClassifier
from perception.errors import PerceptionError
from perception.faces import FaceDetector, Frame
from perception.reading import FaceReader, Sampler, check_rule
from perception.settings import Settings
from perception.windows import FrameReading, Window, WindowAggregator

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
    """Analysed frames whose timestamp went back."""
    told_s: float | None
    """Duration of the video by the file's own header; None where it has none."""


def perceive_clip(
    path: Path,
    detector: FaceDetector,
    classifier: AffectClassifier,
    settings: Settings,
    progress: Callable[[float, float | None], None] | None = None,
) -> ClipResult:
    """Read the facial affect of a video file.

    Args:
        path: any file that FFmpeg reads and that has a video stream.
        detector: finds the faces.
        classifier: reads them.
        settings: the same as for a call.
        progress: called with (seconds done, seconds in all or None) after every analysed frame.

    Raises:
        PerceptionError: no such file, no video, damaged, or impossible timestamps; or the rule
            needs a valence that the classifier does not give.
    """
    check_rule(settings, classifier)
    with open_video(path) as (container, stream):
        plan = _plan(container, stream, Sampler(settings.frames_hz))
    try:
        return _perceive(path, detector, classifier, settings, progress, plan)
    except _Unplanned:  # the decoder left something out: look at what is there, as a call would
        return _perceive(path, detector, classifier, settings, progress, None)


class _Unplanned(Exception):
    """The decoder gave other frames than the file promised."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a file holds by its packets, before anything is decoded."""

    times_s: list[float]
    """Of all frames in order, from 0."""
    taken: frozenset[int]
    """Timestamps of the frames that the sampler takes, in the stream's time base."""


def _plan(container: Any, stream: Any, sampler: Sampler) -> _Plan | None:
    """Which frames will be looked at; None where packets do not tell."""
    stamps: list[int] = []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end
            continue
        if packet.pts is None or packet.is_discard or packet.is_corrupt:
            return None
        stamps.append(packet.pts)
    stamps.sort()
    if not stamps or stream.time_base is None or len(set(stamps)) < len(stamps):
        return None
    seconds = [float(stamp * stream.time_base) for stamp in stamps]
    times_s = [max(0.0, t_s - seconds[0]) for t_s in seconds]
    taken = (stamp for stamp, t_s in zip(stamps, times_s, strict=True) if sampler.take(t_s))
    return _Plan(times_s, frozenset(taken))


def _perceive(
    path: Path,
    detector: FaceDetector,
    classifier: AffectClassifier,
    settings: Settings,
    progress: Callable[[float, float | None], None] | None,
    plan: _Plan | None,
) -> ClipResult:
    reader, sampler = FaceReader(detector, classifier, settings), Sampler(settings.frames_hz)
    aggregator = WindowAggregator.of(settings)
    windows: list[Window] = []
    frames = analysed = seen = 0
    end_s = 0.0
    with open_video(path) as (container, stream):
        rate = float(stream.average_rate or 0) or 25.0
        total_s = None if container.duration is None else container.duration / 1e6
        told_s = total_s if stream.duration is None else float(stream.duration * stream.time_base)
        decoded = container.decode(stream) if plan is None else _needed(container, stream, plan)
        for t_s, frame in _timed(decoded, rate):
            if t_s > end_s + MAX_GAP_S:
                raise PerceptionError(
                    f"{path}: broken timestamps ({end_s:.1f} s, then {t_s:.1f} s)"
                )
            frames += 1
            end_s = max(end_s, t_s + 1.0 / rate)
            if not sampler.take(t_s):
                continue
            affect = reader.read(_rgb(frame), t_s)
            analysed += 1
            seen += affect is not None
            windows += aggregator.feed(FrameReading(t_s, affect))
            if progress is not None:
                progress(end_s, total_s)
    if plan is not None:
        frames, end_s = len(plan.times_s), plan.times_s[-1] + 1.0 / rate
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
        told_s=told_s,
    )


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file's PyAV container and its first video stream; what FFmpeg cannot read in the block
    becomes one line.

    Raises:
        PerceptionError: no such file, a folder, no video, or damaged.
    """
    import av

    if path.is_dir():
        raise PerceptionError(f"{path}: is a folder")
    if not path.exists():
        raise PerceptionError(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            streams = [s for s in container.streams.video if not _is_cover(s)]
            if not streams:
                raise PerceptionError(f"{path}: has no video stream")
            yield container, streams[0]
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise PerceptionError(f"{path}: not a readable video: {reason}") from None


def _timed(frames: Iterable[Any], rate: float) -> Iterator[tuple[float, Any]]:
    """Frames in presentation order with seconds since the first; by count where a pts lacks."""
    first: float | None = None
    for number, frame in enumerate(frames):
        time_s = number / rate if frame.time is None else float(frame.time)
        if not math.isfinite(time_s):
            time_s = number / rate
        first = time_s if first is None else first
        yield max(0.0, time_s - first), frame


def _needed(container: Any, stream: Any, plan: _Plan) -> Iterator[Any]:
    """The frames that the plan takes, in order.

    Raises:
        _Unplanned: one of them did not come, or not in its place.
    """
    expected = iter(sorted(plan.taken))
    for packet in container.demux(stream):
        # Of the others, only those that no frame is predicted from are left out.
        wanted = packet.size == 0 or packet.pts in plan.taken
        stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
        for frame in packet.decode():
            if frame.pts in plan.taken:
                if frame.pts != next(expected, None):
                    raise _Unplanned
                yield frame
    if next(expected, None) is not None:
        raise _Unplanned


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
