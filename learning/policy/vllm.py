"""A vLLM server that writes replies from and to token ids, with LoRA adapters loaded at run time.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve FOLDER --enable-lora --max-lora-rank 32 \\
        --logprobs-mode processed_logprobs

The last makes it report log-probabilities of the softmax that tokens are drawn from, which training
checks its own against. Adapters are read from folders that both must see. Source: vLLM's docs,
Completions API and LoRA adapters; tried with 0.32.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from learning.errors import TrainingError
from learning.policy.decoding import Sampling

KEY = "VLLM_API_KEY"
"""Environment variable of the server's key, where it wants one; vLLM reads the same."""
TRIES = 3
PAUSE_S = 1.0
"""Before the second attempt, doubled for the third. The same seed asks for the same reply."""
CONNECT_S = 5.0
REPLY_S = 600.0
"""A reply may wait for hundreds of others."""
AT_ONCE = 128
"""Requests with the server; it batches them as it likes."""
TRANSIENT = (408, 429, 500, 502, 503, 504)


@dataclass(slots=True, frozen=True)
class Reply:
    """One answer of the server."""

    ids: list[int]
    """With the token that ended it, where one did."""
    logprobs: list[float]
    """Of each token, as the server reports them."""
    ended: bool


class Server:
    """A vLLM server, for one base model. Thread-safe.

    Args:
        url: base URL, up to and with `/v1`.
        model: the base, as the server names it; None: its first model.

    Raises:
        TrainingError: out of reach, or it does not serve the model.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        self.url = url.rstrip("/")
        key = os.environ.get(KEY)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(REPLY_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=AT_ONCE),
        )
        served = self.served()
        if model is not None and model not in served:
            raise TrainingError(
                f"the vLLM server {self.url} does not serve {model!r}",
                f"policy.vllm_model is one of: {', '.join(served[:5])}",
            )
        self.base = model or served[0]

    def served(self) -> list[str]:
        """Names of its models and adapters."""
        with self._told():
            answer = self._asked("GET", "/models").json()
            return [str(model["id"]) for model in answer["data"]] or _nothing()

    def load(self, name: str, folder: Path) -> None:
        """Have it read an adapter; `name` is the model to ask for from now on.

        Raises:
            TrainingError: it cannot, or is out of reach.
        """
        if name in self.served():
            return
        with self._told():
            try:
                self._asked(
                    "POST",
                    "/load_lora_adapter",
                    {"lora_name": name, "lora_path": str(folder.resolve())},
                )
            except httpx.HTTPStatusError as error:
                if name in self.served():  # another process was quicker
                    return
                raise TrainingError(
                    f"the vLLM server {self.url} does not load the adapter "
                    f"{folder}: HTTP {error.response.status_code}",
                    "start it with --enable-lora, --max-lora-rank of policy.lora_r or more and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, where it can read that folder",
                ) from None

    def unload(self, name: str) -> None:
        """Have it forget an adapter; one that it does not know any more is no error."""
        with self._told():
            try:
                self._asked("POST", "/unload_lora_adapter", {"lora_name": name})
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in (400, 404):
                    raise

    def write(
        self,
        model: str,
        prompts: Sequence[Sequence[int]],
        stops: set[int],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[Reply]:
        """One reply a prompt.

        Args:
            model: the base, or an adapter by the name it was loaded under.
            prompts: token ids.
            stops: tokens that end a reply.
            sampling: how tokens are drawn.
            seeds: one a prompt; the same prompt and seed get the same reply.

        Raises:
            TrainingError: the server is out of reach, refuses, or is not vLLM.
        """
        failed = threading.Event()

        def one(prompt: Sequence[int], seed: int) -> Reply:
            if failed.is_set():
                raise TrainingError("another reply failed")
            try:
                return self._one(model, prompt, stops, sampling, seed)
            except BaseException:
                failed.set()  # hundreds more would fail one after the other
                raise

        with self._told(), ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, prompts, seeds))

    def _one(
        self, model: str, prompt: Sequence[int], stops: set[int], how: Sampling, seed: int
    ) -> Reply:
        body = {
            "model": model,
            "prompt": list(prompt),
            "add_special_tokens": False,
            "max_tokens": how.tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "repetition_penalty": how.repetition_penalty,
            "top_k": -1,  # else the model's generation_config.json may say something
            "min_p": 0.0,
            "seed": seed,
            "stop_token_ids": sorted(stops),
            "logprobs": 0,
            "return_token_ids": True,
        }
        choice = self._asked("POST", "/completions", body).json()["choices"][0]
        ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        if not ids or len(ids) != len(logprobs):
            raise ValueError
        return Reply([int(i) for i in ids], [float(p) for p in logprobs], ids[-1] in stops)

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._http.request(method, f"{self.url}{path}", json=body)
                if answer.status_code not in TRANSIENT or attempt == TRIES:
                    return answer.raise_for_status()
            except httpx.TransportError:
                if attempt == TRIES:
                    raise
            threading.Event().wait(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong is one line, without the server's own words: they may quote a prompt."""
        try:
            yield
        except httpx.HTTPStatusError as error:
            raise TrainingError(
                f"the vLLM server {self.url} refuses: HTTP {error.response.status_code}",
                f"is its key in ${KEY}?"
                if error.response.status_code in (401, 403)
                else "is its --max-model-len at least policy.history_tokens + response_tokens?",
            ) from None
        except httpx.HTTPError as error:
            raise TrainingError(
                f"the vLLM server {self.url} does not answer: {type(error).__name__}",
                "is it running? what is done is kept: run it again with --resume",
            ) from None
        except (ValueError, KeyError, TypeError, IndexError):
            raise TrainingError(
                f"the vLLM server {self.url}: what it answers has no token ids",
                "policy.vllm_url is the address of a vLLM server, 0.10.2 or newer, ending in /v1",
            ) from None


def _nothing() -> list[str]:
    raise ValueError
