"""`geli review`."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("session_id", metavar="[ID]", required=False)
@click.option(
    "--config",
    "config_name",
    default="cpu",
    metavar="PROFILE|FILE",
    help="cpu, gpu, paper, or a TOML file (default: cpu)",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="override one setting")
@click.option("--by", metavar="NAME", help="who corrects (default: the user of this terminal)")
def command(
    session_id: str | None, config_name: str, overrides: tuple[str, ...], by: str | None
) -> None:
    """Review sessions and policies in the terminal; with an ID, that session first."""
    from agent import config
    from agent.store import Store
    from learning.registry import Registry

    chosen = config.load(config_name, overrides)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("a terminal is needed; for programs: geli sessions … --json")
    with Store.open(chosen.store.url) as store:
        for closed in store.close_crashed(chosen.labels):
            click.echo(f"{closed} was cut off by a crash and is closed now", err=True)
        first = store.resolve(session_id) if session_id else None
        from tui.app import Review

        arguments = ["--config", config_name]
        for override in overrides:
            arguments += ["--set", override]
        Review(store, Registry.open(), chosen, arguments, by, first).run()
