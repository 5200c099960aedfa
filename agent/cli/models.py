"""`geli models`: the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.artefacts import Artefact
    from agent.config import Config

ASK_ABOVE = 1_000_000_000
"""Bytes above which `pull` asks first."""


@click.group()
def command() -> None:
    """Pull, list and verify model weights."""


def _profiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--profile", help="cpu, gpu or paper (short for --config)")(function)


@command.command("list")
@_profiled
@click.option("--json", "as_json", is_flag=True, help="print a JSON array")
@configured
def list_(config: Config, profile: str | None, as_json: bool) -> None:
    """What there is, what this configuration needs, what is here."""
    from agent import weights

    config = _config(config, profile)
    used = weights.needed(config)
    own = [name for name in config.models.paths if name not in weights.ARTEFACTS]
    for name in used:
        weights.known(name, config.models)
    rows = [
        {
            "name": name,
            "role": artefact.role if artefact else "your own",
            "bytes": artefact.size if artefact else None,
            "licence": artefact.licence if artefact else None,
            "source": _source(name, artefact, config),
            "needed": name in used,
            "present": weights.present(name, config.models),
            "note": artefact.note if artefact else "",
        }
        for name in [*weights.ARTEFACTS, *own]
        for artefact in [weights.ARTEFACTS.get(name)]
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows, str(weights.cache_dir(config.models)))


@command.command()
@click.argument("names", nargs=-1)
@_profiled
@click.option("--yes", is_flag=True, help="do not ask before a large download")
@configured
def pull(config: Config, names: tuple[str, ...], profile: str | None, yes: bool) -> None:
    """Fetch weights: those NAMED, else all that the configuration needs."""
    from agent import weights
    from agent.errors import WeightsError

    config = _config(config, profile)
    wanted = list(dict.fromkeys(names)) or weights.needed(config)
    known = [weights.known(name, config.models) for name in wanted]
    missing = [a for a in known if a is not None and not weights.present(a.name, config.models)]
    whole = sum(artefact.size for artefact in missing if artefact.sources)
    if missing and (whole > ASK_ABOVE or config.profile in ("gpu", "paper")):
        _announce(missing, whole)
        if whole and not yes:
            _confirm()
    failed: list[str] = []
    for name in wanted:
        try:
            click.echo(f"{name}: {weights.ensure(name, config.models)}")
        except WeightsError as error:
            failed.append(name)
            click.echo(f"{name}: {error}", err=True)
    if failed:
        raise WeightsError(f"{len(failed)} of {len(wanted)} not there: {', '.join(failed)}")


@command.command()
@click.argument("names", nargs=-1)
@_profiled
@click.option("--json", "as_json", is_flag=True, help="print a JSON object: name to problems")
@configured
def verify(config: Config, names: tuple[str, ...], profile: str | None, as_json: bool) -> None:
    """Read weights again and compare their digests; exit code 2 when one differs.

    Those NAMED, else all that are here."""
    from agent import weights
    from agent.errors import WeightsError

    config = _config(config, profile)
    every = list(dict.fromkeys([*weights.ARTEFACTS, *config.models.paths]))
    chosen = list(dict.fromkeys(names)) or [
        name for name in every if weights.present(name, config.models)
    ]
    if profile and not names:
        chosen = weights.needed(config)
    for name in chosen:
        weights.known(name, config.models)
    problems = {name: weights.verify(name, config.models) for name in chosen}
    if as_json:
        click.echo(json.dumps(problems, indent=2))
    else:
        for name, said in problems.items():
            click.echo(f"{name}: {'; '.join(said) if said else 'as it should be'}")
    if wrong := [name for name, said in problems.items() if said]:
        raise WeightsError(
            f"{len(wrong)} of {len(problems)} are not as they should be: {', '.join(wrong)}",
            f"delete the files named above, then `geli models pull {' '.join(wrong)}`",
        )


def _config(config: Config, profile: str | None) -> Config:
    """The packaged profile of that name, else what `--config` said."""
    from agent.config import load, profiles
    from agent.errors import ConfigError

    if profile is None:
        return config
    if profile not in profiles():
        raise ConfigError(f"no profile {profile!r}", f"one of {', '.join(profiles())}")
    models = load(profile).models
    return load(profile).model_copy(
        update={
            "models": models.model_copy(
                update={
                    "cache": config.models.cache or models.cache,
                    "paths": models.paths | config.models.paths,
                }
            )
        }
    )


def _announce(missing: list[Artefact], whole: int) -> None:
    from agent.fetch import mega

    click.echo("this would download:", err=True)
    for artefact in missing:
        if artefact.sources:
            line = f"{mega(artefact.size):>9}  {artefact.sources[0]}  ({artefact.licence})"
        else:
            line = f"{'by hand':>9}  {artefact.note}"
        click.echo(f"  {artefact.name:23} {line}", err=True)
    click.echo(f"  {'together':23} {mega(whole):>9}", err=True)


def _confirm() -> None:
    from agent.errors import WeightsError

    try:
        agreed = click.confirm("go on?", default=False, err=True)
    except click.Abort:
        click.echo(err=True)
        raise WeightsError("nobody agreed, so nothing was downloaded", "give --yes") from None
    if not agreed:
        click.echo("nothing was downloaded", err=True)
        raise click.exceptions.Exit(1)


def _source(name: str, artefact: Artefact | None, config: Config) -> str:
    if name in config.models.paths:
        return f"path {config.models.paths[name]}"
    if artefact is None or not artefact.sources:
        return "by hand"
    return ", else ".join(str(source) for source in artefact.sources)


def _print_table(rows: list[dict[str, Any]], cache: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from agent.fetch import mega

    table = Table(box=None, pad_edge=False)
    for column in ("name", "size", "needed", "here", "role", "source", "licence"):
        table.add_column(column, no_wrap=True, justify="right" if column == "size" else "default")
    for row in rows:
        table.add_row(
            row["name"],
            mega(row["bytes"]) if row["bytes"] else "",
            "yes" if row["needed"] else "",
            "yes" if row["present"] else "no",
            row["role"],
            row["source"],
            row["licence"] or "",
        )
    # One line an artefact, however long: a terminal wraps it, and grep finds it.
    Console(width=400).print(table, highlight=False)
    click.echo(f"cache: {cache}")
