"""`geli learn reward`: one reward function, trained and kept."""

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
    from learning.splits import By


@click.command()
@click.option("--data", "source", default="store", show_default=True, help="see 'geli learn data'")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the run [reward-SOURCE]")
@click.option(
    "--split",
    "by",
    type=click.Choice(["conversation", "person"]),
    default="conversation",
    show_default=True,
)
@click.option("--keep/--no-keep", default=True, show_default=True, help="add it to the registry")
@processes_option
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config, source: str, out: Path | None, by: By, keep: bool, as_json: bool
) -> None:
    """Train r_θ as `[reward]` says, measure it on held-out sessions, keep it.

    A killed run goes on from its checkpoint; another method or K: --set reward.method=ircr …
    """
    from rich.console import Console

    from agent.cli.progress import bar
    from agent.weights import cache_dir
    from learning import rewarding
    from learning.data import load
    from learning.turns import RESEARCH

    data = load(source, config)
    folder = out or Path(f"reward-{source.replace(':', '-').replace('/', '-')}")
    kept = source.partition(":")[0] in RESEARCH
    cache = cache_dir(config.models) / "features" if kept else None
    console = Console(stderr=True, quiet=not first())
    with bar("training", config.reward.epochs, console) as progress:

        def on_progress(what: str, done: float, whole: float) -> None:
            progress(config.reward.epochs * done / whole if what == "training" else 0)

        made = rewarding.make(data, config, folder, by, cache, on_progress)
    if not first():
        return
    manifest = rewarding.keep(made, config, folder) if keep else None
    if as_json:
        content = {"id": manifest.id if manifest else None, "folder": str(folder)} | made.metrics
        click.echo(json.dumps(content, indent=2))
        return
    m = made.metrics
    click.echo(
        f"{m['sessions']:.0f} held-out sessions: MSE {m['mse']:.1f}, Mean's {m['mse_mean']:.1f}, "
        f"ratio {m['mse_ratio']:.3f} [{m['mse_ratio_low']:.3f}, {m['mse_ratio_high']:.3f}]"
    )
    if "delta" in m:
        click.echo(f"Δr̂_LI {m['delta']:.4f} [{m['delta_low']:.4f}, {m['delta_high']:.4f}]")
    click.echo(f"kept as {manifest.id}" if manifest else f"written to {folder}")
