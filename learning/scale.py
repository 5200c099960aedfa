"""Units: what the network says, what r_θ is, and points of the session's rating (0 to 100).

In the `mean` form ratings are standardised on the training sessions, R' = (R - μ)/σ, and r_θ is in
those units: a reward of 0 is a turn of an average session. In the `sum` form nothing is changed, as
in the paper: R is in points and r_θ is a turn's share of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.bank import Bank, Floats
from learning.decomposition import Form

if TYPE_CHECKING:
    from agent.learning_config import Reward


@dataclass(slots=True, frozen=True)
class Scale:
    """Fitted on the training dialogues, saved with the reward."""

    form: Form
    mean: float
    """μ of the ratings, points."""
    sd: float
    """σ of the ratings, points."""
    turns: float
    """Mean number of scored turns of a dialogue."""
    li_centre: float
    """Γ becomes (Γ - centre) · gain + offset in units of r_θ."""
    li_gain: float
    li_offset: float
    li_unit: float
    """Standard deviation of the centred Γ, in units of r_θ."""

    @classmethod
    def fit(cls, bank: Bank, settings: Reward) -> Scale:
        """Read the scale off the training dialogues.

        Unrated data (L_LI alone) takes the middle of the scale and a quarter of it as σ.
        """
        ratings = bank.returns[bank.rated]
        mean = float(ratings.mean()) if len(ratings) else 50.0
        sd = float(ratings.std()) if len(ratings) > 1 else 0.0
        sd = sd if sd > 1e-6 else 25.0
        turns = float(bank.length.mean())
        labels = bank.labels(settings.shaping)
        labels = labels[~np.isnan(labels)]
        centre = float(labels.mean()) if len(labels) else 0.5
        spread = max(float(np.sqrt(centre * (1 - centre))), 0.05)
        if settings.form == "mean":
            raw = (0.0, 100 / sd, -mean / sd, 1.0)
            centred = (centre, 1 / spread, 0.0, 1.0)
        else:
            raw = (0.0, 1.0, 0.0, 1.0)
            centred = (centre, sd / turns / spread, mean / turns, sd / turns)
        li = raw if settings.labels == "raw" else centred
        return cls(settings.form, mean, sd, turns, *li)

    @property
    def offset(self) -> float:
        """What r_θ is when the network says 0."""
        return 0.0 if self.form == "mean" else self.mean / self.turns

    @property
    def gain(self) -> float:
        """One unit of the network's output in units of r_θ."""
        return 1.0 if self.form == "mean" else self.sd / self.turns

    def returns(self, ratings: Any) -> Any:
        """Ratings in points to the R that is decomposed."""
        return (ratings - self.mean) / self.sd if self.form == "mean" else ratings

    def labels(self, gamma: Any) -> Any:
        """Γ in units of r_θ, the target of L_LI."""
        return (gamma - self.li_centre) * self.li_gain + self.li_offset

    def points(self, rewards: Any, length: Any = None) -> Any:
        """r_θ of a turn as the rating of a session all of whose turns were like it.

        The mean over a dialogue's turns is its predicted rating in either form.

        Args:
            rewards: r_θ, any shape.
            length: T of the turn's dialogue (`sum` form); the training mean where unknown.
        """
        if self.form == "mean":
            return self.mean + self.sd * rewards
        return rewards * (self.turns if length is None else length)

    def column(self, rewards: Floats) -> Floats:
        """r_θ as a table shows it: on a scale of 0 to 1, or, in the `sum` form, as it is."""
        return np.asarray(self.points(rewards) / 100 if self.form == "mean" else rewards)
