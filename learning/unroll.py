"""The paper's Fig. 2: the reward of each turn of one dialogue, its mean removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learning.bank import Floats
from learning.dialogue import Dialogue

BAR = 16
"""Characters of the longest bar to either side."""


@dataclass(slots=True, frozen=True)
class Unrolled:
    """One dialogue and what r_θ says of it."""

    dialogue: Dialogue
    rewards: Floats
    """Of the scored turns, points, [scored]."""

    @property
    def predicted(self) -> float:
        """The rating it comes to: the mean of the rewards."""
        return float(self.rewards.mean())

    @property
    def centred(self) -> Floats:
        """Rewards with their mean removed, points."""
        centred: Floats = self.rewards - self.rewards.mean()
        return centred


def lines(unrolled: Unrolled, width: int = 100) -> list[str]:
    """One line a turn for a terminal: its contribution, a bar, the listener's label, its words.

    Args:
        unrolled: what to show.
        width: columns of the terminal.
    """
    centred = unrolled.centred
    largest = float(abs(centred).max()) or 1.0
    rated = unrolled.dialogue.rating
    out = [
        f"{unrolled.dialogue.id}: predicted {unrolled.predicted:.1f}"
        + (f", rated {rated:g}" if rated is not None else ", not rated")
    ]
    place = {turn: i for i, turn in enumerate(unrolled.dialogue.scored)}
    for index, turn in enumerate(unrolled.dialogue.turns):
        text = turn.text
        if index in place:
            value = float(centred[place[index]])
            size = round(BAR * abs(value) / largest)
            bar = ("▇" * size).rjust(BAR) + "│" if value < 0 else " " * BAR + "│" + "▇" * size
            face = {1: "☺", 0: "–", None: " "}[turn.li]
            head = f"{value:+6.1f} {bar.ljust(2 * BAR + 1)} {face} {turn.speaker[:1].upper()} "
        else:
            head = " " * (6 + 1 + 2 * BAR + 1 + 1 + 2) + f"{turn.speaker[:1].upper()} "
        room = max(width - len(head), 20)
        out.append(head + (text if len(text) <= room else text[: room - 1] + "…"))
    return out


def picture(unrolled: Unrolled, file: Path) -> None:
    """Bars over the turns, filled where the listener's face was positive."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    turns = [unrolled.dialogue.turns[i] for i in unrolled.dialogue.scored]
    colours = {1: "#27ae60", 0: "#7f8c8d", None: "#d5d8dc"}
    figure, axis = plt.subplots(figsize=(max(6.0, min(16.0, 0.28 * len(turns) + 2)), 3.2))
    axis.bar(range(len(turns)), unrolled.centred, color=[colours[t.li] for t in turns], width=0.8)
    axis.axhline(0, color="#333333", lw=0.8)
    axis.set_xlabel("scored turn")
    axis.set_ylabel("reward, mean removed")
    rated = unrolled.dialogue.rating
    rating = f", rated {rated:.0f}" if rated is not None else ""
    axis.set_title(
        f"predicted {unrolled.predicted:.1f}{rating}; "
        "green: positive face, grey: not, light: not seen",
        fontsize=9,
    )
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)
