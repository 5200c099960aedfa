"""`geli learn round`: from rated sessions to the next policy."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from learning.rounds import Round


@click.command()
@click.option("--data", "source", default="store", show_default=True, help="see 'geli learn data'")
@click.option(
    "--promote",
    type=click.Choice(["ask", "auto"]),
    default="ask",
    show_default=True,
    help="ask here (without a terminal: leave it the candidate), or promote what passed",
)
@click.option("--dry-run", is_flag=True, help="say what a round would do, do nothing")
@click.option("--new", is_flag=True, help="begin anew even where a round was left unfinished")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config,
    source: str,
    promote: str,
    dry_run: bool,
    new: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Snapshot, reward, gates, policy, gates, candidate; promotion where you say so.

    A killed round goes on where it was.
    """
    from learning import rounds
    from learning.registry import Registry

    home = rounds.rounds_folder()
    left = None if new else rounds.unfinished(home)
    if dry_run:
        _dry_run(config, source, left, as_json)
        return
    if left is not None:
        click.echo(f"going on with {left.folder}", err=True)
    this = left or rounds.begin(home, source, seed)
    this = _run(this, config)
    registry = Registry.open()
    promoted = this.ended == "candidate" and _promoted(this, registry, promote)
    if as_json:
        content = {k: getattr(this, k) for k in this.__slots__ if k != "folder"}
        click.echo(json.dumps(content | {"folder": str(this.folder), "promoted": promoted}))
        return
    for line in _lines(this, promoted):
        click.echo(line)


def _dry_run(config: Config, source: str, left: Round | None, as_json: bool) -> None:
    from learning import rounds
    from learning.data import load
    from learning.registry import Registry

    registry = Registry.open()
    steps = rounds.plan(load(source, config), config, rounds.current_name(registry))
    if left is not None:
        done = [s for s, at in (("reward", left.reward), ("policy", left.policy)) if at]
        steps.insert(0, f"would go on with {left.folder}, done: {', '.join(done) or 'nothing'}")
    click.echo(json.dumps(steps, indent=2, ensure_ascii=False) if as_json else "\n".join(steps))


def _run(this: Round, config: Config) -> Round:
    from rich.console import Console

    from agent.cli.progress import bar
    from learning import rounds

    console = Console(stderr=True)
    state: dict[str, Any] = {"step": "", "done": 0.0}
    with bar("round", len(rounds.STEPS) - 1, console) as progress:

        def on_progress(step: str, done: float, whole: float) -> None:
            place = {"reward": 0, "policy": 1, "gates": 2}[step]
            if state["step"] != step and not console.is_terminal:
                click.echo(f"{step} …", err=True)
            state["step"] = step
            progress(place + done / max(whole, 1))

        return rounds.run(this, config, on_progress)


def _promoted(this: Round, registry: Any, promote: str) -> bool:
    assert this.policy is not None
    wanted = promote == "auto"
    if promote == "ask" and sys.stdin.isatty():
        wanted = click.confirm(f"promote {this.policy}? the next call would speak with it")
    if wanted:
        registry.promote(this.policy, by="geli learn round")
    return wanted


def _lines(this: Round, promoted: bool) -> list[str]:
    lines = [f"round      {this.folder}", f"sessions   {len(this.sessions)}, digest {this.digest}"]
    for what in ("reward", "policy"):
        if (found := getattr(this, what)) is None:
            continue
        lines.append(f"{what:10} {found}")
        for gate in getattr(this, f"{what}_gates"):
            sign = "passed" if gate["passed"] else "FAILED"
            value = "unknown" if gate["value"] is None else f"{gate['value']:.4g}"
            lines.append(
                f"  {sign}   {gate['name']:18} {value} "
                f"(wanted {gate['comparison']} {gate['threshold']:.4g})"
            )
    if this.ended == "candidate":
        speaks = "promoted: the next call speaks with it" if promoted else "candidate"
        lines.append(f"ended      {this.policy} is {speaks}")
        if not promoted:
            lines.append(f"           geli learn policies promote {this.policy}")
    else:
        lines.append(f"ended      {this.ended}; the policy that spoke before still speaks")
    return lines
