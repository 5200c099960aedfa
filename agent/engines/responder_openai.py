"""The policy behind any OpenAI-compatible server (vLLM, llama.cpp's server, a hosted one).

`POST {url}/chat/completions` with `stream: true`; the answer is server-sent events (WHATWG HTML,
section 9.2), one `chat.completion.chunk` each, ended by `data: [DONE]`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from agent.config import Config, ResponderEngine
from agent.engines.protocols import Message
from agent.engines.sampling import Sampling
from agent.errors import ConfigError, EngineError

TRIES = 3
"""Attempts before the first token; afterwards a failure ends the reply."""
RETRY_AFTER_S = 0.3
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class OpenAIResponder:
    """A remote policy.

    Args:
        url: base URL, up to and with `/v1`.
        model: the model (or adapter) name the server knows.
        api_key: bearer token, where the server wants one.
    """

    remote = True

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 20.0,
        sampling: Sampling | None = None,
    ) -> None:
        self.id = "openai"
        self.policy_id = model
        self.model = model
        self.url = url.rstrip("/")
        self.sampling = sampling or Sampling()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=min(5.0, timeout_s))
        self.client = httpx.Client(headers=headers, timeout=timeout)

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
            EngineError: the server is out of reach, refuses, or breaks off.
        """
        how = self._r.sampling
        body = {
            "model": self._r.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_new_tokens,
        }
        if self._seed is not None:
            body["seed"] = self._seed
        for attempt in range(1, TRIES + 1):
            begun = False
            try:
                with self._r.client.stream(
                    "POST", f"{self._r.url}/chat/completions", json=body
                ) as response:
                    if response.status_code != 200:
                        raise _Refused(
                            response.status_code, response.read().decode(errors="replace")
                        )
                    for piece in _pieces(response.iter_lines()):
                        if should_stop():
                            return
                        begun = True
                        yield piece
                    return
            except (httpx.HTTPError, _Refused) as error:
                final = begun or attempt == TRIES or should_stop()
                if isinstance(error, _Refused) and error.status not in TRANSIENT:
                    final = True
                if final:
                    raise EngineError(
                        f"the policy server {self._r.url} failed: {_line(error)}",
                        "is it running, and does it serve this model?",
                    ) from None
                time.sleep(RETRY_AFTER_S * attempt)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(", ".join([f"HTTP {status}", *_codes(text)]))
        self.status = status


class _NotAChunk(_Refused):
    def __str__(self) -> str:
        return "what it streams is not a completion chunk"


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


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event: Any = json.loads(data)
            if "error" in event:
                raise _Refused(200, json.dumps(event))
            choices = event.get("choices") or [{}]
            text = (choices[0].get("delta") or {}).get("content")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise _NotAChunk(200, "") from None
        if text:
            yield text


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def open_openai(config: Config) -> OpenAIResponder:
    """The policy of `responder.engine = "openai"`.

    Raises:
        ConfigError: no URL.
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
    return OpenAIResponder(
        settings.url,
        settings.model,
        api_key=os.environ.get(settings.api_key_env),
        timeout_s=settings.timeout_s,
        sampling=Sampling.of(settings),
    )
