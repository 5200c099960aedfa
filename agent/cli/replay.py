"""`geli replay`: a recorded user side through the same pipeline into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.cli.options import configured


@click.command()
@click.option(
    "--audio",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the user's speech: any sound or video file",
)
@click.option(
    "--video",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the user's face, in step with the sound",
)
@click.option(
    "--rating", type=click.FloatRange(0, 100), metavar="0-100", help="overall affect of the call"
)
@click.option("--comment", help="a comment beside the rating")
@click.option(
    "--consent",
    type=click.Choice(["talk_only", "keep", "learn"]),
    default="keep",
    show_default=True,
    help="what may be stored of it",
)
@click.option(
    "--speed",
    type=click.Choice(["real", "fast"]),
    default="fast",
    show_default=True,
    help="real: as it was spoken; fast: as fast as the engines go",
)
@click.option("--seed", type=int, default=0, show_default=True, help="of the policy's sampling")
@click.option("--dry-run", is_flag=True, help="store nothing")
@click.option("--json", "as_json", is_flag=True, help="print the session record as one object")
@configured
def command(
    config: Any,
    audio: Path,
    video: Path | None,
    rating: float | None,
    comment: str | None,
    consent: str,
    speed: Any,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a recorded user side through the same pipeline as a live call.

    The recording starts when the greeting is over. Prints what was said and how it was taken.
    """
    import asyncio
    from datetime import UTC, datetime

    from rich.console import Console

    from agent import log, weights
    from agent.cli.progress import bar
    from agent.cli.transcript import print_session
    from agent.engines import table
    from agent.host import Host
    from agent.records import Consent, Session
    from agent.replay import Recording, replay
    from agent.rollout import Rollout
    from agent.store import Store

    log.configure_terminal(config.logging)
    recording = Recording.read(audio, video)
    table.check(config)
    weights.ensure_all(config)
    store = None if dry_run else Store.open(config.store.url, journal_mb=config.store.journal_mb)
    if store is not None:
        store.close_crashed(config.labels)
    host = Host(config, store, rollout=Rollout.following(config, strict=True))
    console = Console(stderr=True)

    async def hold() -> Session:
        with console.status("loading the engines"):
            await host.start()
        try:
            with bar("replaying", recording.duration_s, console) as advance:
                return await replay(
                    host,
                    recording,
                    consent=Consent(consent),
                    speed=speed,
                    seed=seed,
                    progress=lambda done_s, whole_s: advance(done_s),
                )
        finally:
            await host.close()

    try:
        session = asyncio.run(hold())
        if rating is not None:
            session.overall_affect = rating
            session.overall_affect_at = datetime.now(UTC)
            session.overall_affect_source = "replay"
            session.comment = comment
            if store is not None and consent != "talk_only":
                store.rate(session.id, rating, "replay", comment=comment)
    finally:
        if store is not None:
            store.close()
    if as_json:
        click.echo(session.model_dump_json(indent=2))
    else:
        print_session(session)
