"""OpenTelemetry traces: one a call, a span a turn, a span a stage. Counts, times and ids only.

Spans are made when a turn has ended, from the times that the call noted anyway. They leave by
OTLP/HTTP from a thread with a bounded queue: a receiver that is away costs the spans, nothing else.
`traceparent` of the offer (W3C Trace Context) makes the call part of the caller's trace.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from agent import __version__
from agent.errors import ConfigError
from agent.observed import Marks, Span
from agent.records import EndedHow, Turn

EXPORT_S = 5.0
"""How long the receiver may take for one batch."""
END_S = 2.0
"""How long the server's end waits for the last spans."""

log_ = logging.getLogger("geli.telemetry")


class Traces:
    """Sends the traces of one process.

    Args:
        endpoint: base URL of the receiver; spans go to `/v1/traces` under it.
        worker: id of this worker.

    Raises:
        ConfigError: the packages are not installed.
    """

    def __init__(self, endpoint: str, worker: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise ConfigError(
                "telemetry.otlp_endpoint needs OpenTelemetry", "pip install 'geli-agent[telemetry]'"
            ) from None
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        about = {
            "service.name": "geli",
            "service.version": __version__,
            "service.instance.id": worker,
        }
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=4096, schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer("geli", __version__)

    def call(self, session_id: str, policy_id: str | None, traceparent: str | None) -> CallTrace:
        """Begin the trace of a call."""
        return CallTrace(self._tracer, session_id, policy_id, traceparent)

    def close(self) -> None:
        """Send what waits, for a moment; blocks, so not on the event loop."""
        import threading

        self._provider.force_flush(int(END_S * 1e3))
        # A receiver that is away would be tried again for long.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(END_S)


class CallTrace:
    """The trace of one call."""

    def __init__(
        self, tracer: Any, session_id: str, policy_id: str | None, traceparent: str | None
    ) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # One offset a call: spans of a call keep their distances whatever is done to the clock.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        carrier = {"traceparent": traceparent} if traceparent else {}
        above = TraceContextTextMapPropagator().extract(carrier)
        about = {"geli.session": session_id, "geli.policy": policy_id or ""}
        self._tracer = tracer
        self._call = tracer.start_span(
            "call", above, attributes=about, start_time=self._ns(time.perf_counter())
        )
        self._under = trace.set_span_in_context(self._call)

    def turn(self, turn: Turn, marks: Marks) -> None:
        """Make the spans of a turn that has ended."""
        stages = marks.stages
        if turn.speaker == "user":
            stages = {}
        whole = marks.spoken
        if whole is None:
            return
        begin = min([whole[0], *(span[0] for span in stages.values())])
        about: dict[str, Any] = {
            "geli.turn": turn.index,
            "geli.speaker": turn.speaker,
            "geli.kind": turn.kind,
            "geli.interrupted": turn.interrupted,
            "geli.words": len(turn.text.split()),
        }
        about |= {f"geli.engine.{role}": engine for role, engine in turn.engines.items()}
        if turn.policy_id is not None:
            about["geli.policy"] = turn.policy_id
        if turn.latency is not None and turn.latency.voice_to_voice_ms is not None:
            about["geli.voice_to_voice_ms"] = turn.latency.voice_to_voice_ms
        above = self._span("turn", (begin, whole[1]), self._under, about)
        for name, span in stages.items():
            self._span(name, span, above, {})

    def ended(self, how: EndedHow, turns: int) -> None:
        """The call is over."""
        self._call.set_attribute("geli.ended", how.value)
        self._call.set_attribute("geli.turns", turns)
        self._call.end(self._ns(time.perf_counter()))

    def _span(self, name: str, span: Span, under: Any, about: dict[str, Any]) -> Any:
        from opentelemetry import trace

        begin, end = span
        made = self._tracer.start_span(name, under, attributes=about, start_time=self._ns(begin))
        made.end(self._ns(max(begin, end)))
        return trace.set_span_in_context(made)

    def _ns(self, at: float) -> int:
        return int(at * 1e9) + self._offset_ns
