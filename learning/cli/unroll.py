"""`geli learn unroll`: the reward of each turn of one dialogue."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured
from agent.cli.transcript import printable

if TYPE_CHECKING:
    from agent.config import Config
    from learning.dialogue import Dialogue


@click.command()
@click.argument("session")
@click.option("--reward", required=True, metavar="ID|DIR", help="of the registry, or a folder")
@click.option("--data", "source", default="store", show_default=True, help="where SESSION is")
@click.option("--png", type=click.Path(path_type=Path), help="also as a picture")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config, session: str, reward: str, source: str, png: Path | None, as_json: bool
) -> None:
    """What r_θ gives each turn of SESSION, mean removed (the paper's Fig. 2)."""
    from learning.reward import load
    from learning.unroll import Unrolled, lines, picture

    dialogue = _find(session, source, config)
    model = load(reward, config)
    unrolled = Unrolled(dialogue, model.unroll(dialogue))
    if png is not None:
        picture(unrolled, png)
    if as_json:
        turns = [
            {"turn": index, "reward": float(value), "centred": float(centred)}
            for index, value, centred in zip(
                dialogue.scored, unrolled.rewards, unrolled.centred, strict=True
            )
        ]
        content = {
            "session": dialogue.id,
            "reward": model.id,
            "rating": dialogue.rating,
            "predicted": unrolled.predicted,
            "turns": turns,
        }
        click.echo(json.dumps(content, indent=2))
        return
    for line in lines(unrolled, shutil.get_terminal_size((100, 24)).columns):
        click.echo(printable(line))


def _find(session: str, source: str, config: Config) -> Dialogue:
    if source in ("store", "store:simulated"):
        from learning.data.store import load_one

        return load_one(config, session)
    from learning.data import load
    from learning.errors import DataError

    data = load(source, config)
    ids = [d.id for d in data.dialogues]
    found = [d for d in data.dialogues if d.id == session] or [
        d for d in data.dialogues if d.id.startswith(session)
    ]
    if len(found) != 1:
        close = difflib.get_close_matches(session, ids, n=3, cutoff=0.3) or ids[:3]
        what = "no session" if not found else f"{len(found)} sessions begin with"
        raise DataError(f"{source}: {what} {session!r}", f"for example {', '.join(close)}")
    return found[0]
