"""Templates: `[a|b|]` is one of its alternatives, `{slot}` what the slots say. Both may nest."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\ba (?=[aeio])")
_SLOT = re.compile(r"\{(\w+)\}")


def fill(template: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Expand a template; spaces that an empty alternative leaves are closed, `a`
    becomes `an` before a vowel.

    Raises:
        KeyError: a slot that `slots` lacks.
    """
    text = _SLOT.sub(lambda m: slots[m[1]], template)
    while found := _CHOICE.search(text):
        chosen = rng.choice(found[1].split("|"))
        text = text[: found.start()] + chosen + text[found.end() :]
    text = _ARTICLE.sub("an ", " ".join(text.split()))
    return re.sub(r" +([,.!?])", r"\1", text)


def sentence(text: str) -> str:
    """With a capital letter and an end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


_VERBS = {"is": "are", "was": "were", "has": "have", "does": "do", "doesn't": "don't"}


def agree(text: str, subject: str) -> str:
    """Verbs before and after a plural subject (`the tomatoes is`) in the plural.

    A subject is taken as plural when its last word is small and ends in one s.
    """
    last = subject.split()[-1]
    if not (last.islower() and last.endswith("s") and not last.endswith(("ss", "us", "is"))):
        return text
    name = rf"(?i:{re.escape(subject)})"
    text = re.sub(rf"(?i)\b(is|was|does|has) (?={name}\b)", lambda m: _plural(m[1]) + " ", text)
    return re.sub(rf"({name}) ([a-z]+s|doesn't)\b", lambda m: f"{m[1]} {_plural(m[2])}", text)


def _plural(verb: str) -> str:
    if verb.lower() in _VERBS:
        plural = _VERBS[verb.lower()]
        return plural.capitalize() if verb[0].isupper() else plural
    return verb.removesuffix("s")
