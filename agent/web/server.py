"""The HTTP side: the page, signalling, and what a page may do with its call.

Protocol (JSON; errors are `{"error", "way_out"}` with a 4xx or 503):

| request | answer |
|---|---|
| `GET /`, `GET /static/…` | the page, its files |
| `GET /healthz`, `GET /readyz` | whether it lives; whether it takes calls (agent/web/health.py) |
| `GET /metrics` | for Prometheus (agent/web/metrics.py) |
| `GET /api/info` | what the page must know before a call |
| `POST /api/token {token}` | 204 and the cookie |
| `POST /api/offer {sdp, type, consent, camera, resume}` | `{sdp, type, session_id, secret}` |
| `GET /api/sessions/{id}` | `{state, ended_how, can_rate, rated}` |
| `POST /api/sessions/{id}/rating {overall_affect, comment}` | 204 |
| `POST /api/sessions/{id}/away {secret}` | 204 |
| `POST /api/sessions/{id}/hangup` | 204 |
| `DELETE /api/sessions/{id}` | 204 |

Session requests carry the call's secret in `X-Session-Secret`, `away` in its body (a beacon cannot
set headers). Any worker takes any of them: agent/web/elsewhere.py.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from starlette.routing import Route
from starlette.types import ASGIApp

from agent import __version__
from agent.config import Config
from agent.host import Host
from agent.leases import Worker
from agent.records import OVERALL_AFFECT_QUESTION, Consent
from agent.tokens import cookie_value
from agent.web import turn
from agent.web.access import COOKIE, Access, Guessing, Visitor
from agent.web.afterwards import create_afterwards
from agent.web.answers import Body, Rating, Refused, answer_errors, read
from agent.web.calls import Calls
from agent.web.cluster import Cluster
from agent.web.elsewhere import Elsewhere
from agent.web.health import Health
from agent.web.metrics import page_metrics
from agent.web.rtc import check_ice_servers
from agent.web.security import HEALTH, Guard, address_of, guessing

STATIC = Path(__file__).parent / "static"
VIDEO = {"width": 320, "height": 240, "frameRate": 15}
"""What the page asks of the camera, and shows."""
SENT_PER_READ = 1.5
"""Frames that the page sends for each that is read: every one must be decoded, however few are
used, and with fewer one is not always there when it is due."""


class Resumed(Body):
    """Which call an offer takes up again."""

    session_id: str = Field(max_length=64)
    secret: str = Field(max_length=128)


class Offer(Body):
    """An offer of the page."""

    sdp: str = Field(min_length=1)
    type: Literal["offer"]
    consent: Annotated[Consent, Field(strict=False)]
    camera: bool = True
    resume: Resumed | None = None


class Away(Body):
    """A page that goes away."""

    secret: str = Field(max_length=128)


class Token(Body):
    """An access token, typed into the page."""

    token: str = Field(max_length=1024)


Secret = Annotated[str | None, Header(alias="X-Session-Secret")]


def create_app(host: Host, cluster: Cluster | None = None, health: Health | None = None) -> FastAPI:
    """The server's application; `host` is started before it serves and closed after.

    The calls are in `app.state.calls`; the application's lifespan ends them politely. What other
    workers may ask is in `app.state.inside`.

    Args:
        host: makes the calls.
        cluster: this worker among the others; default: it serves alone.
        health: told when it is ready.

    Raises:
        ConfigError: STUN or TURN servers that cannot be.
    """
    check_ice_servers(host.config)
    # A file's type must not depend on this machine's registry: modules need a JavaScript type.
    mimetypes.add_type("text/javascript", ".js")
    config = host.config
    if cluster is None:
        cluster = Cluster(host, Worker.new(config.limits.calls))
    calls = Calls(host, cluster.me.id)
    access = Access(host)
    health = health or Health()
    health.loaded(calls, cluster)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await calls.start()
        await cluster.start(calls)
        yield
        await calls.close()
        await cluster.close()

    api = APIRouter()
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.calls = calls
    app.add_middleware(Elsewhere, calls=calls, cluster=cluster, afterwards=create_afterwards(host))
    app.add_middleware(Guard, config=config, access=access)
    app.mount("/static", StaticFiles(directory=STATIC))
    answer_errors(app)

    @app.get("/", response_model=None)
    async def index(request: Request, token: str | None = None) -> Response:
        if token is None:
            return FileResponse(STATIC / "index.html")
        # Out of the address bar and the history, whether it is right or not.
        response = RedirectResponse("/", status_code=303)
        visitor = await _visitor(request, token)
        if access.needed and visitor is not None:
            _set_cookie(response, request, token, visitor)
        return response

    app.router.routes += [Route(path, health) for path in HEALTH]

    if config.telemetry.metrics and config.telemetry.metrics_port is None:
        page_metrics(app, calls, access, bool(config.server.trusted_proxies))

    @app.post("/api/token", response_model=None)
    async def enter(request: Request) -> Response:
        token = (await read(request, Token)).token
        visitor = await _visitor(request, token)
        if visitor is None:
            raise Refused(401, "the token is not right", "ask who runs this server")
        response = Response(status_code=204)
        if access.needed:
            _set_cookie(response, request, token, visitor)
        return response

    @app.get("/api/info")
    async def info(request: Request) -> dict[str, Any]:
        return {
            "version": __version__,
            "profile": config.profile,
            "question": OVERALL_AFFECT_QUESTION,
            "ice_servers": [s.model_dump() for s in turn.ice_servers(config.server)],
            "ice_ttl_s": config.server.turn_ttl_s if config.server.turn_secret else None,
            "relay_only": config.server.relay_only,
            "heartbeat_ms": round(config.limits.heartbeat_s * 1000),
            "vanished_after_ms": round(config.limits.vanished_after_s * 1000),
            "resume_s": config.limits.resume_s,
            "video": {**VIDEO, "sendRate": _send_rate(config)},
            "own_token": getattr(request.state, "person", None) is not None,
            "busy": calls.busy and not cluster.has_room,
            **host.info,
        }

    @api.post("/api/offer")
    async def offer(request: Request) -> dict[str, str]:
        wanted = await read(request, Offer)
        if len(wanted.sdp) > config.limits.sdp_bytes:
            raise Refused(413, f"the offer's SDP is larger than {config.limits.sdp_bytes} bytes")
        if wanted.resume is not None:
            entry = calls.find(wanted.resume.session_id, wanted.resume.secret)
            sdp = await calls.resume(entry, wanted.sdp, wanted.camera)
        else:
            entry, sdp = await calls.begin(
                wanted.sdp,
                wanted.consent,
                wanted.camera,
                getattr(request.state, "person", None),
                request.headers.get("traceparent"),
            )
        return {"sdp": sdp, "type": "answer", "session_id": entry.id, "secret": entry.secret}

    @api.get("/api/sessions/{session_id}")
    async def status(session_id: str, secret: Secret = None) -> dict[str, Any]:
        entry = calls.find(session_id, secret)
        return {
            "state": entry.state,
            "ended_how": entry.ended_how,
            "can_rate": entry.can_rate,
            "rated": entry.rated,
        }

    @api.post("/api/sessions/{session_id}/rating", status_code=204)
    async def rating(session_id: str, request: Request, secret: Secret = None) -> None:
        entry = calls.find(session_id, secret)
        given = await read(request, Rating)
        await calls.rate(entry, given.overall_affect, given.remark)

    @api.post("/api/sessions/{session_id}/away", status_code=204)
    async def away(session_id: str, request: Request) -> None:
        calls.away(calls.find(session_id, (await read(request, Away)).secret))

    @api.post("/api/sessions/{session_id}/hangup", status_code=204)
    async def hang_up(session_id: str, secret: Secret = None) -> None:
        calls.hang_up(calls.find(session_id, secret))

    @api.delete("/api/sessions/{session_id}", status_code=204)
    async def forget(session_id: str, secret: Secret = None) -> None:
        await calls.delete(calls.find(session_id, secret))

    async def _visitor(request: Request, token: str) -> Visitor | None:
        try:
            return await access.enter(token, address_of(request.scope))
        except Guessing as error:
            raise Refused(*guessing(error)) from None

    app.include_router(api)
    app.state.inside = _inside(api)
    return app


def _inside(api: APIRouter) -> ASGIApp:
    """The same routes for other workers: no page, no guard, and never a further hop."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    app.include_router(api)
    return app


def _set_cookie(response: Response, request: Request, token: str, visitor: Visitor) -> None:
    response.set_cookie(
        COOKIE,
        cookie_value(token),
        max_age=visitor.cookie_s,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _send_rate(config: Config) -> float:
    """Frames a second that the page should send."""
    return min(float(VIDEO["frameRate"]), SENT_PER_READ * config.perception.frames_hz)
