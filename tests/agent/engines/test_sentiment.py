"""Language sentiment."""

from __future__ import annotations

import pytest

from agent.config import Config
from agent.engines.sentiment import open_vader

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("I am so happy, this is wonderful!", 1),
        ("That's great news.", 1),
        ("I feel lonely and sad.", -1),
        ("I don't like this at all, it is horrible.", -1),
        ("The table is made of wood.", 0),
        ("", 0),
        ("?!", 0),
    ],
)
def test_sign_and_range(text: str, sign: int) -> None:
    score = open_vader(Config()).score(text)
    assert -1 <= score <= 1
    assert (score > 0.2) - (score < -0.2) == sign
