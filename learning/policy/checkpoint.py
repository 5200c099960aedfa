"""A run's checkpoint: everything that the next update depends on, in one file.

No generator's state is in it: every random draw of a run is seeded by what it is for and by the
number of the update, so the update's number is the state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from learning.errors import TrainingError
from learning.policy.model import PolicyModel
from learning.policy.ppo import KlController, ScoreScale

NAME = "checkpoint.pt"


@dataclass(slots=True)
class Progress:
    """What changes as a run goes on, beside weights."""

    update: int
    """Updates done; also how far the histories have been read."""
    scale: ScoreScale
    controller: KlController
    entropies: list[float]
    """Of the latest updates, for the guard."""


def save(
    folder: Path, identity: str, model: PolicyModel, optimizer: Any, progress: Progress
) -> None:
    """Write the checkpoint, whole or not at all."""
    beside = folder / f".{NAME}.tmp"
    with beside.open("wb") as file:
        torch.save(
            {
                "identity": identity,
                "adapter": model.adapter_state(),
                "head": model.head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "update": progress.update,
                "scale": progress.scale.state(),
                "beta": progress.controller.beta,
                "entropies": progress.entropies,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, folder / NAME)


def load(
    folder: Path, identity: str, model: PolicyModel, optimizer: Any, progress: Progress
) -> bool:
    """Put a run back where its checkpoint is; False where there is none.

    Raises:
        TrainingError: damaged, or of a run with other settings, data, reward or base.
    """
    path = folder / NAME
    if not path.is_file():
        return False
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        same = saved["identity"] == identity
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise TrainingError(
            f"{path}: not a checkpoint: {type(error).__name__}", "delete it"
        ) from None
    if not same:
        raise TrainingError(
            f"{path}: made with other settings, data, reward or base",
            "choose another folder, or delete it",
        )
    model.load_adapter_state(saved["adapter"])
    model.head.load_state_dict(saved["head"])
    optimizer.load_state_dict(saved["optimizer"])
    progress.update = saved["update"]
    progress.scale = ScoreScale(**saved["scale"])
    progress.controller.beta = saved["beta"]
    progress.entropies = list(saved["entropies"])
    return True


def guard(
    kl: float, entropies: Sequence[float], losses: Sequence[float], limits: Any
) -> str | None:
    """Why a run must stop; None: it goes on.

    Args:
        kl: nats a reply of the last batch.
        entropies: nats a token of each update so far.
        losses: of the last update.
        limits: `[policy]`: max_kl, min_entropy.
    """
    if any(value != value or abs(value) == float("inf") for value in (kl, *losses)):
        return "a loss or the KL is no finite number"
    if kl > limits.max_kl:
        return f"KL {kl:.1f} nats a reply is above policy.max_kl = {limits.max_kl:g}"
    last = list(entropies[-10:])
    if len(last) == 10 and sum(last) / 10 < limits.min_entropy:
        return (
            f"the policy collapsed: entropy {sum(last) / 10:.3f} nats a token is under "
            f"policy.min_entropy = {limits.min_entropy:g}"
        )
    return None
