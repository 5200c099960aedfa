"""From turns to a trained r_θ: scale, features, credit, trainer. One call a row of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.bank import Bank, Floats
from learning.features import Projection
from learning.processes import ALONE, Processes
from learning.scale import Scale
from learning.turns import Turns

if TYPE_CHECKING:
    from agent.learning_config import Reward
    from learning.trainer import Outcome


@dataclass(slots=True)
class Fitted:
    """A trained r_θ on frozen features."""

    settings: Reward
    scale: Scale
    projection: Projection
    head: Any
    outcome: Outcome

    def rewards(self, turns: Turns) -> Floats:
        """r_θ of every turn, [turns], in the units of the scale."""
        return rewards_on(self.head, self.projection, turns)


def rewards_on(head: Any, projection: Projection, turns: Turns) -> Floats:
    """r_θ of every turn, [turns]."""
    import torch

    from learning.network import Features
    from learning.trainer import rewards_of

    x = projection(np.asarray(turns.vectors, np.float32), turns.numbers)
    return rewards_of(head, Features(torch.from_numpy(x).to(next(head.parameters()).device)))


def fit(
    train: Turns,
    validation: Turns,
    settings: Reward,
    folder: Path | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
    projection: Projection | None = None,
    credit: Floats | None = None,
    processes: Processes = ALONE,
) -> Fitted:
    """Train one row.

    Args:
        train: what is fitted.
        validation: what decides when to stop.
        settings: `[reward]`.
        folder: for the checkpoint.
        on_epoch: told how many epochs are done.
        projection: of the training turns, where it was fitted before.
        credit: RUDDER's, where it was computed before.
        processes: each trains alike; the first one writes.

    Raises:
        TrainingError: see `Trainer`.
    """
    import torch

    from learning.network import Features, Head
    from learning.trainer import Part, Trainer

    scale = Scale.fit(train.bank, settings)
    projection = projection or project(train, settings)
    device = settings.device
    x, held = (
        torch.from_numpy(projection(np.asarray(t.vectors, np.float32), t.numbers))
        for t in (train, validation)
    )
    if settings.method == "rudder" and credit is None:
        credit = rudder(train, validation, settings, projection)
    torch.manual_seed(settings.seed)
    head = Head(x.shape[1], settings, scale).to(device)
    trainer = Trainer(
        head,
        settings,
        scale,
        Part(train.bank, Features(x.to(device)), credit),
        Part(validation.bank, Features(held.to(device))),
        folder,
        processes,
    )
    return Fitted(settings, scale, projection, head, trainer.run(on_epoch))


def project(train: Turns, settings: Reward) -> Projection:
    """Fit the projection of the features on the training turns."""
    return Projection.fit(np.asarray(train.vectors, np.float32), train.numbers, settings.components)


def rudder(train: Turns, validation: Turns, settings: Reward, projection: Projection) -> Floats:
    """RUDDER's credit of the training turns, [turns]."""
    import torch

    from learning import rudder as method

    scale = Scale.fit(train.bank, settings)
    x, held = (
        torch.from_numpy(projection(np.asarray(t.vectors, np.float32), t.numbers))
        for t in (train, validation)
    )
    network = method.fit(x, train.bank, (held, validation.bank), scale, settings.seed)
    return method.credits(network, x, train.bank, scale)


def predicted(rewards: Floats, bank: Bank, scale: Scale) -> Floats:
    """The rating each dialogue's rewards come to, points, not clipped, [dialogues]."""
    points = scale.points(rewards, np.repeat(bank.length, bank.length))
    return np.array([points[bank.turns(d)].mean() for d in range(len(bank.ids))])
