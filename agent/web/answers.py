"""How routes read a request and how every failure becomes `{"error", "way_out"}`."""

from __future__ import annotations

import logging
import math
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from agent.errors import GeliError, StoreError
from agent.web.rtc import BadOffer, NoRelay

log_ = logging.getLogger("geli.web")


class Refused(GeliError):
    """A request that cannot be granted.

    Args:
        status: HTTP status code that says so.
        problem: what is wrong.
        way_out: what to do about it.
        retry_after_s: when to try again (RFC 9110, section 10.2.3); None: not said.
    """

    def __init__(
        self, status: int, problem: str, way_out: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(problem, way_out)
        self.status = status
        self.retry_after_s = retry_after_s


class Body(BaseModel):
    """What a page sends; more than is known may be in it."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Rating(Body):
    """The answer to the overall-affect question."""

    overall_affect: float = Field(ge=0, le=100, allow_inf_nan=False)
    comment: str | None = Field(None, max_length=2000)

    @property
    def remark(self) -> str | None:
        """The comment, if there is one."""
        return (self.comment or "").strip() or None


Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, model: type[Model]) -> Model:
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


def answer_errors(app: FastAPI) -> None:
    """Turn what the routes of `app` raise into answers."""

    def answer(
        status: int, error: str, way_out: str = "", retry_after_s: float | None = None
    ) -> JSONResponse:
        headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
        content = {"error": error, "way_out": way_out}
        return JSONResponse(content, status_code=status, headers=headers)

    @app.exception_handler(GeliError)
    async def known(_: Request, error: GeliError) -> JSONResponse:
        status = 503 if isinstance(error, StoreError) else 500
        if isinstance(error, BadOffer):
            status = 503 if isinstance(error, NoRelay) else 400
        if isinstance(error, Refused):
            return answer(error.status, error.problem, error.way_out, error.retry_after_s)
        if status >= 500 and not isinstance(error, BadOffer):
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
