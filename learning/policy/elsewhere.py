"""Replies that a vLLM server writes: rollouts of training, replies to compare and simulate with."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from learning.errors import TrainingError
from learning.policy.decoding import Sampling, Written
from learning.policy.model import ADAPTER_FILES, PolicyModel, save_adapter
from learning.policy.passes import padded
from learning.policy.prompts import History
from learning.policy.vllm import Server
from learning.policy.writing import Writer

if TYPE_CHECKING:
    from agent.config import Config
    from agent.learning_config import Policy


class ServedWriter(Writer):
    """A policy whose replies a server writes; log-probabilities and KL are worked out here.

    Its repetition penalty is vLLM's, of the whole prompt; a live call's looks back 64 tokens.
    """

    @classmethod
    def open(cls, config: Config, adapter: Path | None = None) -> Self:
        """As `Writer.open`; an adapter is loaded on the server, under a name made of its weights.

        Raises:
            TrainingError: the server is out of reach, or does not take the adapter.
        """
        made = super().open(config, adapter)
        assert config.policy.vllm_url is not None
        made.server = Server(config.policy.vllm_url, config.policy.vllm_model)
        made.name = made.server.base
        if adapter is not None:
            digest = hashlib.sha256(b"".join((adapter / f).read_bytes() for f in ADAPTER_FILES))
            made.name = f"geli-{digest.hexdigest()[:16]}"
            made.server.load(made.name, adapter)
        return made

    server: Server
    name: str
    """What the server is asked for."""

    def write(self, histories: Sequence[History], seed: int) -> list[str]:
        """One reply a history; the same histories and seed give the same replies."""
        prompts = [self.template.prompt(history) for history in histories]
        seeds = [row_seed(seed, i) for i in range(len(prompts))]
        found = self.server.write(self.name, prompts, self.template.stops, self.sampling, seeds)
        return [self.template.text(reply.ids) for reply in found]


@dataclass(slots=True)
class Rollout:
    """Has the policy in training written by a server.

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
        if self.name is None:
            self._clear()  # what a killed run left
        save_adapter(place / name, model.network, model.adapter_state(), self.base, name)
        self.server.load(name, place / name)
        old, self.name = self.name, name
        if old is not None:
            self.server.unload(old)
            shutil.rmtree(place / old, ignore_errors=True)

    def withdraw(self) -> None:
        """The run is over: neither the server nor the folder keeps an adapter of it."""
        self._clear()
        shutil.rmtree(self.folder / "published", ignore_errors=True)

    def _clear(self) -> None:
        for left in (self.folder / "published").glob("*"):
            self.server.unload(left.name)
            shutil.rmtree(left, ignore_errors=True)

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
