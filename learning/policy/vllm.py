"""Replies written by a vLLM server: rollouts of training, replies to compare and to simulate with.

The server holds the base; each policy is a LoRA adapter that it loads at run time from a folder
that both can read. Prompts go as token ids and replies come back as token ids, so nothing is
tokenised twice. Start it with

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve FOLDER --enable-lora --max-lora-rank 32 \
        --logprobs-mode processed_logprobs

(the log-probabilities of the temperature that tokens are drawn at, which training checks its own
against). https://docs.vllm.ai: Completions API, LoRA adapters.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import torch

from learning.errors import TrainingError
from learning.policy.decoding import Sampling, Written
from learning.policy.model import PolicyModel, save_adapter
from learning.policy.passes import padded

if TYPE_CHECKING:
    from agent.learning_config import Policy

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
        """Have it read an adapter; `name` is the model to ask for from now on."""
        with self._told():
            try:
                self._asked(
                    "POST",
                    "/load_lora_adapter",
                    {"lora_name": name, "lora_path": str(folder.resolve())},
                )
            except httpx.HTTPStatusError as error:
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
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[Reply]:
        """One reply a prompt.

        Args:
            model: the base, or an adapter by the name it was loaded under.
            prompts: token ids.
            stops: tokens that end a reply.
            sampling: how tokens are drawn.
            seeds: one a prompt.
            stopped: whether nobody wants the rest any more.

        Raises:
            TrainingError: the server is out of reach, refuses, or is not vLLM.
        """
        failed = threading.Event()

        def one(prompt: Sequence[int], seed: int) -> Reply:
            if failed.is_set() or stopped():
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


@dataclass(slots=True)
class Rollout:
    """Has the policy in training written elsewhere.

    The server's copy of it is never quite ours (another precision, other kernels), so training
    reads every reply once more itself, and weighs each token by how much likelier it is here than
    there, at most `MOST_WEIGHT` (truncated importance sampling, Ionides 2008; for rollout engines
    Yao et al. 2025).
    """

    server: Server
    folder: Path
    """Of the run; the server reads adapters in it."""
    base: str
    """The base's name, for the adapter's manifest."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    name: str | None = None
    """Of the adapter that the server has."""

    @classmethod
    def of(cls, settings: Policy, folder: Path, base: str) -> Rollout:
        """As `[policy]` says."""
        assert settings.vllm_url is not None
        return cls(Server(settings.vllm_url, settings.vllm_model), folder, base)

    def publish(self, model: PolicyModel, number: int) -> None:
        """Give the server the policy as it is now.

        Args:
            model: the policy.
            number: of the update.
        """
        name = f"geli-{self.run}-{number}"
        place = self.folder / "published"
        save_adapter(place / name, model.network, model.adapter_state(), self.base, name)
        self.server.load(name, place / name)
        old, self.name = self.name, name
        if old is not None:
            self.server.unload(old)
            shutil.rmtree(place / old, ignore_errors=True)

    def withdraw(self) -> None:
        """The run is over: neither the server nor the folder keeps an adapter of it."""
        if self.name is not None:
            self.server.unload(self.name)
        shutil.rmtree(self.folder / "published", ignore_errors=True)

    def write(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        stops: set[int],
        sampling: Sampling,
        seed: int,
    ) -> Written:
        """Replies to some rows of a batch; of the tensors only `logprobs` and `mask` are filled."""
        assert self.name is not None
        seeds = [row_seed(seed, row) for row in rows]
        found = self.server.write(self.name, prompts, stops, sampling, seeds)
        _, mask = padded([reply.ids for reply in found], torch.device("cpu"))
        logprobs = torch.zeros(mask.shape)
        logprobs[mask] = torch.tensor([p for reply in found for p in reply.logprobs])
        nothing = torch.zeros(mask.shape)
        return Written(
            [reply.ids for reply in found], [r.ended for r in found],
            logprobs, nothing, nothing.clone(), mask,
        )  # fmt: skip


MOST_WEIGHT = 2.0
MOST_GAP = 0.1
"""Nats a token. Rounding makes a hundredth of it."""


def weights(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Truncated importance weights of tokens drawn there for a policy that is here.

    Args:
        here: log π of each token, [replies, longest].
        there: as the server that drew it says.
    """
    return (here - there).exp().clamp(max=MOST_WEIGHT)


def gap(here: torch.Tensor, there: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean of log π there − log π here over the tokens drawn there, nats: an estimate of KL(there‖
    here) a token.

    Raises:
        TrainingError: more than rounding can make: another policy writes there.
    """
    found = float(((there - here) * mask).sum() / mask.sum())
    if not abs(found) <= MOST_GAP:
        raise TrainingError(
            f"the vLLM server's log-probabilities differ from this policy's by {found:+.2f} nats a "
            "token: another base, or other ones",
            "has it the same base, and --logprobs-mode processed_logprobs?",
        )
    return found


def row_seed(seed: int, row: int) -> int:
    """Of one reply of a batch, whoever asks for it; 31 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:4], "big") >> 1
