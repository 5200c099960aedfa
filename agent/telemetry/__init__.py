"""What an operator sees of a running server: metrics, traces, and how loaded it is.

`Telemetry` is one process's; `Telemetry.call` gives each call the observer it talks to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent.capacity import Pressure, pressed
from agent.config import Config
from agent.lanes import Lanes
from agent.observed import NOBODY, Marks, Observer
from agent.records import AffectWindow, Consent, EndedHow, Session, Turn

if TYPE_CHECKING:
    from agent.telemetry.metrics import Metrics
    from agent.telemetry.traces import CallTrace, Traces
    from agent.web.calls import Calls

LAG_S = 0.1
"""Between two looks at the event loop's lateness."""
SAMPLE_EVERY = 10
"""Looks between two samples of the gauges."""
SHED_LANES = ("voice_activity", "end_of_turn", "recognizer", "speaker")
"""Lanes that a caller waits for."""


class Telemetry:
    """Metrics and traces of one process, and the pressure it is under.

    Args:
        config: its `telemetry` and `limits`.
        lanes: of the engines, whose queues are watched.
        worker: id of this worker.

    Raises:
        ConfigError: traces are wanted and their packages are missing.
    """

    def __init__(self, config: Config, lanes: Lanes, worker: str) -> None:
        self._limits = config.limits
        self._lanes = lanes
        self.metrics: Metrics | None = None
        self._traces: Traces | None = None
        self._sampling: asyncio.Task[None] | None = None
        self.pressure = Pressure()
        settings = config.telemetry
        if settings.metrics:
            from agent.telemetry.metrics import Metrics

            self.metrics = Metrics()
            waits = self.metrics.lane_wait
            lanes.on_wait = lambda role, seconds: waits.labels(role).observe(seconds)
        if settings.otlp_endpoint is not None:
            from agent.telemetry.traces import Traces

            self._traces = Traces(settings.otlp_endpoint, worker)

    def start(self, calls: Calls) -> None:
        """Begin to look at the process; `calls` are its own."""
        self._sampling = asyncio.create_task(self._sample(calls))

    async def close(self) -> None:
        """Stop, and send what waits."""
        self._lanes.on_wait = None
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)

    def call(self, session: Session, policy_id: str | None, traceparent: str | None) -> Observer:
        """Who hears of a call that begins now."""
        if self.metrics is None and self._traces is None:
            return NOBODY
        trace = None
        # Of a call that nobody agreed to keep there are counts alone.
        if self._traces is not None and session.consent is not Consent.TALK_ONLY:
            trace = self._traces.call(session.id, policy_id, traceparent)
        return CallObserver(self.metrics, trace)

    def connected(self) -> None:
        """A call began."""
        if self.metrics is not None:
            self.metrics.started.inc()

    def over(self, how: str) -> None:
        """A call is over: how it ended, or `never_connected`."""
        if self.metrics is not None:
            self.metrics.ended.labels(how).inc()

    def refused(self, reason: str) -> None:
        """An offer became no call."""
        if self.metrics is not None:
            self.metrics.refused.labels(reason).inc()

    def rated(self, value: float) -> None:
        """A person gave a rating, 0 to 100."""
        if self.metrics is not None:
            self.metrics.ratings.observe(value)

    async def _sample(self, calls: Calls) -> None:
        loop = asyncio.get_running_loop()
        due, count = loop.time() + LAG_S, 0
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            now = loop.time()
            lag_s = max(0.0, now - due)
            due = now + LAG_S
            wait_s = max(self._lanes.oldest_wait_s(role) for role in SHED_LANES)
            self.pressure = pressed(self.pressure, now, lag_s, wait_s, self._limits)
            if self.metrics is None:
                continue
            self.metrics.lag.observe(lag_s)
            if count % SAMPLE_EVERY == 0:
                self._gauge(self.metrics, calls)
            count += 1

    def _gauge(self, metrics: Metrics, calls: Calls) -> None:
        from agent.web.tracks import TOTALS

        metrics.workers.set(1)
        metrics.live.set(calls.live)
        metrics.cap.set(self._limits.calls)
        metrics.draining.set(calls.draining)
        metrics.overloaded.set(self.pressure.overloaded)
        metrics.writes_pending.set(calls.pending_writes)
        for role in self._lanes.roles:
            metrics.lane_waiting.labels(role).set(self._lanes.waiting(role))
        metrics.media(TOTALS.stalls, TOTALS.decoded, TOTALS.converted)
        metrics.process()


class CallObserver(Observer):
    """Counts and traces one call."""

    def __init__(self, metrics: Metrics | None, trace: CallTrace | None) -> None:
        self._metrics = metrics
        self._trace = trace
        self._read = self._dropped = 0

    def turn(self, turn: Turn, marks: Marks, gap_s: float = 0.0) -> None:
        if self._metrics is not None:
            self._metrics.turn(turn, gap_s)
        if self._trace is not None:
            self._trace.turn(turn, marks)

    def window(self, window: AffectWindow) -> None:
        if self._metrics is not None:
            self._metrics.window(window)

    def frames(self, read: int, dropped: int) -> None:
        if self._metrics is not None:
            self._metrics.frames.labels("analysed").inc(read - self._read)
            self._metrics.frames.labels("dropped").inc(dropped - self._dropped)
        self._read, self._dropped = read, dropped

    def barge_in(self, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.barge_in.observe(seconds)

    def policy(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.policy.labels(outcome).inc()

    def write_failed(self) -> None:
        if self._metrics is not None:
            self._metrics.writes_failed.inc()

    def ended(self, how: EndedHow, turns: list[Turn]) -> None:
        if self._metrics is not None:
            for turn in turns:
                if turn.speaker == "agent":
                    self._metrics.label(turn)
        if self._trace is not None:
            self._trace.ended(how, len(turns))
