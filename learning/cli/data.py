"""`geli learn data`: what a source holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from learning.dialogue import Summary


@click.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(config: Config, source: str, as_json: bool) -> None:
    """Counts, lengths, ratings and label coverage of SOURCE.

    SOURCE is store, candor:DIR, chitchat or simulated:SEED.
    """
    from learning.data import load
    from learning.dialogue import summarise

    summary = summarise(load(source, config))
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(summary)))


def _lines(s: Summary) -> list[str]:
    least, lower, middle, upper, most = s.length_quantiles
    share = s.labelled_turns / max(s.scored_turns, 1)
    positive = s.positive_turns / max(s.labelled_turns, 1)
    lines = [
        f"{s.source}  digest {s.digest}",
        f"dialogues   {s.dialogues}, rated {s.rated}, people {s.people or 'not known'}",
        f"turns       {s.turns}, scored {s.scored_turns}; a dialogue {least} to {most}, "
        f"quartiles {lower} · {middle} · {upper}",
        f"labels      {share:.0%} of scored turns, {positive:.0%} of these positive",
        f"            from {s.li_source}",
    ]
    if s.rating_mean is not None:
        spread = f", sd {s.rating_sd:.1f}" if s.rating_sd is not None else ""
        lines.append(f"ratings     mean {s.rating_mean:.1f}{spread} (0–100)")
        most_rated = max(s.rating_histogram)
        for i, n in enumerate(s.rating_histogram):
            bar = "█" * round(30 * n / most_rated)
            lines.append(f"  {10 * i:3d}–{10 * i + 10:<3d} {n:5d} {bar}")
    lines += [f"left out    {n} {why}" for why, n in s.dropped.items()]
    lines += [f"note        {note}" for note in s.notes]
    return lines
