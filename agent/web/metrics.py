"""`/metrics`, in Prometheus' text format: on the page's address, or on one of its own.

On the page's address it is behind the token that all share, if there is one; a person's own token
does not open it. A loopback address with a load balancer in front is no private one: there it
needs that token, or an address of its own.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent.telemetry.metrics import CONTENT_TYPE
from agent.web.access import Access
from agent.web.answers import Refused
from agent.web.calls import Calls


def page_metrics(app: FastAPI, calls: Calls, access: Access, proxied: bool) -> None:
    """Add `/metrics` to the page's routes; the guard has let in who comes here.

    Args:
        app: the page's.
        calls: of this worker.
        access: who may enter.
        proxied: whether there is a load balancer in front.
    """

    @app.get("/metrics", response_model=None)
    async def metrics(request: Request) -> Response:
        if getattr(request.state, "person", None) is not None or (proxied and not access.needed):
            raise Refused(
                403, "the metrics are not for everybody", "set telemetry.metrics_port for them"
            )
        return await _answer(calls)


def metrics_app(calls: Calls) -> ASGIApp:
    """`/metrics` alone, for an address of its own."""

    async def metrics(_: Request) -> Response:
        return await _answer(calls)

    return Starlette(routes=[Route("/metrics", metrics)])


async def _answer(calls: Calls) -> Response:
    made = calls.telemetry.metrics
    text = await run_in_threadpool(made.text) if made is not None else b""
    return Response(text, media_type=CONTENT_TYPE)
