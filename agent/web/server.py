"""The HTTP side: the page, signalling, and what a page may do with its call.

Protocol (JSON; errors are `{"error", "way_out"}` with a 4xx or 503):

| request | answer |
|---|---|
| `GET /`, `GET /static/…`, `GET /healthz` | the page, its files, `{"ok": true}` |
| `GET /api/info` | what the page must know before a call |
| `POST /api/token {token}` | 204 and the cookie |
| `POST /api/offer {sdp, type, consent, camera, resume}` | `{sdp, type, session_id, secret}` |
| `GET /api/sessions/{id}` | `{state, ended_how, can_rate, rated}` |
| `POST /api/sessions/{id}/rating {overall_affect, comment}` | 204 |
| `POST /api/sessions/{id}/away {secret}` | 204 |
| `POST /api/sessions/{id}/hangup` | 204 |
| `DELETE /api/sessions/{id}` | 204 |

Session requests carry the call's secret in `X-Session-Secret`, `away` in its body (a beacon cannot
set headers).
"""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Header, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from agent import __version__
from agent.errors import GeliError, StoreError
from agent.host import Host
from agent.records import OVERALL_AFFECT_QUESTION, Consent
from agent.web.calls import Calls, Refused
from agent.web.rtc import BadOffer, NoRelay, check_ice_servers
from agent.web.security import COOKIE, Guard, cookie_value, same

STATIC = Path(__file__).parent / "static"
VIDEO = {"width": 320, "height": 240, "frameRate": 15}
"""What the page asks of the camera: aiortc decodes every frame, however few are used."""
COOKIE_S = 30 * 86_400

log_ = logging.getLogger("geli.web")


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class Resumed(_Body):
    """Which call an offer takes up again."""

    session_id: str = Field(max_length=64)
    secret: str = Field(max_length=128)


class Offer(_Body):
    """An offer of the page."""

    sdp: str = Field(min_length=1)
    type: Literal["offer"]
    consent: Annotated[Consent, Field(strict=False)]
    camera: bool = True
    resume: Resumed | None = None


class Rating(_Body):
    """The answer to the overall-affect question."""

    overall_affect: float = Field(ge=0, le=100, allow_inf_nan=False)
    comment: str | None = Field(None, max_length=2000)


class Away(_Body):
    """A page that goes away."""

    secret: str = Field(max_length=128)


class Token(_Body):
    """An access token, typed into the page."""

    token: str = Field(max_length=1024)


Model = TypeVar("Model", bound=BaseModel)
Secret = Annotated[str | None, Header(alias="X-Session-Secret")]


def create_app(host: Host) -> FastAPI:
    """The server's application; `host` is started before it serves and closed after.

    The calls are in `app.state.calls`; the application's lifespan ends them politely.

    Raises:
        ConfigError: STUN or TURN servers that cannot be.
    """
    check_ice_servers(host.config)
    # A file's type must not depend on this machine's registry: modules need a JavaScript type.
    mimetypes.add_type("text/javascript", ".js")
    config = host.config
    calls = Calls(host)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await calls.start()
        yield
        await calls.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.calls = calls
    app.add_middleware(Guard, config=config)
    app.mount("/static", StaticFiles(directory=STATIC))
    _answer_errors(app)

    @app.get("/", response_model=None)
    async def index(request: Request, token: str | None = None) -> Response:
        if token is None:
            return FileResponse(STATIC / "index.html")
        # Out of the address bar and the history, whether it is right or not.
        response = RedirectResponse("/", status_code=303)
        if _is_token(token):
            _set_cookie(response, request, token)
        return response

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/api/token", response_model=None)
    async def enter(request: Request) -> Response:
        token = (await _read(request, Token)).token
        if config.server.access_token is not None and not _is_token(token):
            raise Refused(401, "the token is not right", "ask who runs this server")
        response = Response(status_code=204)
        if config.server.access_token is not None:
            _set_cookie(response, request, token)
        return response

    @app.get("/api/info")
    async def info() -> dict[str, Any]:
        return {
            "version": __version__,
            "profile": config.profile,
            "question": OVERALL_AFFECT_QUESTION,
            "ice_servers": [server.model_dump() for server in config.server.ice_servers],
            "relay_only": config.server.relay_only,
            "heartbeat_ms": round(config.limits.heartbeat_s * 1000),
            "vanished_after_ms": round(config.limits.vanished_after_s * 1000),
            "resume_s": config.limits.resume_s,
            "video": VIDEO,
            "busy": calls.busy,
            **host.info,
        }

    @app.post("/api/offer")
    async def offer(request: Request) -> dict[str, str]:
        wanted = await _read(request, Offer)
        if len(wanted.sdp) > config.limits.sdp_bytes:
            raise Refused(413, f"the offer's SDP is larger than {config.limits.sdp_bytes} bytes")
        if wanted.resume is not None:
            entry = calls.find(wanted.resume.session_id, wanted.resume.secret)
            sdp = await calls.resume(entry, wanted.sdp, wanted.camera)
        else:
            entry, sdp = await calls.begin(wanted.sdp, wanted.consent, wanted.camera)
        return {"sdp": sdp, "type": "answer", "session_id": entry.id, "secret": entry.secret}

    @app.get("/api/sessions/{session_id}")
    async def status(session_id: str, secret: Secret = None) -> dict[str, Any]:
        entry = calls.find(session_id, secret)
        return {
            "state": entry.state,
            "ended_how": entry.ended_how,
            "can_rate": entry.can_rate,
            "rated": entry.rated,
        }

    @app.post("/api/sessions/{session_id}/rating", status_code=204)
    async def rating(session_id: str, request: Request, secret: Secret = None) -> None:
        entry = calls.find(session_id, secret)
        given = await _read(request, Rating)
        await calls.rate(entry, given.overall_affect, (given.comment or "").strip() or None)

    @app.post("/api/sessions/{session_id}/away", status_code=204)
    async def away(session_id: str, request: Request) -> None:
        calls.away(calls.find(session_id, (await _read(request, Away)).secret))

    @app.post("/api/sessions/{session_id}/hangup", status_code=204)
    async def hang_up(session_id: str, secret: Secret = None) -> None:
        calls.hang_up(calls.find(session_id, secret))

    @app.delete("/api/sessions/{session_id}", status_code=204)
    async def forget(session_id: str, secret: Secret = None) -> None:
        await calls.delete(calls.find(session_id, secret))

    def _is_token(token: str) -> bool:
        right = config.server.access_token
        return right is not None and same(token, right)

    return app


async def _read(request: Request, model: type[Model]) -> Model:
    """The request's body as `model`; the size was checked before.

    Raises:
        Refused: no JSON, or not of this shape. Says where, never what was sent.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        status = 400 if first["type"] == "json_invalid" else 422
        problem = "not valid JSON" if status == 400 else first["msg"]
        raise Refused(status, f"{where}: {problem}") from None


def _set_cookie(response: Response, request: Request, token: str) -> None:
    response.set_cookie(
        COOKIE,
        cookie_value(token),
        max_age=COOKIE_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _answer_errors(app: FastAPI) -> None:
    def answer(status: int, error: str, way_out: str = "") -> JSONResponse:
        return JSONResponse({"error": error, "way_out": way_out}, status_code=status)

    @app.exception_handler(GeliError)
    async def known(_: Request, error: GeliError) -> JSONResponse:
        status = 503 if isinstance(error, StoreError) else 500
        if isinstance(error, BadOffer):
            status = 503 if isinstance(error, NoRelay) else 400
        if isinstance(error, Refused):
            status = error.status
        if status >= 500 and not isinstance(error, Refused | BadOffer):
            log_.error("%s", error)
            return answer(status, "the session store does not answer", "try again in a minute")
        return answer(status, error.problem, error.way_out)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail).lower())

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, so that it reaches the log with its trace.
        return answer(500, "the server made a mistake", "try again; its log says more")
