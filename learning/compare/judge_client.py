"""Asks an OpenAI-compatible server for one answer at a time: retries, and one line when it fails.

Neither the key nor any text of a conversation appears in an error. The key goes into the header of
the request and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from agent.errors import EngineError
from learning.errors import DataError

if TYPE_CHECKING:
    from agent.learning_config import Judge

Message = dict[str, str]

TRIES = 5
FIRST_WAIT_S = 1.0
"""Doubled at each further try."""
LONGEST_WAIT_S = 30.0
CONNECT_S = 5.0
TRANSIENT = (408, 409, 429)
"""And every 5xx."""
ANSWER_TOKENS = 512
"""Room for a short answer; a model that thinks aloud for longer is cut off and unreadable."""
LOCAL = ("localhost", "127.0.0.1", "::1")


class Client:
    """Completions of one model. Safe to use from several threads.

    Args:
        settings: `[judge]`.
        sleep: waits between tries (tests own it).

    Raises:
        DataError: no URL, or none that can be used.
    """

    def __init__(self, settings: Judge, sleep: Callable[[float], None] = time.sleep) -> None:
        import httpx

        if not settings.url:
            raise DataError("no judge is configured", "--set judge.url=http://127.0.0.1:8000/v1")
        parts = _parts(settings.url)
        self.host = parts.hostname or ""
        self.model = settings.model
        bare = parts.netloc.rpartition("@")[2]  # no user and password in messages
        self._shown = urlunsplit((parts.scheme, bare, parts.path, "", ""))
        self._settings = settings
        self._sleep = sleep
        key = os.environ.get(settings.api_key_env)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(settings.timeout_s, connect=min(CONNECT_S, settings.timeout_s)),
        )
        self._has_key = bool(key)

    @property
    def local(self) -> bool:
        """The server is on this machine."""
        return self.host in LOCAL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def ask(self, messages: list[Message]) -> str:
        """The model's answer, greedy.

        Raises:
            EngineError: the server is down, refuses the key or the model, or is busy for too long.
        """
        import httpx

        body = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
        }
        url = f"{(self._settings.url or '').rstrip('/')}/chat/completions"
        why, wait = "", 0.0
        for attempt in range(TRIES):
            if attempt:
                self._sleep(max(wait, min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)))
            try:
                response = self._http.post(url, json=body)
            except httpx.HTTPError as error:
                why, wait = _spoken(error), 0.0
                continue
            if response.status_code == 200:
                return self._content(response)
            why = f"HTTP {response.status_code}"
            if response.status_code not in TRANSIENT and response.status_code < 500:
                raise EngineError(
                    f"the judge {self._shown}: {why}", self._advice(response.status_code)
                )
            wait = _asked_to_wait(response)
        raise EngineError(
            f"the judge {self._shown}: {why}, {TRIES} times",
            "is it running? answers so far are kept: run it again to go on",
        )

    def _content(self, response: Any) -> str:
        try:
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError):
            raise EngineError(
                f"the judge {self._shown}: what it sends is no chat completion",
                "judge.url must be an OpenAI-compatible server's, ending in /v1",
            ) from None

    def _advice(self, status: int) -> str:
        name = self._settings.api_key_env
        if status in (401, 403):
            return f"the key in ${name} is refused" if self._has_key else f"put a key into ${name}"
        if status == 404:
            return f"judge.url must end in /v1, judge.model ({self.model}) must be one it serves"
        return "does this model take chat completions with temperature and max_tokens?"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port that is none
        usable = False
    if not usable:
        raise DataError("judge.url is no address", "it looks like http://HOST:PORT/v1")
    return parts


def _spoken(error: Exception) -> str:
    """The kind of failure; its text may quote the URL with its secrets."""
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no connection"
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else "broken connection"


def _asked_to_wait(response: Any) -> float:
    """Seconds of `Retry-After`, bounded; 0 without one."""
    try:
        return min(max(float(response.headers.get("retry-after", 0)), 0.0), LONGEST_WAIT_S)
    except ValueError:  # a date
        return 0.0
