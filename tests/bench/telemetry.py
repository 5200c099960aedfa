"""CPU that telemetry takes of a turn, and of a minute of call: off, metrics, metrics and traces.

A turn is `CallObserver.turn` with all six stages; a minute of call adds what goes on besides: 31
pieces of work a second on the voice-activity lane, ten looks a second at the event loop, a sample
of the gauges a second (of the whole process). `files` are the metrics of several workers
(prometheus_client's memory-mapped files). Spans go to a receiver on loopback in another thread, so
their figure includes its time: an upper bound. Microseconds of CPU, the median of `ROUNDS`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROUNDS, TURNS, EVENTS = 7, 300, 3000
VOICE_FRAMES_A_MINUTE = 60 / 0.032
LOOKS_A_MINUTE, SAMPLES_A_MINUTE = 600, 60


def measure() -> dict[str, Any]:
    """Microseconds by state; each state in a process of its own."""
    found: dict[str, Any] = {}
    for state in ("off", "metrics", "files", "traces"):
        with tempfile.TemporaryDirectory() as folder:
            extra = {"PROMETHEUS_MULTIPROC_DIR": folder} if state == "files" else {}
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.telemetry", state],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ | extra,
            )
        found[state] = json.loads(done.stdout)
    return found


def _one(state: str) -> dict[str, float]:
    import contextlib

    from agent.config import load
    from agent.lanes import Lanes
    from agent.records import Consent, Session
    from agent.telemetry import Telemetry
    from tests.agent.telemetry.otlp import receiving

    with contextlib.ExitStack() as stack:
        sets = [f"telemetry.metrics={str(state != 'off').lower()}"]
        if state == "traces":
            sets.append(f'telemetry.otlp_endpoint="{stack.enter_context(receiving()).url}"')
        lanes = Lanes()
        telemetry = Telemetry(load("cpu", sets), lanes, "bench")
        observer = telemetry.call(Session(consent=Consent.KEEP), "policy", None)
        turn, marks = _turn()
        found = {"turn": _us(lambda: observer.turn(turn, marks), TURNS)}
        found["lane"] = _us(lambda: lanes._waited("voice_activity", 0.001), EVENTS)
        metrics = telemetry.metrics
        found["look"] = _us(lambda: metrics.lag.observe(0.001), EVENTS) if metrics else 0.0
        sample = lambda: telemetry._gauge(metrics, _Calls())  # noqa: E731
        found["sample"] = _us(sample, TURNS) if metrics else 0.0
        found["text_ms"] = _us(metrics.text, 20) / 1e3 if metrics else 0.0
        lanes.close()
        if telemetry._traces is not None:
            telemetry._traces.close()
    found["call_minute_ms"] = (
        2 * 7.5 * found["turn"]
        + VOICE_FRAMES_A_MINUTE * found["lane"]
        + LOOKS_A_MINUTE * found["look"]
        + SAMPLES_A_MINUTE * found["sample"]
    ) / 1e3
    return {name: round(value, 3) for name, value in found.items()}


class _Calls:
    live = pending_writes = 0
    draining = False


def _turn() -> tuple[Any, Any]:
    from agent.observed import Marks
    from agent.records import Latency, Turn

    latency = Latency(
        end_of_turn_wait_ms=300, transcription_ms=150, first_token_ms=80,
        first_sentence_ms=200, first_audio_ms=90, voice_to_voice_ms=640,
    )  # fmt: skip
    turn = Turn(
        index=1, speaker="agent", start_s=1, end_s=3, text="some words here", kind="reply",
        policy_id="p", engines={"responder": "r", "speaker": "s"}, latency=latency,
    )  # fmt: skip
    now = time.perf_counter()
    span = (now, now + 0.1)
    return turn, Marks(span, span, span, span, span, span)


def _us(work: Callable[[], Any], count: int) -> float:
    work()
    rounds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(count):
            work()
        rounds.append((time.process_time() - begun) / count * 1e6)
    return statistics.median(rounds)


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1])))
