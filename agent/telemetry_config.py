"""The section of the configuration that says what an operator can see."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Telemetry(BaseModel):
    """Metrics and traces of the server: counts, times and ids, never what anybody said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: bool = True
    """Prometheus metrics at `/metrics`; behind `server.access_token` where there is one."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """An address for `/metrics` alone, open to whoever reaches it; the page then has none."""
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    """Base URL of an OTLP/HTTP receiver, e.g. http://127.0.0.1:4318; None: no traces."""
