"""`geli talk`: a call with the local microphone, speaker and webcam, captions in the terminal."""

from __future__ import annotations

from typing import Any

import click

from agent.cli.options import configured

CONSENT = {
    "1": ("talk_only", "just talk: nothing is kept but a count"),
    "2": ("keep", "keep the transcript and affect labels, never sound or pictures"),
    "3": ("learn", "keep them, and let the agent learn from this call"),
}


@click.command()
@click.option(
    "--consent",
    type=click.Choice(["talk_only", "keep", "learn"]),
    help="what may be kept (asked when not given)",
)
@click.option(
    "--headphones",
    is_flag=True,
    help="you wear headphones: the microphone stays open and you can interrupt",
)
@click.option("--microphone", metavar="NAME|N", help="input device")
@click.option("--speaker", metavar="NAME|N", help="output device")
@click.option("--camera", type=int, metavar="N", help="camera number (default: 0 if there is one)")
@click.option("--no-camera", is_flag=True, help="sound only: labels stay unknown")
@configured
def command(
    config: Any,
    consent: str | None,
    headphones: bool,
    microphone: str | None,
    speaker: str | None,
    camera: int | None,
    no_camera: bool,
) -> None:
    """Hold a call with the local microphone and camera. Ctrl-C hangs up."""
    import asyncio
    import signal

    from rich.console import Console

    from agent import log, weights
    from agent.cli.captions import Captions
    from agent.engines import table
    from agent.errors import MediaError
    from agent.host import Host
    from agent.records import Consent, Session
    from agent.rollout import Rollout
    from agent.store import Store
    from agent.talk import SoundCard, Webcam, check_devices

    log.configure_terminal(config.logging)
    console = Console()
    devices = check_devices(microphone, speaker)
    agreed = consent or _ask_consent(console)
    webcam = None
    if config.perception.enabled and not no_camera and agreed != "talk_only":
        try:
            webcam = Webcam(camera or 0)
        except MediaError as error:
            if camera is not None:
                raise
            console.print(f"[yellow]{error}[/]\nGoing on without: labels stay unknown.")
    table.check(config)
    weights.ensure_all(config)
    store = Store.open(config.store.url, journal_mb=config.store.journal_mb)
    store.close_crashed(config.labels)
    host = Host(config, store, rollout=Rollout.following(config, strict=True))
    session = Session(consent=Consent(agreed), source="talk")
    captions = Captions(console)

    async def hold() -> Any:
        with console.status("loading the engines"):
            await host.start()
        call = host.new_call(session, captions.on_event)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, call.hang_up)
        console.print("[dim]Speak when you like. Ctrl-C hangs up.[/]")
        card = SoundCard(call, *devices, headphones=headphones)
        with card.running():
            if webcam is not None:
                webcam.start(call)
            await call.run()
        return call.log

    try:
        try:
            kept = asyncio.run(_closing(hold(), host))
        finally:
            if webcam is not None:
                webcam.close()
        if agreed != "talk_only":
            _ask_rating(console, kept)
    finally:
        store.close()


async def _closing(work: Any, host: Any) -> Any:
    try:
        return await work
    finally:
        await host.close()


def _ask_consent(console: Any) -> str:
    import sys

    if not sys.stdin.isatty():
        raise click.UsageError("--consent is needed when nobody can be asked")
    for key, (_, words) in CONSENT.items():
        console.print(f"  {key}  {words}")
    choice = click.prompt("What may be kept of this call?", type=click.Choice(list(CONSENT)))
    return CONSENT[choice][0]


def _ask_rating(console: Any, log: Any) -> None:
    """The paper's question; an empty answer skips it."""
    import sys

    from agent.errors import StoreError
    from agent.records import OVERALL_AFFECT_QUESTION

    if not sys.stdin.isatty():
        console.print(f"rate it later: geli sessions rate {log.id} 0-100")
        return
    console.print(f"\n{OVERALL_AFFECT_QUESTION}")
    while True:
        answer = click.prompt(
            "0 (very negative) to 100 (very positive), Enter to skip",
            default="",
            show_default=False,
        )
        if not answer.strip():
            return
        try:
            value = float(answer)
        except ValueError:
            value = -1.0
        if 0 <= value <= 100:
            try:
                log.rate(value, "terminal")
            except StoreError as error:
                if not log.safe:
                    raise
                console.print(f"[yellow]{error.problem}[/]\nYour rating waits on this machine.")
            console.print("Thank you.")
            return
        console.print("A number from 0 to 100, please.")
