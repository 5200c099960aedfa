"""The server that `geli bench cost` measures: the real application, and a CPU clock for each stage.

A process of its own, started by path with another tree on PYTHONPATH where a baseline is measured,
so it imports nothing of tests/bench. Prints its URL; answers every line on stdin with one line of
JSON: `{"wall_s", "cpu_s", "stages": {stage: CPU seconds since the start}, "rss_mb"}`.

Every thread carries its stage as its name in the system, and a thread that a library starts
inherits the name of the thread that started it, so OpenMP's and CTranslate2's pools count for the
engine that they work for. The clocks are the kernel's (/proc/self/task/*/schedstat, nanoseconds).
Work that shares a thread (resampling and SRTP on the event loop, faces and affect on perception's
thread) is timed by that thread's CPU clock and taken out of the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = {
    "MainThread": "event_loop",
    "audio-decoder": "opus_decode",
    "video-decoder": "video_decode",
    "asyncio_": "opus_encode",
    "geli-frames": "rgb",
    "geli-perceptio": "perception",
    "geli-voice_act": "voice_activity",
    "geli-end_of_tu": "end_of_turn",
    "geli-recognize": "recognizer",
    "geli-responder": "policy",
    "geli-policy": "policy",
    "geli-speaker": "speaker",
    "geli-store": "store",
}
"""Start of a thread's name in the system (15 characters) to the stage it works for."""
SHARED = {
    "opus_encode": "event_loop",
    "opus_decode": "event_loop",
    "resample": "event_loop",
    "srtp": "event_loop",
    "ice": "event_loop",
    "detect": "perception",
    "affect": "perception",
}
"""Stages timed by hand, and the thread whose time they are part of."""
ANSWER = "That sounds lovely and I would like to hear more about it. What happened after that?"

_timed: dict[str, float] = defaultdict(float)


def _called(name: str) -> None:
    """Name this thread in the system (PR_SET_NAME)."""
    ctypes.CDLL(None).prctl(15, name.encode()[:15], 0, 0, 0)


def _name_threads() -> None:
    begin: Any = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def named(self: threading.Thread) -> None:
        _called(self.name)
        begin(self)

    threading.Thread._bootstrap_inner = named  # type: ignore[attr-defined]
    _called("MainThread")


def _time(owner: Any, name: str, stage: str) -> None:
    """Count the CPU time of a function that does not await."""
    work: Callable[..., Any] = getattr(owner, name)
    lock = threading.Lock()

    def timed(*args: Any, **more: Any) -> Any:
        begun = time.thread_time()
        try:
            return work(*args, **more)
        finally:
            spent = time.thread_time() - begun
            with lock:
                _timed[stage] += spent

    setattr(owner, name, timed)


def _time_shared() -> None:
    import aioice.ice
    import pylibsrtp

    from perception import affect, faces

    for name in ("protect", "unprotect", "protect_rtcp", "unprotect_rtcp"):
        _time(pylibsrtp.Session, name, "srtp")
    _time(aioice.ice.StunProtocol, "datagram_received", "ice")
    _time(faces.BlazeFaceDetector, "detect", "detect")
    _time(affect.MiniXception, "classify", "affect")
    with contextlib.suppress(ImportError):
        from agent.web import opus

        _time(opus.Encoder, "encode", "opus_encode")
        _time(opus.Hearing, "put", "opus_decode")  # and resampling
    _time_resampler()


def _time_resampler() -> None:
    """Trees before agent/web/opus.py resample in a coroutine, which cannot be timed as a whole."""
    from agent.web import tracks

    make: Any = getattr(tracks, "_resampler", None)
    if make is None:
        return

    class Resampler:
        def __init__(self) -> None:
            self._inner = make()

        def resample(self, frame: Any) -> Any:
            return self._inner.resample(frame)

    _time(Resampler, "resample", "resample")
    tracks._resampler = Resampler


def _clocks() -> dict[str, float]:
    """CPU seconds by stage, of all threads that are alive."""
    found: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # ended just now
            name = (task / "comm").read_text().strip()
            spent_s = int((task / "schedstat").read_text().split()[0]) / 1e9
            stage = next((s for start, s in STAGES.items() if name.startswith(start)), "other")
            found[stage] += spent_s
    for stage, of in SHARED.items():
        found[stage] += _timed[stage]
        found[of] -= _timed[stage]
    return dict(found)


def _engines(config: Any, real: bool) -> Any:
    from agent.engines import table
    from tests import scripted

    if not real:
        responder = scripted.ScriptedResponder(answer=lambda messages: ANSWER)
        return scripted.engines(responder=responder)
    opened = {}
    for role in table.ENGINES:
        _called(f"geli-{role}")
        opened[role] = table._open(role, config)
    _called("MainThread")
    return table.Engines(**opened)


async def _serve(mode: str, calls: int, settings: list[str]) -> None:
    from agent.config import load
    from agent.engines import table
    from agent.store import Store
    from tests.agent.web.rig import serving

    watched = str(mode != "media").lower()
    config = load(
        "cpu",
        [f"limits.concurrent_calls={calls}", f"perception.enabled={watched}", *settings],
    )
    engines = _engines(config, mode == "everything")
    if mode == "everything":
        table.warm_up(engines)
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/s.db") as store:
        async with serving(config, store, engines) as rig:
            with contextlib.suppress(ImportError):  # as `Host.load`, where the tree has it
                from agent import collector

                collector.spare_loaded()
            print(rig.url, flush=True)
            # Not on the loop's own executor, which encodes.
            over = asyncio.Event()
            loop = asyncio.get_running_loop()
            threading.Thread(target=_answer, args=(loop, over), name="bench").start()
            await over.wait()


def _answer(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    import psutil

    process = psutil.Process()
    while sys.stdin.readline():
        cpu = process.cpu_times()
        found = {
            "wall_s": time.perf_counter(),
            "cpu_s": cpu.user + cpu.system,
            "stages": _clocks(),
            "rss_mb": process.memory_info().rss / 2**20,
        }
        print(json.dumps(found), flush=True)
    loop.call_soon_threadsafe(over.set)


if __name__ == "__main__":
    _name_threads()
    _time_shared()
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
