"""The policy behind any OpenAI-compatible server (vLLM, llama.cpp's server, a hosted one).

`POST {url}/chat/completions` with `stream: true`; the answer is server-sent events (WHATWG HTML,
section 9.2), one `chat.completion.chunk` each, ended by `data: [DONE]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from agent.config import Config, ResponderEngine
from agent.engines.model_server import Patience, Refused, server_at
from agent.engines.protocols import Message
from agent.engines.remote_adapters import Adapter, find_adapter
from agent.engines.sampling import Sampling
from agent.errors import ConfigError, EngineError

DONE_S = 0.5
"""How long a finished reply waits for `[DONE]`, which lets the connection be used again."""
WAYS_OUT = {
    400: "is the history too long for it? see dialogue.history_tokens",
    401: "is the key in the variable that responder.api_key_env names the right one?",
    403: "is the key in the variable that responder.api_key_env names the right one?",
    404: "does it serve the model, or the adapter, by this name?",
}


class OpenAIResponder:
    """A remote policy.

    Args:
        url: base URL, up to and with `/v1`.
        model: the model's name as the server knows it.
        api_key: bearer token, where the server wants one.
        patience: how long it is waited for, and how many requests it is given.
        adapter: the learned adapter that speaks, as the server knows it; None: the model alone.
    """

    remote = True

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        sampling: Sampling | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.id = "openai"
        self.policy_id = model if adapter is None or not adapter.id else f"{model}+{adapter.id}"
        self.model = model if adapter is None else adapter.model
        self.extra = {} if adapter is None else adapter.extra
        self.url = url.rstrip("/")
        self.sampling = sampling or Sampling()
        self.server = server_at(self.url, api_key, patience or Patience())

    def open(self, seed: int | None = None) -> OpenAIConversation:
        """A dialogue; the server keeps no state of it."""
        return OpenAIConversation(self, seed)


class OpenAIConversation:
    """One dialogue with the remote policy."""

    def __init__(self, responder: OpenAIResponder, seed: int | None) -> None:
        self._r = responder
        self._seed = seed

    def count_tokens(self, text: str) -> int:
        """An estimate: four characters a token."""
        return len(text) // 4 + 1

    def prefill(self, messages: Sequence[Message]) -> None:
        """Nothing: caching prefixes is the server's own business."""

    def reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        """Stream the reply's text; stopping closes the connection, which ends the generation.

        Raises:
            EngineError: the server is out of reach, refuses, is too slow, or breaks off.
        """
        how = self._r.sampling
        body = {
            "model": self._r.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_new_tokens,
            **self._r.extra,
        }
        if self._seed is not None:
            body["seed"] = self._seed

        async def ask(client: httpx.AsyncClient) -> AsyncIterator[str]:
            async with client.stream(
                "POST", f"{self._r.url}/chat/completions", json=body
            ) as response:
                if response.status_code != 200:
                    text = (await response.aread()).decode(errors="replace")
                    raise _refusal(response.status_code, text, response.headers)
                async for piece in _pieces(response.aiter_lines()):
                    yield piece

        try:
            yield from self._r.server.pieces(ask, should_stop)
        except (httpx.HTTPError, Refused, TimeoutError) as error:
            way_out = "is it running, and does it serve this model?"
            if isinstance(error, Refused):
                way_out = WAYS_OUT.get(error.status, way_out)
            raise EngineError(
                f"the policy server {self._r.url} failed: {_line(error)}", way_out
            ) from None


def _refusal(status: int, text: str, headers: httpx.Headers | None = None) -> Refused:
    after = headers.get("Retry-After", "") if headers is not None else ""
    return Refused(status, ", ".join([f"HTTP {status}", *_codes(text)]), _seconds(after))


def _seconds(after: str) -> float | None:
    """`Retry-After`, seconds or a date (RFC 9110, 10.2.3); None: neither."""
    if re.fullmatch(r"\d{1,6}", after):
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except ValueError:
        return None
    left = date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, left.total_seconds())


def _codes(text: str) -> list[str]:
    """The machine-readable part of an error, `type` and `code` of OpenAI's error object. Not its
    message: servers quote the request in it, and this ends up in the log."""
    try:
        error: Any = json.loads(text)
    except ValueError:
        return []
    error = error.get("error", error) if isinstance(error, dict) else {}
    found = [error.get(key) for key in ("type", "code")] if isinstance(error, dict) else []
    return [str(f) for f in found if f is not None and re.fullmatch(r"[\w.-]{1,40}", str(f))]


async def _pieces(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    finished = False  # some servers give the last chunk a reason and say no [DONE]
    while True:
        try:
            async with asyncio.timeout(DONE_S if finished else None):
                line = await anext(lines, None)
        except (TimeoutError, httpx.HTTPError):
            if finished:
                return
            raise
        if line is None:
            break
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event: Any = json.loads(data)
            if "error" in event:
                raise _refusal(200, json.dumps(event))
            choice = (event.get("choices") or [{}])[0]
            text = (choice.get("delta") or {}).get("content") or ""
            if not isinstance(text, str):
                raise TypeError
            finished = finished or choice.get("finish_reason") is not None
        except (ValueError, AttributeError, KeyError, TypeError):
            raise Refused(200, "what it streams is not a completion chunk") from None
        if text:
            yield text
    if not finished:
        raise Refused(200, "it broke off")


def _line(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it was too slow"
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def open_openai(config: Config) -> OpenAIResponder:
    """The policy of `responder.engine = "openai"`.

    Raises:
        ConfigError: no URL, no model.
        PolicyError: the server does not have the adapter.
        EngineError: there is an adapter to ask for, and the server is out of reach.
    """
    settings = config.responder
    if not settings.url:
        raise ConfigError(
            "responder.engine = 'openai' needs responder.url", "e.g. http://127.0.0.1:8000/v1"
        )
    if settings.model == ResponderEngine().model:
        # Else sessions would say that the embedded model spoke.
        raise ConfigError(
            "responder.engine = 'openai' needs responder.model", "the name the server knows it by"
        )
    api_key = os.environ.get(settings.api_key_env)
    adapter = find_adapter(settings, api_key)
    return OpenAIResponder(
        settings.url,
        settings.model,
        api_key=api_key,
        patience=Patience(
            connect_s=settings.connect_s,
            first_token_s=settings.first_token_s,
            between_tokens_s=settings.between_tokens_s,
            total_s=settings.timeout_s,
            in_flight=settings.in_flight,
            waiting=settings.waiting,
        ),
        sampling=Sampling.of(settings),
        adapter=adapter,
    )
