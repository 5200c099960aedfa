"""Voice-to-voice and barge-in over a real WebRTC loopback, against a plain sequential pipeline.

The server is a process of its own; the user is an aiortc peer that speaks recorded utterances.
Voice-to-voice: from the last sample of the user's speech leaving the peer to the first frame that
is not silent reaching it (its jitter buffer included, about 80 ms, as in a browser). Each utterance
but the first begins `LISTEN_S` into the reply before it, so each is a barge-in as well: from the
first sample of speech leaving the peer to the last frame of the agent's voice reaching it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.peer import RATE_HZ, Peer

LISTEN_S = 2.5
REPLY_LIMIT_S = 15.0

LINES = (
    "I feel pretty good today, thank you.",
    "I went for a long walk with my dog this morning.",
    "She is a small brown terrier, and she loves chasing squirrels.",
    "What do you like to do on a rainy day?",
    "Sometimes I feel a bit lonely in the evening.",
    "I called my sister yesterday, and we talked for an hour.",
    "Do you think it will be warm this weekend?",
    "I want to learn how to play the guitar.",
    "My favorite food is probably pizza.",
    "I had a difficult day at work.",
    "Can you tell me something nice?",
    "I am reading a book about the sea.",
)


def utterances(count: int) -> list[NDArray[np.int16]]:
    """`count` utterances, int16 [samples] at 48 kHz, silence trimmed from both ends: the three
    recordings of pytest-audioeval, then lines spoken by the packaged voice, over and over."""
    from agent.media import read_audio
    from agent.reply import resample
    from tests import media

    spoken = [read_audio(media.speech(name)[0]) for name in media.SPEECH]
    spoken += [media.say(line) for line in LINES]
    trimmed = []
    for pcm in spoken:
        loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 0.01 * 32768)
        trimmed.append(resample(pcm[loud[0] : loud[-1] + 1], 16_000))
    return [trimmed[k % len(trimmed)] for k in range(count)]


@contextlib.contextmanager
def server(folder: Path, *settings: str) -> Iterator[tuple[str, str]]:
    """A `geli call` process; yields its URL and the URL of its store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = f"sqlite:///{folder}/bench.sqlite3"
    start = "from agent.cli import main; main()"
    command = [sys.executable, "-c", start, "call", "--port", str(port)]
    for setting in (f'store.url="{store}"', *settings):
        command += ["--set", setting]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder / "server.log")
        yield url, store
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{log.read_text()}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/healthz").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


async def _hold(url: str, spoken: list[NDArray[np.int16]]) -> dict[str, Any]:
    """One call; returns the waits in ms and the session's id."""
    waits: list[float] = []
    cuts: list[float] = []
    unanswered = 0
    async with Peer(url) as peer:
        greeted = await peer.ear.voice_after(time.perf_counter(), 30)
        if greeted is None:
            raise RuntimeError("the agent never greeted")
        await peer.ear.silence_after(greeted, 30)
        await asyncio.sleep(0.5)
        for pcm in spoken:
            talking = not peer.ear.is_quiet()
            peer.mouth.say(pcm)
            if talking:
                await peer.mouth.begun.wait()
                silent = await peer.ear.silence_after(peer.mouth.onset, 5)
                # A reply that ended by itself at that moment is no barge-in.
                if silent is not None and silent - peer.mouth.onset > 0.05:
                    cuts.append((silent - peer.mouth.onset) * 1e3)
            await peer.mouth.ended.wait()
            answered = await peer.ear.voice_after(peer.mouth.end, REPLY_LIMIT_S)
            if answered is None:
                unanswered += 1
                continue
            waits.append((answered - peer.mouth.end) * 1e3)
            await asyncio.sleep(LISTEN_S)
        session_id = peer.session_id
    await asyncio.sleep(1.0)
    return {
        "voice_to_voice_ms": waits,
        "barge_in_ms": cuts,
        "unanswered": unanswered,
        "session_id": session_id,
        "speech_s": sum(map(len, spoken)) / RATE_HZ,
    }


def measure(turns: int = 32, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """Hold a call of `turns` turns against a fresh server with `settings`.

    Returns:
        percentiles in ms: `voice_to_voice`, `barge_in`, and of the server's own breakdown
        `end_of_turn_wait`, `transcription`, `first_token`, `first_sentence`, `first_audio`,
        `server` (end of speech received to first sample handed to the transport) and `transport`
        (the rest); and counts.
    """
    from agent.store import Store

    with tempfile.TemporaryDirectory() as folder, server(Path(folder), *settings) as (url, store):
        held = asyncio.run(_hold(url, utterances(turns)))
        with Store.open(store) as log:
            session = log.get(held["session_id"])
    latencies = [turn.latency for turn in session.turns if turn.latency is not None]
    names = ("end_of_turn_wait", "transcription", "first_token", "first_sentence", "first_audio")
    parts = {
        name: [v for lat in latencies if (v := getattr(lat, f"{name}_ms")) is not None]
        for name in names
    }
    inner = [v for lat in latencies if (v := lat.voice_to_voice_ms) is not None]
    waits = held["voice_to_voice_ms"]
    out: dict[str, Any] = {
        "voice_to_voice": spread(waits),
        "barge_in": spread(held["barge_in_ms"]),
    }
    out |= {name: spread(values) for name, values in parts.items()}
    out["server"] = spread(inner)
    if len(inner) == len(waits):  # one reply for each utterance: they can be paired
        out["transport"] = spread([a - b for a, b in zip(waits, inner, strict=True)])
    out["turns"], out["unanswered"] = len(waits), held["unanswered"]
    out["interrupted"] = sum(turn.interrupted for turn in session.turns)
    return out


def spread(values: list[float]) -> dict[str, float] | None:
    """Median, 95th percentile and n; None without values."""
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "n": len(values)}


SEQUENTIAL = ('turn_taking.strategy="sequential"',)
