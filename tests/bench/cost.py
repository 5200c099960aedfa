"""Where the CPU of a call goes, how it grows with calls, and how many calls one core carries.

`measure` returns, and `geli bench cost --json` prints, one object:

    {"schema": 1, "cpu": model name, "cores": 2, "profile": "cpu", "seconds": length of each run,
     "runs": [{"tree": "this" | "baseline", "mode": "media" | "perception" | "everything",
               "calls": 4, "turns_per_call_minute": 7.5,
               "cpu_s_per_call_s": {"total": 0.21, "event_loop": 0.04, ...one key a stage},
               "calls_per_core": 4.8, "cores_used": 0.84, "rss_mb": 900.0,
               "gap_ms": {"p99": 24.1, "max": 40.2}, "idle_late_ms": 3.0,
               "voice_to_voice_ms": {"p50": 1100.0, "p95": 1600.0, "n": 16} | null,
               "barge_in_ms": {...} | null, "unanswered": 0}, ...]}

`cpu_s_per_call_s` is CPU seconds of the server process a second of call; `total` is the kernel's
own count for the process, the stages are threads (tests/bench/cost_server.py), `other` the rest.
What a server can carry is `runs` with tree "this" and mode "everything": cores / total at the
largest `calls` that kept its gaps and waits.

Modes: `media` is WebRTC, turn-taking and store with scripted engines and no camera; `perception`
adds a camera that shows a face, decoded and read; `everything` adds the real engines. The users
(aiortc, recorded utterances, a clip of a face encoded once) live in this process, the server in a
child. A user answers half a second after the agent has fallen silent, and speaks into a reply that
is longer than `PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack
from numpy.typing import NDArray

from tests.bench.call import REPLY_LIMIT_S, spread, utterances
from tests.bench.peer import Peer
from tests.bench.transport import _idle_lateness_ms

ROOT = Path(__file__).resolve().parents[2]
MODES = ("media", "perception", "everything")
PATIENCE_S = 6.0
"""A reply longer than this is spoken into."""
SPACING_S = 0.7
"""Between the beginnings of two calls: nobody speaks in step."""
CLIP_BITS = 300_000
"""About what a browser sends of 320×240 at 15 frames a second; in proportion for fewer."""


def measure(
    calls: Sequence[int] = (1, 2, 4, 8),
    modes: Sequence[str] = MODES,
    seconds: float = 30.0,
    settings: Sequence[str] = (),
    baseline: Path | None = None,
    say: Any = lambda line: None,
) -> dict[str, Any]:
    """Run every mode with every number of calls; see the module's docstring for the result.

    Args:
        calls: how many at once, one run each.
        modes: of `MODES`.
        seconds: measured time of a run, after all calls were greeted.
        settings: `section.key=value` for the server.
        baseline: another checkout (an older commit's), measured in turn with this one.
        say: told what runs now.
    """
    trees = {"this": ROOT} if baseline is None else {"baseline": baseline, "this": ROOT}
    runs = []
    for mode in modes:
        for n in calls:
            for tree, root in trees.items():
                say(f"{mode}, {n} calls, {tree}")
                run = asyncio.run(_run(root, mode, n, seconds, settings))
                runs.append({"tree": tree, "mode": mode, "calls": n, **run})
    return {
        "schema": 1,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "profile": "cpu",
        "seconds": seconds,
        "runs": runs,
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


class _Server:
    """The child process."""

    def __init__(self, url: str, child: asyncio.subprocess.Process) -> None:
        self.url = url
        self._child = child

    async def clocks(self) -> dict[str, Any]:
        """What the child has spent so far."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b"\n")
        answer: dict[str, Any] = json.loads(await self._child.stdout.readline())
        return answer


@contextlib.asynccontextmanager
async def _serving(
    root: Path, mode: str, calls: int, settings: Sequence[str]
) -> AsyncIterator[_Server]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the folder of the script has modules named like our packages
        str(Path(__file__).with_name("cost_server.py")),
        mode,
        str(calls),
        *settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        url = (await child.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError("the server did not start")
        yield _Server(url, child)
    finally:
        child.stdin.close()  # the child serves until then
        await child.wait()


async def _run(
    root: Path, mode: str, calls: int, seconds: float, settings: Sequence[str]
) -> dict[str, Any]:
    async with _serving(root, mode, calls, settings) as server:
        users = [_User(server.url, k, mode != "media") for k in range(calls)]
        async with contextlib.AsyncExitStack() as stack:
            for user in users:
                await stack.enter_async_context(user.begin(await _sent(server.url)))
                await asyncio.sleep(SPACING_S)
            await asyncio.gather(*(user.greeted() for user in users))
            idle = asyncio.create_task(_idle_lateness_ms(seconds))
            before = await server.clocks()
            until = time.perf_counter() + seconds
            await asyncio.gather(*(user.converse(until) for user in users))
            after = await server.clocks()
            idle_ms = await idle
    return _summary(before, after, users, idle_ms)


def _summary(
    before: dict[str, Any], after: dict[str, Any], users: list[_User], idle_ms: float
) -> dict[str, Any]:
    wall_s = after["wall_s"] - before["wall_s"]
    call_s = wall_s * len(users)
    cpu_s = after["cpu_s"] - before["cpu_s"]
    spent = {
        stage: after["stages"][stage] - before["stages"].get(stage, 0.0)
        for stage in after["stages"]
        if stage != "other"
    }
    spent["other"] = max(0.0, cpu_s - sum(spent.values()))
    shares = {stage: round(s / call_s, 5) for stage, s in sorted(spent.items())}
    gaps = np.concatenate([user.gaps_ms for user in users])
    turns = sum(len(user.waits_ms) for user in users)
    return {
        "turns_per_call_minute": round(60 * turns / call_s, 2),
        "cpu_s_per_call_s": {"total": round(cpu_s / call_s, 5), **shares},
        "calls_per_core": round(call_s / cpu_s, 2),
        "cores_used": round(cpu_s / wall_s, 3),
        "rss_mb": round(after["rss_mb"], 1),
        "gap_ms": {
            "p99": round(float(np.percentile(gaps, 99)), 1),
            "max": round(float(gaps.max()), 1),
        },
        "idle_late_ms": round(idle_ms, 1),
        "voice_to_voice_ms": spread([ms for user in users for ms in user.waits_ms]),
        "barge_in_ms": spread([ms for user in users for ms in user.cuts_ms]),
        "unanswered": sum(user.unanswered for user in users),
    }


async def _sent(url: str) -> dict[str, Any]:
    """What the server's page sends of its camera: `width`, `height` and frames a second, `hz`."""
    import httpx

    async with httpx.AsyncClient(timeout=30) as client:
        video = (await client.get(f"{url}/api/info")).json()["video"]
    return {**video, "hz": video.get("sendRate", video["frameRate"])}


class _User:
    """One person in a call."""

    def __init__(self, url: str, number: int, seen: bool) -> None:
        self._url = url
        self._seen = seen
        whole = utterances(15)
        self._lines = [whole[(4 * number + k) % len(whole)] for k in range(len(whole))]
        self._arrivals: list[float] = []
        self.waits_ms: list[float] = []
        self.cuts_ms: list[float] = []
        self.unanswered = 0

    @contextlib.asynccontextmanager
    async def begin(self, sent: dict[str, Any]) -> AsyncIterator[None]:
        """Be in the call while the block runs."""
        camera = _Film(sent["width"], sent["height"], sent["hz"]) if self._seen else None
        self._began = time.perf_counter()
        async with Peer(self._url, camera=camera) as self._peer:
            yield

    async def greeted(self) -> None:
        """Listen to the greeting, then note when each packet of sound comes."""
        heard = await self._peer.ear.voice_after(self._began, 60)
        if heard is None:
            raise RuntimeError("the agent never greeted")
        await self._peer.ear.silence_after(heard, 60)
        for receiver in self._peer._pc.getReceivers():
            handle = receiver._handle_rtp_packet

            async def noted(packet: Any, arrival_time_ms: int, handle: Any = handle) -> None:
                self._arrivals.append(time.perf_counter())
                await handle(packet, arrival_time_ms)

            receiver._handle_rtp_packet = noted

    @property
    def gaps_ms(self) -> NDArray[np.float64]:
        """Between neighbouring packets of the agent's voice, [packets - 1]."""
        return np.diff(np.array(self._arrivals)) * 1e3

    async def converse(self, until: float) -> None:
        """Speak and listen in turn until then."""
        mouth, ear = self._peer.mouth, self._peer.ear
        at = 0
        while (left := until - time.perf_counter()) > 0:
            talking = not ear.is_quiet()
            mouth.say(self._lines[at % len(self._lines)])
            at += 1
            await mouth.begun.wait()
            if talking:
                silent = await ear.silence_after(mouth.onset, 5)
                if silent is not None and silent - mouth.onset > 0.05:
                    self.cuts_ms.append((silent - mouth.onset) * 1e3)
            await mouth.ended.wait()
            answered = await ear.voice_after(mouth.end, min(REPLY_LIMIT_S, max(left, 1.0)))
            if answered is None:
                self.unanswered += time.perf_counter() < until
                continue
            self.waits_ms.append((answered - mouth.end) * 1e3)
            patience_s = min(PATIENCE_S, until - time.perf_counter())
            await ear.silence_after(answered, max(0.0, patience_s))
            await asyncio.sleep(0.2)  # and `QUIET_S`, which it took to call it silence


class _Film(MediaStreamTrack):  # type: ignore[misc]
    """The clip of a face, encoded beforehand, so that a user costs little."""

    kind = "video"

    def __init__(self, width: int, height: int, hz: float) -> None:
        super().__init__()
        self._packets = _encoded(width, height, hz)
        self._hz = hz
        self._sent = 0
        self._began: float | None = None

    async def recv(self) -> av.Packet:
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        await asyncio.sleep(max(0.0, self._began + self._sent / self._hz - now))
        packet = av.Packet(self._packets[self._sent % len(self._packets)])
        packet.pts = round(self._sent * 90_000 / self._hz)
        packet.time_base = Fraction(1, 90_000)
        self._sent += 1
        return packet


@functools.cache
def _encoded(width: int, height: int, hz: float) -> list[bytes]:
    """The clip as VP8, one packet a frame, beginning with a key frame."""
    from tests import media
    from tests.bench.perception import _frames

    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.bit_rate = round(CLIP_BITS * hz / 15)
    encoder.time_base = Fraction(1, 90_000)
    encoder.gop_size = 100_000
    encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    packets = []
    for k, rgb in enumerate(_frames(media.face_clip(), hz)):
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(width, height, "yuv420p")
        frame.pts, frame.time_base = round(k * 90_000 / hz), Fraction(1, 90_000)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def table(found: dict[str, Any]) -> list[str]:
    """Lines for people: CPU milliseconds a second of call, by stage, one column a run."""
    lines = []
    for mode in dict.fromkeys(run["mode"] for run in found["runs"]):
        runs = [run for run in found["runs"] if run["mode"] == mode]
        stages = dict.fromkeys(s for run in runs for s in run["cpu_s_per_call_s"])
        lines += ["", f"{mode}: ms of CPU a second of call"]
        heads = [f"{run['calls']} {'was' if run['tree'] == 'baseline' else 'now'}" for run in runs]
        lines.append(f"{'calls':22}" + "".join(f"{head:>9}" for head in heads))
        for stage in sorted(stages, key=lambda s: -runs[0]["cpu_s_per_call_s"].get(s, 0.0)):
            cells = [1e3 * run["cpu_s_per_call_s"].get(stage, 0.0) for run in runs]
            if max(cells) >= 0.05:
                lines.append(f"{stage:22}" + "".join(f"{cell:9.1f}" for cell in cells))
        rows = {
            "calls per core": [run["calls_per_core"] for run in runs],
            "gap p99": [run["gap_ms"]["p99"] for run in runs],
            "gap max": [run["gap_ms"]["max"] for run in runs],
            "voice to voice p50": [(run["voice_to_voice_ms"] or {}).get("p50", 0) for run in runs],
            "voice to voice p95": [(run["voice_to_voice_ms"] or {}).get("p95", 0) for run in runs],
            "turns a call minute": [run["turns_per_call_minute"] for run in runs],
            "memory MB": [run["rss_mb"] for run in runs],
        }
        for name, values in rows.items():
            lines.append(f"{name:22}" + "".join(f"{value:9.1f}" for value in values))
    return lines


if __name__ == "__main__":
    measured = measure((1,), ("media",), 10.0, say=print)
    print("\n".join(table(measured)))
