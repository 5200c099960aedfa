"""Templates: `[a|b|]` is one of its alternatives, `{slot}` what the slots say. Both may nest."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def fill(template: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Expand a template; spaces that an empty alternative leaves are closed.

    Raises:
        KeyError: a slot that `slots` lacks.
    """
    text = _SLOT.sub(lambda m: slots[m[1]], template)
    while found := _CHOICE.search(text):
        chosen = rng.choice(found[1].split("|"))
        text = text[: found.start()] + chosen + text[found.end() :]
    return re.sub(r" +([,.!?])", r"\1", " ".join(text.split()))


def sentence(text: str) -> str:
    """With a capital letter and an end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
