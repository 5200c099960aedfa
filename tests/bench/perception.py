"""Measures perception: the time of each step, and what the worker takes of one core in a call.

geli bench perception
python -m tests.bench.perception
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from agent.affect import Listener, ListenerModels, settings_of
from agent.config import Config, load
from agent.records import AffectWindow
from perception.faces import align

CAMERA_HZ = 15.0
LIVE_S = 20.0
WARM_FRAMES = 10
WIDTH, HEIGHT = 640, 480


def measure(config: Config) -> dict[str, Any]:
    """Read the face clip step by step, then once more through a call's worker in real time.

    Returns:
        `detect_ms`, `align_ms`, `classify_ms` and `frame_ms` (all three), each with p50 and p95
        over the clip's frames; `core_share`, CPU seconds of the whole process a second while the
        worker reads `frames_hz` of a camera's 15 frames (the idle loop that feeds it included);
        `windows`, `windows_seen` and `windows_due` of that run; `load_s`; `memory_mb` and
        `threads` that the models and the worker added.
    """
    from tests import media

    process = psutil.Process()
    frames = _frames(media.face_clip(), config.perception.frames_hz)
    memory, threads = process.memory_info().rss, process.num_threads()
    started = time.perf_counter()
    models = ListenerModels.load(config)
    load_s = time.perf_counter() - started
    try:
        steps = _steps(models, config, frames)
        live = _live(models, config, frames, process)
        added = process.memory_info().rss - memory
        return {
            "classifier": models.classifier_id,
            "frame": f"{WIDTH}x{HEIGHT}",
            "frames_hz": config.perception.frames_hz,
            **steps,
            **live,
            "load_s": round(load_s, 2),
            "memory_mb": round(added / 2**20, 1),
            "threads": process.num_threads() - threads,
        }
    finally:
        models.close()


def _frames(path: Path, hz: float) -> list[NDArray[np.uint8]]:
    """The clip's frames at `hz`, [480, 640, 3]: the picture's middle, as a webcam shows it."""
    import av

    frames, due_s = [], 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= due_s:
                due_s += 1 / hz
                width = round(frame.width * HEIGHT / frame.height)
                whole = frame.to_ndarray(format="rgb24", width=width, height=HEIGHT)
                left = (width - WIDTH) // 2
                frames.append(np.ascontiguousarray(whole[:, left : left + WIDTH]))
    return frames


def _steps(
    models: ListenerModels, config: Config, frames: list[NDArray[np.uint8]]
) -> dict[str, Any]:
    times: dict[str, list[float]] = {"detect_ms": [], "align_ms": [], "classify_ms": []}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        times[step].append(1000 * (time.perf_counter() - started))
        return result

    size = models.classifier.size
    for frame in frames:
        faces = timed("detect_ms", lambda frame=frame: models.detector.detect(frame))
        if faces:
            face = faces[0]
            crop = timed("align_ms", lambda frame=frame, face=face: align(frame, face, size))
            timed("classify_ms", lambda crop=crop: models.classifier.classify(crop))
    times = {step: values[WARM_FRAMES:] for step, values in times.items()}
    whole = [sum(steps) for steps in zip(*times.values(), strict=False)]
    return {step: _spread(values) for step, values in {**times, "frame_ms": whole}.items()}


def _spread(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    p95 = statistics.quantiles(values, n=20)[-1]
    return {"p50": round(statistics.median(values), 2), "p95": round(p95, 2)}


def _live(
    models: ListenerModels, config: Config, frames: list[NDArray[np.uint8]], process: psutil.Process
) -> dict[str, Any]:
    """A camera of 15 frames a second and audio time every 20 ms, in real time."""
    windows: list[AffectWindow] = []
    listener = Listener(models, config)
    listener.start(windows.append)
    cpu, started = process.cpu_times(), time.perf_counter()
    shown, ticks = 0, int(LIVE_S / 0.02)
    for tick in range(ticks):
        now_s = tick * 0.02
        if now_s * CAMERA_HZ >= shown:
            at = int(shown / CAMERA_HZ * config.perception.frames_hz)
            listener.see(frames[at % len(frames)], now_s)
            shown += 1
        listener.advance(now_s)
        time.sleep(max(0.0, started + now_s + 0.02 - time.perf_counter()))
    spent = process.cpu_times()
    wall_s = time.perf_counter() - started
    listener.close()
    cpu_s = spent.user + spent.system - cpu.user - cpu.system
    settings = settings_of(config)
    return {
        "core_share": round(cpu_s / wall_s, 4),
        "windows": len(windows),
        "windows_seen": sum(window.face_found for window in windows),
        "windows_due": int((wall_s - settings.window_s) / settings.hop_s) + 1,
    }


if __name__ == "__main__":
    print(json.dumps(measure(load("cpu")), indent=2))
