"""The one trainer of r_θ. What differs between the rows of the paper's Table 3 is the credit that a
batch is fitted to (`decomposition`), whether labels shape it, and nothing else.

Deterministic on one machine: what is drawn comes from one generator whose state is part of the
checkpoint, dropout is seeded by the step, so that a killed run goes on to the same result. Several
processes share the passes of a fine-tuned encoder (learning/processes.py); linear layers on frozen
features take a millisecond a step, and each process trains them alike.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from learning.bank import Bank, Floats
from learning.decomposition import (
    credit_loss,
    draw,
    estimate,
    ircr_credit,
    joint_loss,
    rrd_loss,
    shaping_loss,
    unbiased_rrd_loss,
)
from learning.errors import TrainingError
from learning.network import Features, Inputs
from learning.processes import ALONE, Processes
from learning.scale import Scale

if TYPE_CHECKING:
    from agent.learning_config import Reward

LINE_RATE = 0.01
"""Learning rate of the line between r_θ and calibrated labels: two numbers, a clear optimum."""
TURNS_A_PASS, TEXTS_A_PASS = 4096, 32
"""Turns scored at a time outside training, by frozen features or by their texts."""


@dataclass(slots=True, frozen=True)
class Part:
    """Dialogues and the network's input for each of their turns."""

    bank: Bank
    inputs: Inputs
    credit: Floats | None = None
    """RUDDER: credit of each turn in units of r_θ, NaN without a rating, [turns]."""


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    epochs: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    """Validation loss of the weights that were kept."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Training and validation loss of each epoch."""


class Trainer:
    """Fits a network to one part and stops on another.

    Args:
        network: r_θ; trained in place, its best weights are put back at the end.
        settings: method, shaping, λ, steps (`[reward]`).
        scale: units, fitted on the training part.
        train: what is fitted.
        validation: what decides when to stop.
        folder: where the checkpoint goes; None keeps none.
        processes: what shares the passes of a fine-tuned encoder; the first one writes.

    Raises:
        TrainingError: nothing to fit (no rating and no label), or a checkpoint of another run.
    """

    def __init__(
        self,
        network: Any,
        settings: Reward,
        scale: Scale,
        train: Part,
        validation: Part,
        folder: Path | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.network = network
        self.processes = processes
        self.shares = not isinstance(train.inputs, Features)
        """Whether a batch is read in micro-batches that the processes share."""
        self.passes = 0
        """Of the network since the epoch began."""
        self.settings = settings
        self.scale = scale
        self.train_part, self.validation = train, validation
        self.checkpoint = folder / "checkpoint.pt" if folder else None
        self.wants_ge = settings.method in ("ircr", "rudder", "rrd") and settings.lambda_ge > 0
        self.wants_li = settings.shaping != "none" and (settings.lambda_ge < 1 or not self.wants_ge)
        self.rated = train.bank.rated if self.wants_ge else np.empty(0, np.int64)
        labels = train.bank.labels(settings.shaping) if self.wants_li else np.empty(0)
        self.labelled = np.flatnonzero(~np.isnan(labels))
        self.wants_ge, self.wants_li = len(self.rated) > 0, len(self.labelled) > 0
        if not (self.wants_ge or self.wants_li):
            raise TrainingError(
                f"nothing to fit: no {'rating' if settings.method != 'mean' else 'label'} in the "
                "training sessions",
                "rate sessions, or choose another [reward] method or shaping",
            )
        self.rng = np.random.default_rng(settings.seed)
        self.line = torch.zeros(2, requires_grad=True)
        """Of calibrated labels: log slope and intercept from r_θ to the standardised Γ."""
        self.calibrated = settings.labels == "calibrated" and self.wants_ge and self.wants_li
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in network.parameters() if p.requires_grad]},
                {"params": [self.line], "lr": LINE_RATE, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.outcome = Outcome()
        self.best: dict[str, Tensor] = {}

    def run(self, on_epoch: Callable[[int], None] = lambda _: None) -> Outcome:
        """Train to the end, from the checkpoint if there is one.

        Args:
            on_epoch: told how many epochs are done.
        """
        self._resume()
        done = self.outcome
        while done.epochs < self.settings.epochs:
            if done.epochs - done.best_epoch >= self.settings.patience:
                break
            trained, held = self.processes.same((self._epoch(), self.validation_loss()))
            done.epochs += 1
            done.losses.append((trained, held))
            if not math.isfinite(trained):
                raise TrainingError(
                    f"the loss became {trained} in epoch {done.epochs}", "a smaller learning_rate"
                )
            if held < done.best_loss - 1e-6:
                done.best_loss, done.best_epoch = held, done.epochs
                self.best = {k: v.detach().clone() for k, v in self._state().items()}
            self._save()
            on_epoch(done.epochs)
        if self.best:
            self.network.load_state_dict(self.best, strict=False)
        self.network.eval()
        return done

    def _epoch(self) -> float:
        """Every rated dialogue once (or, without ratings, every labelled turn); mean loss."""
        settings = self.settings
        self.network.train()
        self.passes = 0
        dialogues = self.rng.permutation(self.rated)
        size = settings.batch_dialogues if self.wants_ge else settings.batch_turns
        steps = math.ceil((len(dialogues) or len(self.labelled)) / size)
        total = 0.0
        for step in range(steps):
            ge = li = None
            if self.wants_ge:
                ge = self._ge(dialogues[step * size : (step + 1) * size])
            if self.wants_li:
                li = self._li()
            loss = joint_loss(ge, li, settings.lambda_ge)
            self.optimizer.zero_grad(set_to_none=True)
            if loss.requires_grad:  # a process may have had no share in this batch
                loss.backward()
            if self.shares:
                self.processes.add_gradients(
                    [p for p in self.network.parameters() if p.requires_grad]
                )
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            total += float(loss.detach())
        return total / steps

    def _ge(self, dialogues: Any) -> Tensor:
        """L_GE of a batch of rated dialogues by the chosen method."""
        bank, settings = self.train_part.bank, self.settings
        length = torch.from_numpy(bank.length[dialogues])
        returns = torch.from_numpy(self.scale.returns(bank.returns[dialogues])).float()
        turns, rewards, owner = self._drawn(dialogues)
        device = rewards.device
        length, returns = length.to(device), returns.to(device)
        if settings.method == "ircr":
            credit = ircr_credit(returns, length, settings.form)[owner]
            return credit_loss(rewards, owner, credit, len(dialogues))
        if settings.method == "rudder":
            assert self.train_part.credit is not None, "RUDDER needs its credits"
            credit = torch.from_numpy(self.train_part.credit[turns]).float().to(device)
            return credit_loss(rewards, owner, credit, len(dialogues))
        if settings.unbiased:
            _, second, other = self._drawn(dialogues)
            return unbiased_rrd_loss(
                (rewards, second), (owner, other), length, returns, settings.form
            )
        return rrd_loss(rewards, owner, length, returns, settings.form)

    def _drawn(self, dialogues: Any) -> tuple[Any, Tensor, Tensor]:
        """Indices, rewards and owners of the turns drawn from a batch of dialogues."""
        bank = self.train_part.bank
        position, owner = draw(bank.length[dialogues], self.settings.subset, self.rng)
        turns = bank.start[dialogues][owner] + position
        rewards = self._read(torch.from_numpy(turns))
        return turns, rewards, torch.from_numpy(owner).to(rewards.device)

    def _li(self) -> Tensor:
        """L_LI of labelled turns drawn with replacement."""
        turns = self.rng.choice(self.labelled, self.settings.batch_turns)
        labels = self.train_part.bank.labels(self.settings.shaping)[turns]
        target = torch.from_numpy(self.scale.labels(labels)).float()
        rewards = self._read(torch.from_numpy(turns))
        return shaping_loss(self._on_line(rewards.cpu()), target)

    def _read(self, turns: Tensor) -> Tensor:
        """r_θ of the turns, [drawn]; in several processes with the gradient of this one's share.

        Every process then works out the same loss from all rewards, and the sum of their gradients
        is the gradient of that loss.
        """
        inputs = self.train_part.inputs
        self.passes += 1
        if not self.shares:
            torch.manual_seed(self._seed())
            return self.network(inputs.batch(turns))
        units = turns.split(self.settings.micro_batch)
        mine: dict[int, Tensor] = {}
        for i, _ in self.processes.turns(len(units)):
            torch.manual_seed(self._seed() + i)
            mine[i] = self.network(inputs.batch(units[i]))
        told = self.processes.gathered([r.detach().cpu() for r in mine.values()])
        device = next(self.network.parameters()).device
        return torch.cat([mine.get(i, r.to(device)) for i, r in enumerate(told)])

    def _seed(self) -> int:
        """Of the dropout of one pass."""
        name = f"dropout {self.settings.seed} {self.outcome.epochs} {self.passes}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")

    def _on_line(self, rewards: Tensor) -> Tensor:
        """r_θ as a guess of the standardised Γ: a rising line where labels are calibrated."""
        if not self.calibrated:
            return rewards
        centred = (rewards - self.scale.li_offset) / self.scale.li_unit
        guess = self.line[0].exp() * centred + self.line[1]
        return guess * self.scale.li_unit + self.scale.li_offset

    def validation_loss(self) -> float:
        """The same loss over all held-out dialogues and labels, with all turns drawn."""
        part, settings = self.validation, self.settings
        bank = part.bank
        rewards = rewards_of(self.network, part.inputs, self.processes).astype(np.float64)
        ge = li = None
        rated = bank.rated
        if self.wants_ge and len(rated):
            returns = torch.from_numpy(self.scale.returns(bank.returns[rated]))
            turns = np.concatenate([np.arange(len(rewards))[bank.turns(d)] for d in rated])
            owner = torch.from_numpy(np.repeat(np.arange(len(rated)), bank.length[rated]))
            length = torch.from_numpy(bank.length[rated])
            guess = estimate(torch.from_numpy(rewards[turns]), owner, length, settings.form)
            ge = (returns - guess).square().mean()
        labels = bank.labels(settings.shaping)
        known = ~np.isnan(labels)
        if self.wants_li and known.any():
            target = torch.from_numpy(self.scale.labels(labels[known]))
            with torch.no_grad():
                li = shaping_loss(self._on_line(torch.from_numpy(rewards[known])), target)
        if ge is None and li is None:
            return self.outcome.losses[-1][0] if self.outcome.losses else math.inf
        return float(joint_loss(ge, li, settings.lambda_ge))

    # -- checkpoint -----------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        trained = {name for name, p in self.network.named_parameters() if p.requires_grad}
        return {k: v for k, v in self.network.state_dict().items() if k in trained}

    def _identity(self) -> str:
        """What a checkpoint must agree on: settings, shapes, data (epochs may grow)."""
        free = {"epochs", "patience", "device"}
        settings = self.settings.model_dump(mode="json", exclude=free)
        shapes = [list(p.shape) for p in self.network.parameters() if p.requires_grad]
        return json.dumps([settings, shapes, self.train_part.bank.ids, self.validation.bank.ids])

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        if self.processes.main:
            self._write(self.checkpoint)
        self.processes.wait()

    def _write(self, path: Path) -> None:
        """The checkpoint, whole or not at all."""
        beside = path.with_suffix(".tmp")
        done = self.outcome
        with beside.open("wb") as file:
            torch.save(
                {
                    "identity": self._identity(),
                    "network": self._state(),
                    "line": self.line.detach().clone(),
                    "best": self.best,
                    "optimizer": self.optimizer.state_dict(),
                    "numpy": self.rng.bit_generator.state,
                    "outcome": (done.epochs, done.best_epoch, done.best_loss, done.losses),
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.is_file():
            return
        try:
            # Our own file: numpy's generator state and plain numbers beside the tensors.
            saved = torch.load(self.checkpoint, weights_only=False)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
            raise TrainingError(
                f"{self.checkpoint}: not a checkpoint: {type(error).__name__}", "delete it"
            ) from None
        if saved["identity"] != self._identity():
            raise TrainingError(
                f"{self.checkpoint}: made with other settings or other data",
                "delete it, or choose another folder",
            )
        self.network.load_state_dict(saved["network"], strict=False)
        with torch.no_grad():
            self.line.copy_(saved["line"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best = saved["best"]
        self.rng.bit_generator.state = saved["numpy"]
        self.outcome = Outcome(*saved["outcome"])


def rewards_of(network: Any, inputs: Inputs, processes: Processes = ALONE) -> Floats:
    """r_θ of every turn, [turns], without dropout and without gradients.

    Args:
        network: r_θ.
        inputs: frozen features, which each process reads alike, or texts, whose passes are shared.
        processes: what shares them.
    """
    network.eval()
    frozen = isinstance(inputs, Features)
    step = TURNS_A_PASS if frozen else TEXTS_A_PASS

    def once(start: int) -> Floats:
        batch = inputs.batch(torch.arange(start, min(start + step, len(inputs))))
        out: Floats = network(batch).float().cpu().numpy()
        return out

    with torch.inference_mode():
        parts = (ALONE if frozen else processes).shared(range(0, len(inputs), step), once)
    return np.concatenate(parts) if parts else np.empty(0)
