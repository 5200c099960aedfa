"""Measures corpus jobs: CPU an hour of video, embeddings, replies; worked out for CANDOR.

geli bench corpus
python -m tests.bench.corpus
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from agent.affect import ListenerModels, settings_of
from agent.config import Config, load
from perception import clip
from perception.settings import Settings
from tests.bench import corpus_text

SIZES = ((640, 480), (1280, 720))
FPS = 30
CANDOR_HOURS, FACES = 850, 2
CORES = 64


def measure(config: Config, minutes: float = 3.0) -> dict[str, Any]:
    """One core, no Ray: what a worker spends.

    Args:
        config: the profile.
        minutes: of each test video, the face clip looped and encoded by x264 (three B-frames, as
            it does unless told otherwise).

    Returns:
        For each size: `cpu_s_an_hour` and its shares, without and with frames left out; and what
        that makes of CANDOR. `embeddings` and `replies`: see `corpus_text`.
    """
    found: dict[str, Any] = {"frames_hz": config.perception.frames_hz}
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            video = looped(Path(folder) / "long.mp4", width, height, minutes)
            found[f"{width}x{height}"] = affect(video, config, minutes)
    return found | corpus_text.measure(config)


def looped(path: Path, width: int, height: int, minutes: float) -> Path:
    """The face clip over and over at 30 frames a second, cut to the middle."""
    import av

    from tests import media

    pictures = []
    with av.open(str(media.face_clip())) as source:
        for frame in source.decode(video=0):
            wide = round(frame.width * height / frame.height / 2) * 2
            picture = frame.to_ndarray(format="rgb24", width=max(wide, width), height=height)
            left = (picture.shape[1] - width) // 2
            small = np.ascontiguousarray(picture[:, left : left + width])
            pictures.append(
                av.VideoFrame.from_ndarray(small, format="rgb24").reformat(format="yuv420p")
            )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(60 * minutes * FPS)):
            # To and fro, so that no cut falls where the clip begins again.
            place = number % (2 * len(pictures) - 2)
            frame = pictures[min(place, 2 * len(pictures) - 2 - place)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@dataclass
class Timed:
    """Adds up the CPU seconds of one method's calls."""

    call: Callable[..., Any]
    cpu_s: float = 0.0
    calls: int = field(default=0)

    def __call__(self, *args: Any) -> Any:
        started = time.process_time()
        result = self.call(*args)
        self.cpu_s += time.process_time() - started
        self.calls += 1
        return result


def affect(video: Path, config: Config, minutes: float) -> dict[str, Any]:
    """CPU seconds an hour of video, by part."""
    models, settings = ListenerModels.load(config), settings_of(config)
    reading = Timed(models.detector.detect), Timed(models.classifier.classify)
    models.detector.detect, models.classifier.classify = reading  # type: ignore[method-assign]
    runs = {}
    for name, planned in (("every frame decoded", False), ("needed frames decoded", True)):
        for part in reading:
            part.cpu_s, part.calls = 0.0, 0
        started, wall = time.process_time(), time.perf_counter()
        result = _perceived(video, models, settings, planned)
        cpu_s, wall_s = time.process_time() - started, time.perf_counter() - wall
        hour = 60 / minutes
        inference = sum(part.cpu_s for part in reading)
        whole = cpu_s * hour
        core_hours = whole * CANDOR_HOURS * FACES / 3600
        runs[name] = {
            "cpu_s_an_hour": round(whole, 1),
            "inference_share": round(inference / cpu_s, 3),
            "decode_and_conversion_share": round(1 - inference / cpu_s, 3),
            "wall_s_an_hour": round(wall_s * hour, 1),
            "frames": result.frames,
            "frames_analysed": result.frames_analysed,
            "candor_core_hours": round(core_hours, 1),
            f"candor_hours_on_{CORES}_cores": round(core_hours / CORES, 2),
            "windows": [(w.index, w.positive, w.probabilities) for w in result.windows],
        }
    first, second = (run.pop("windows") for run in runs.values())
    models.close()
    return {
        "minutes": minutes,
        "megabytes_an_hour": round(video.stat().st_size * 60 / minutes / 1e6, 1),
        **runs,
        "same_windows": first == second,
        "windows": len(first),
    }


def _perceived(video: Path, models: ListenerModels, settings: Settings, planned: bool) -> Any:
    if planned:
        return clip.perceive_clip(video, models.detector, models.classifier, settings)
    return clip._perceive(video, models.detector, models.classifier, settings, None, None)


if __name__ == "__main__":
    print(json.dumps(measure(load("cpu")), indent=2))
