"""`geli learn table`: the paper's Table 3 on a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from learning.splits import By


@click.command()
@click.option("--data", "source", required=True, metavar="SOURCE", help="see 'geli learn data'")
@click.option(
    "--methods",
    default="all",
    show_default=True,
    metavar="LIST",
    help="rows, by commas: mean mode ridge ircr rudder rrd rrdK full va ls rrd+va rudder+ls …",
)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--split",
    "by",
    type=click.Choice(["conversation", "person"]),
    default="conversation",
    show_default=True,
    help="what stays on one side of a split",
)
@click.option("--out", type=click.Path(path_type=Path), help="folder of the results [table-SOURCE]")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config,
    source: str,
    methods: str,
    seeds: int,
    by: By,
    out: Path | None,
    processes: int,
    as_json: bool,
) -> None:
    """Every decomposition and shaping, measured on held-out sessions.

    Writes table.md, table.csv, table.json and table.png. A killed run goes on where it was.
    """
    from rich.console import Console

    from agent.cli.progress import bar
    from agent.weights import cache_dir
    from learning import table as tables
    from learning import table_output
    from learning.data import load
    from learning.encoder import Encoder
    from learning.turns import RESEARCH, turns_of

    console = Console(stderr=True)
    wanted = tables.ALL if methods == "all" else tuple(m.strip() for m in methods.split(","))
    for method in wanted:
        if method != "ridge":
            tables.settings_of(method, config.reward, 0)
    data = load(source, config)
    tables.check(data, wanted, config.reward)
    folder = out or Path(f"table-{source.replace(':', '-').replace('/', '-')}")
    encoder = Encoder(config.reward.encoder, config.models, config.reward.device)
    kept = source.partition(":")[0] in RESEARCH
    cache = cache_dir(config.models) / "features" if kept else None
    distinct = len({turn.text for d in data.dialogues for turn in d.turns})
    with bar(f"reading {distinct} utterances", distinct, console) as progress:
        turns = turns_of(data.dialogues, encoder, config.reward, cache, progress)
    del encoder
    with bar(f"{len(wanted)} rows, {seeds} seeds", len(wanted) * seeds, console) as progress:
        table = tables.build(
            data,
            turns,
            config.reward,
            wanted,
            range(seeds),
            by,
            folder,
            processes,
            progress,
        )
    table_output.write(table, folder)
    if as_json:
        click.echo(json.dumps(table_output.as_json(table), indent=2, ensure_ascii=False))
    else:
        click.echo(table_output.markdown(table))
        click.echo(f"written to {folder}/table.{{md,csv,json,png}}", err=True)
