"""Options that every command shares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and `--set`; the function gets `config`, a checked `agent.config.Config`."""

    @click.option(
        "--config",
        "config_name",
        default="cpu",
        metavar="PROFILE|FILE",
        help="cpu, gpu, paper, or a TOML file (default: cpu)",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="override one setting, e.g. server.port=8000",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, config_name: str, overrides: tuple[str, ...], **kwargs: Any) -> Any:
        from agent import config

        return function(*args, config=config.load(config_name, overrides), **kwargs)

    return wrapper
