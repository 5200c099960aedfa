"""Prometheus metrics of one server: counts and times, no content, no ids.

With several workers prometheus_client keeps each worker's numbers in files of one folder
(`PROMETHEUS_MULTIPROC_DIR`, set by the parent before a worker starts), and whichever worker is
asked answers for all of them. What belongs to one process alone (its gauges) counts while it lives.
Imported by serving processes only.
"""

from __future__ import annotations

import os
import resource
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from agent.records import AffectWindow, Turn

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
SHORT_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGES = ("end_of_turn_wait", "transcription", "first_token", "first_sentence", "first_audio")
SPEAKERS = ("user", "agent")
PAGE_BYTES = resource.getpagesize()

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Every instrument, under a registry of its own."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        own = self._own

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, labels, registry=own)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(name, says, labels, registry=own, multiprocess_mode="livesum")

        def histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, says, labels, buckets=buckets, registry=own)

        self.workers = gauge("geli_workers", "Workers that serve")
        self.live = gauge("geli_calls_live", "Calls that count against the cap")
        self.cap = gauge("geli_calls_cap", "Calls that may run at once")
        self.draining = gauge("geli_workers_draining", "Workers that take no new calls, ending")
        self.overloaded = gauge("geli_workers_overloaded", "Workers that shed new calls")
        self.started = counter("geli_calls_started", "Calls whose page connected")
        self.ended = counter("geli_calls_ended", "Calls that are over", "how")
        self.refused = counter("geli_offers_refused", "Offers that became no call", "reason")
        self.turns = counter("geli_turns", "Turns that ended", "speaker", "kind", "interrupted")
        self.voice_to_voice = histogram(
            "geli_voice_to_voice_seconds",
            "User's end of speech to the first sample of the reply",
            LATENCY_S,
        )
        self.stage = histogram(
            "geli_reply_stage_seconds", "Where a reply's time went", LATENCY_S, "stage"
        )
        self.barge_in = histogram(
            "geli_barge_in_seconds", "User's first sound to the agent's silence", LATENCY_S
        )
        self.gaps = counter("geli_audio_gap_seconds", "Silence in a reply: speech was late")
        self.stalls = counter("geli_audio_stalls", "Times that outgoing audio skipped ahead")
        self.frames = counter("geli_video_frames", "Video frames that came so far", "step")
        self.windows = counter("geli_affect_windows", "Affect windows closed", "positive")
        self.labels = counter("geli_labels", "Agent turns by final label", "label")
        self.coverage = histogram(
            "geli_label_coverage",
            "Share of a label's windows in which a face was seen",
            (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
        )
        self.ratings = histogram(
            "geli_overall_affect", "Ratings given, 0 to 100", tuple(range(0, 101, 10))
        )
        self.policy = counter("geli_policy_requests", "Replies asked of the policy", "outcome")
        self.writes_failed = counter("geli_store_writes_failed", "Writes the store did not take")
        self.writes_pending = gauge("geli_store_writes_pending", "Turns that wait for the store")
        self.lane_waiting = gauge("geli_lane_waiting", "Work that waits for an engine", "lane")
        self.lane_wait = histogram(
            "geli_lane_wait_seconds", "How long work waited for an engine", SHORT_S, "lane"
        )
        self.lag = histogram("geli_event_loop_lag_seconds", "Lateness of the event loop", SHORT_S)
        self.cpu = counter("geli_process_cpu_seconds", "CPU time of the serving processes")
        self.memory = gauge("geli_process_resident_bytes", "Memory of the serving processes")
        self._cpu_s = 0.0
        self._totals: dict[str, int] = {}

    def turn(self, turn: Turn, gap_s: float) -> None:
        """Count a turn that ended."""
        interrupted = "yes" if turn.interrupted else "no"
        self.turns.labels(turn.speaker, turn.kind, interrupted).inc()
        if gap_s > 0:
            self.gaps.inc(gap_s)
        if turn.latency is None:
            return
        for stage in STAGES:
            took_ms = getattr(turn.latency, f"{stage}_ms")
            if took_ms is not None:
                self.stage.labels(stage).observe(took_ms / 1e3)
        if turn.latency.voice_to_voice_ms is not None:
            self.voice_to_voice.observe(turn.latency.voice_to_voice_ms / 1e3)

    def window(self, window: AffectWindow) -> None:
        """Count an affect window."""
        known = {True: "yes", False: "no", None: "unknown"}
        self.windows.labels(known[window.positive]).inc()

    def label(self, turn: Turn) -> None:
        """Count the final label of an agent turn."""
        self.labels.labels("unknown" if turn.li is None else str(int(turn.li))).inc()
        if turn.li_coverage is not None:
            self.coverage.observe(turn.li_coverage)

    def media(self, stalls: int, decoded: int, converted: int) -> None:
        """The process's totals as of now."""
        for name, total, count in (
            ("stalls", stalls, self.stalls),
            ("decoded", decoded, self.frames.labels("decoded")),
            ("converted", converted, self.frames.labels("converted")),
        ):
            count.inc(max(0, total - self._totals.get(name, 0)))
            self._totals[name] = total

    def process(self) -> None:
        """CPU and memory as of now."""
        cpu_s = time.process_time()
        self.cpu.inc(max(0.0, cpu_s - self._cpu_s))
        self._cpu_s = cpu_s
        self.memory.set(resident_bytes())

    def text(self) -> bytes:
        """What Prometheus reads (text format 0.0.4), of all workers of this machine."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self._own)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not say (no /proc)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
