"""The `geli` command. Each subcommand lives in its own file and is imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from agent import __version__
from agent.errors import GeliError

ELSEWHERE = {"learn": "learning.cli", "review": "tui.cli"}
"""Commands that other packages bring, by module: `agent` imports none of them."""

COMMANDS = {
    "call": "serve the page and hold calls in the browser",
    "talk": "hold a call with the local microphone and camera",
    "replay": "run a recorded user side through the same pipeline",
    "perceive": "read the facial affect of a video file",
    "sessions": "list, show, correct, export, import and delete sessions",
    "tokens": "let single people in, each with a token and an end",
    "review": "review sessions and policies in the terminal",
    "models": "pull, list and verify model weights",
    "learn": "train rewards and policies from sessions, compare and promote them",
    "bench": "measure calls on this machine",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = ELSEWHERE.get(name, f"agent.cli.{name}")
        command: click.Command = importlib.import_module(module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geli")
def cli() -> None:
    """A video-call partner that learns from how its calls feel."""


def main() -> None:
    """Run `geli`; a user's mistake is one line on stderr and exit code 2."""
    try:
        # With standalone_mode=False click returns the code of an Exit instead of leaving with it.
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except GeliError as error:
        click.echo(f"geli: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        context: click.Context | None = getattr(error, "ctx", None)
        hint = f" — see '{context.command_path} --help'" if context is not None else ""
        click.echo(f"geli: {error.format_message()}{hint}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
