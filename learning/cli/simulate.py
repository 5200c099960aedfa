"""`geli learn simulate`: the closed loop with simulated users, before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config


@click.command()
@click.option("--users", type=click.IntRange(1), default=200, show_default=True)
@click.option("--judges", type=click.IntRange(2), default=100, show_default=True)
@click.option(
    "--turns", type=click.IntRange(1), default=6, show_default=True, help="replies a call"
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("closed-loop"), show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config,
    users: int,
    judges: int,
    turns: int,
    rounds: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Simulated people call the policy, a round learns, fresh people judge both.

    Everything lies in --out, with a store and a registry of its own; a killed study goes on.
    """
    from learning import closed_loop

    loop = closed_loop.Loop(users, judges, turns, rounds, seed)
    result = closed_loop.run(loop, config, out, lambda what, *_: click.echo(f"{what} …", err=True))
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo("\n".join(closed_loop.lines(result)))
