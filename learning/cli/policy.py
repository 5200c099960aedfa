"""`geli learn policy`: LoRA and reinforcement learning against a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured
from learning.launch import processes_option
from learning.processes import first

if TYPE_CHECKING:
    from agent.config import Config
    from learning.policy.train import Outcome


@click.command()
@click.option("--data", "source", default="store", show_default=True, help="see 'geli learn data'")
@click.option("--reward", metavar="ID|FOLDER", help="see 'geli learn reward'")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the run")
@click.option("--resume", is_flag=True, help="go on from the folder's checkpoint")
@click.option("--parent", type=click.Path(path_type=Path), help="adapter to go on from")
@click.option("--updates", type=click.IntRange(1), help="batches of replies [policy.updates]")
@click.option("--seed", type=int, help="[policy.seed]")
@click.option("--memory", metavar="MODEL|FOLDER", help="only say what it would hold and take")
@processes_option
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config,
    source: str,
    reward: str | None,
    out: Path | None,
    resume: bool,
    parent: Path | None,
    updates: int | None,
    seed: int | None,
    memory: str | None,
    as_json: bool,
) -> None:
    """Adapt the policy as `[policy]` says; curves and the adapter go into --out.

    \b
    Several GPUs: --processes 4, or on several machines and in shards
    accelerate launch --config_file configs/accelerate/fsdp.yaml -m agent.cli learn policy …
    Memory: geli learn policy --memory llama-2-7b --set policy.precision=bfloat16
    """
    given = {k: v for k, v in (("updates", updates), ("seed", seed)) if v is not None}
    config = config.model_copy(update={"policy": config.policy.model_copy(update=given)})
    if memory is not None:
        from learning.cli.policy_cost import tell

        if first():
            tell(memory, config, as_json)
        return
    for name, value in (("--reward", reward), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    assert reward is not None and out is not None
    outcome = _train(config, source, reward, out, resume, parent)
    if not first():
        return
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(outcome) | {"adapter": str(outcome.adapter)}, indent=2))
    else:
        _say(outcome)


def _train(
    config: Config, source: str, reward: str, out: Path, resume: bool, parent: Path | None
) -> Outcome:
    from rich.console import Console

    from agent.cli.progress import bar
    from learning.data import load as load_data
    from learning.policy.train import train
    from learning.reward import load as load_reward

    scorer = load_reward(reward, config)
    data = load_data(source, config)
    console = Console(stderr=True, quiet=not first())
    with bar("updates", config.policy.updates, console) as progress:
        return train(
            data.dialogues,
            scorer,
            config,
            out,
            resume=resume,
            parent=parent,
            on_update=progress,
        )


def _say(outcome: Outcome) -> None:
    m = outcome.metrics
    click.echo(f"{outcome.updates} updates; the adapter is in {outcome.adapter}")
    for key, unit in (
        ("reward", "points"),
        ("kl", "nats a reply"),
        ("entropy", "nats a token"),
        ("words", "a reply"),
        ("repetition", "of 3-grams"),
        ("distinct_2", ""),
    ):
        if f"{key}_first" in m:
            first, last = m[f"{key}_first"], m[f"{key}_last"]
            click.echo(f"{key:11} {first:8.3f} → {last:8.3f}  {unit}".rstrip())
    if outcome.stopped:
        click.echo(f"stopped: {outcome.stopped}")
