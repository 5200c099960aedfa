"""Labels of CANDOR's turns from affect windows that `geli learn corpus affect` made of its videos.

The rule is that of live calls: `agent.labels`, with the settings of `[labels]`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.labels import label_turn
from agent.records import AffectWindow, Turn
from learning.corpus.affect import participant_of
from learning.corpus.places import Place
from learning.corpus.shards import MANIFEST, tables
from learning.dialogue import Li

if TYPE_CHECKING:
    from agent.config import Labels
    from learning.data.candor_files import Turn as Said

Floats = NDArray[np.float64]
AFFECT = "geli-affect"
"""Folder in the corpus's where affect windows are looked for."""


@dataclass(slots=True)
class Watched:
    """One participant's windows by start, as arrays: 850 hours × two faces are 6 million."""

    start_s: Floats
    end_s: Floats
    positive: NDArray[np.int8]
    """1, 0, or -1 where no face was seen."""
    labels: Labels
    classifier: str

    @classmethod
    def of(cls, table: Any, labels: Labels, classifier: str) -> Watched:
        """From a shard."""
        start_s, end_s = (table[name].to_numpy() for name in ("start_s", "end_s"))
        positive = [-1 if it is None else int(it) for it in table["positive"].to_pylist()]
        order = np.argsort(start_s, kind="stable")
        return cls(
            start_s[order], end_s[order], np.array(positive, np.int8)[order], labels, classifier
        )

    def label(self, turn: Said, listener_starts: Sequence[float]) -> Li:
        """Γ of the other side's turn.

        Args:
            turn: of the agent.
            listener_starts: when the listener's own turns start, in order.
        """
        said = _turn(0, "agent", turn.start_s, turn.stop_s)
        # All that the rule looks at: the listener's next turn, and windows near this one.
        after = listener_starts[bisect_right(listener_starts, turn.start_s) :][:1]
        others = [_turn(1, "user", start_s, start_s) for start_s in after]
        longest_s = float((self.end_s - self.start_s).max(initial=0.0))
        first, last = np.searchsorted(
            self.start_s, (turn.start_s - longest_s, turn.stop_s + self.labels.max_after_s)
        )
        near = [self._window(i) for i in range(first, last)]
        return label_turn(said, others, near, self.labels).li

    def _window(self, i: int) -> AffectWindow:
        seen = bool(self.positive[i] >= 0)
        return AffectWindow(
            index=i,
            start_s=float(self.start_s[i]),
            end_s=float(self.end_s[i]),
            face_found=seen,
            coverage=float(seen),
            positive=bool(self.positive[i]) if seen else None,
            classifier=self.classifier,
        )


class Read:
    """Affect windows of many participants."""

    def __init__(self, faces: dict[tuple[str, str], Watched], classifier: str, labels: Labels):
        self._faces = faces
        self.classifier = classifier
        self.labels = labels

    @classmethod
    def of(cls, directory: Path, affect: str | None, labels: Labels) -> Read | None:
        """The windows at `affect`, or those in the corpus's folder; None where there are none.

        Raises:
            DataError: nothing at `affect`, or a damaged shard.
        """
        if affect is None and not (directory / AFFECT / MANIFEST).is_file():
            return None
        manifest, found = tables(Place(affect or str(directory / AFFECT)), "affect")
        classifier = str(manifest.settings["classifier"])
        faces = {}
        for about, table in found:
            if (whose := participant_of(about["input"])) is None:
                continue
            faces[whose] = Watched.of(table, labels, classifier)
        return cls(faces, classifier, labels)

    def of_listener(self, conversation: str, participant: str) -> Watched | None:
        """Whose video was read, if it was."""
        return self._faces.get((conversation, participant))


def _turn(index: int, speaker: Literal["user", "agent"], start_s: float, end_s: float) -> Turn:
    return Turn(index=index, speaker=speaker, start_s=start_s, end_s=end_s, text="-")
