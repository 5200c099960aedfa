"""Recordings: any file that FFmpeg reads, as 16 kHz mono samples or timed RGB frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.engines.protocols import SAMPLE_RATE_HZ
from agent.errors import MediaError

MAX_WIDTH_PX = 640


def read_audio(path: Path) -> NDArray[np.int16]:
    """The first audio stream of `path`: int16 [samples], mono, 16 kHz.

    Raises:
        MediaError: no such file, no sound in it, or it cannot be decoded.
    """
    import av

    container = _open(path)
    with container:
        if not container.streams.audio:
            raise MediaError(f"{path}: there is no sound in this file", "give another --audio")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        parts: list[NDArray[np.int16]] = []
        try:
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None
                parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
        except av.FFmpegError as error:
            raise MediaError(f"{path}: the sound cannot be decoded: {error.strerror}") from None
    if not sum(len(part) for part in parts):
        raise MediaError(f"{path}: the sound is empty", "give another --audio")
    return np.concatenate(parts)


def read_video(path: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Frames of the first video stream in order: seconds from the start, RGB [h, w, 3].

    Raises:
        MediaError: no such file, no pictures in it, or it cannot be decoded.
    """
    import av

    container = _open(path)
    with container:
        if not container.streams.video:
            raise MediaError(f"{path}: there are no pictures in this file", "give another --video")
        stream = container.streams.video[0]
        first: float | None = None
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                first = frame.time if first is None else first
                yield frame.time - first, _rgb(frame)
        except av.FFmpegError as error:
            raise MediaError(f"{path}: the pictures cannot be decoded: {error.strerror}") from None
    if first is None:
        raise MediaError(f"{path}: there is no frame in this file", "give another --video")


def _rgb(frame: Any) -> NDArray[np.uint8]:
    if frame.width > MAX_WIDTH_PX:
        height = round(frame.height * MAX_WIDTH_PX / frame.width / 2) * 2
        frame = frame.reformat(width=MAX_WIDTH_PX, height=height)
    rgb: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return rgb


def _open(path: Path) -> Any:
    import av

    if path.is_dir():
        raise MediaError(f"{path} is a folder", "name a sound or video file")
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or "unknown format"
        raise MediaError(f"{path}: not a recording that can be read: {reason}") from None
