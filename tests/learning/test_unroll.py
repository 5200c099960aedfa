from pathlib import Path

import numpy as np
import pytest

from learning.dialogue import Dialogue, Utterance
from learning.unroll import Unrolled, lines, picture

pytestmark = pytest.mark.unit

MADE = Unrolled(
    Dialogue(
        "s1",
        (
            Utterance("agent", "Hello.", scored=False),
            Utterance("listener", "Hi.", scored=False),
            Utterance("agent", "Lovely to see you, " + "really " * 30, li=1),
            Utterance("agent", "Whatever.", li=0),
            Utterance("agent", "Anyway.", li=None),
        ),
        72.0,
    ),
    np.array([80.0, 50.0, 62.0]),
)


def test_the_mean_is_removed_and_told() -> None:
    out = lines(MADE, 90)
    assert out[0] == "s1: predicted 64.0, rated 72"
    assert MADE.centred.sum() == pytest.approx(0)
    assert [line[:6].strip() for line in out[1:]] == ["", "", "+16.0", "-14.0", "-2.0"]
    assert all(len(line) <= 90 for line in out)
    assert "☺" in out[3] and "–" in out[4]


def test_bars_lie_on_the_side_of_their_sign() -> None:
    _, _, _, good, bad, _ = lines(MADE, 120)
    assert good.index("│") < good.index("▇")
    assert bad.index("▇") < bad.index("│")


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    picture(MADE, tmp_path / "u.png")
    assert (tmp_path / "u.png").stat().st_size > 5000
