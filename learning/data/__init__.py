"""Sources of dialogues by name: `store`, `candor:DIR`, `chitchat`, `simulated:SEED`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from learning.dialogue import Dataset, with_sentiment
from learning.errors import DataError

if TYPE_CHECKING:
    from agent.config import Config

SOURCES = {
    "store": "sessions of the store with consent to learn; store:simulated for simulated ones",
    "candor:DIR": "the CANDOR corpus in its own layout; candor:DIR@cliffhanger for that cut, "
    "candor:DIR,affect=URL for labels from those windows ('geli learn corpus affect')",
    "chitchat": "rated human text chats; chitchat:all with short and untouched ones",
    "simulated:SEED": "a listener whose true reaction to each turn is known; simulated:SEED:N",
}


def load(spec: str, config: Config) -> Dataset:
    """Read a source; every utterance gets its language sentiment.

    Raises:
        DataError: no such source, or nothing in it to learn from.
    """
    name, _, rest = spec.partition(":")
    data = _load(name, rest, spec, config)
    if not data.dialogues:
        reasons = "; ".join(f"{n} {why}" for why, n in data.dropped.items())
        raise DataError(
            f"{spec}: no dialogues to learn from{f' ({reasons})' if reasons else ''}",
            "hold calls whose person lets them be learned from" if name == "store" else "",
        )
    return replace(data, source=spec, dialogues=tuple(with_sentiment(data.dialogues)))


def _load(name: str, rest: str, spec: str, config: Config) -> Dataset:
    match name:
        case "store" if rest in ("", "simulated"):
            from learning.data import store as sessions

            return sessions.load(config, simulated=rest == "simulated")
        case "candor" if rest:
            from learning.data import candor

            place, _, affect = rest.partition(",affect=")
            directory, at, transcript = place.rpartition("@")
            if not (at and transcript in ("audiophile", "backbiter", "cliffhanger")):
                directory, transcript = place, "backbiter"
            return candor.load(
                Path(directory).expanduser(),
                transcript,  # type: ignore[arg-type]
                affect=affect or None,
                labels=config.labels,
            )
        case "chitchat" if rest in ("", "all"):
            from learning.data import chitchat

            return chitchat.load(config.models, everything=rest == "all")
        case "simulated":
            from learning.data import simulated

            seed, _, n = rest.partition(":")
            if seed.isdecimal() and (not n or n.isdecimal()):
                return simulated.load(int(seed), int(n)) if n else simulated.load(int(seed))
    raise DataError(f"no source {spec!r}", "one of " + ", ".join(SOURCES))
