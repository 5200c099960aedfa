"""`geli perceive`: read the facial affect of a video file, exactly as a call would."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured
from agent.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from agent.config import Config
    from perception.clip import ClipResult
    from perception.windows import Window

STRIP = 24
"""Characters of the P(positive) bar."""


@click.command("perceive")
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@configured
def command(clip: Path, as_json: bool, config: Config) -> None:
    """Read the facial affect of CLIP, a video file, in sliding windows.

    The windows are those of a call: positive, not positive, or unknown where no face was seen.
    """
    result = _perceive(clip, config)
    classifier = config.perception.classifier_model
    if as_json:
        click.echo(json.dumps(as_record(clip, classifier, result)))
    else:
        click.echo(as_table(clip, classifier, result))


def _perceive(clip: Path, config: Config) -> ClipResult:
    from rich.console import Console
    from rich.progress import Progress

    from agent import weights
    from perception.clip import perceive_clip
    from perception.errors import PerceptionError
    from perception.reading import open_engines
    from perception.settings import Settings

    if not clip.is_file():
        raise MediaError(f"{clip}: no such file", "name a video file")
    settings = Settings(**config.perception.model_dump())
    detector = weights.ensure(settings.detector_model, config.models)
    classifier = weights.ensure(settings.classifier_model, config.models)
    try:
        engines = open_engines(settings, detector, classifier)
    except PerceptionError as error:
        raise ConfigError(str(error), "see [perception] in the config") from None
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(clip.name, total=None)
        try:
            return perceive_clip(
                clip,
                settings,
                engines,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except PerceptionError as error:
            raise MediaError(str(error), "any video file that FFmpeg reads will do") from None
        finally:
            engines.close()


def as_record(clip: Path, classifier: str, result: ClipResult) -> dict[str, Any]:
    """What `--json` prints; the windows have the fields of `agent.records.AffectWindow`."""
    return {
        "file": str(clip),
        "duration_s": round(result.duration_s, 3),
        "fps": round(result.fps, 3),
        "frames": result.frames,
        "frames_analysed": result.frames_analysed,
        "frames_with_face": result.frames_with_face,
        "classifier": classifier,
        "windows": [{**_rounded(window), "classifier": classifier} for window in result.windows],
    }


def as_table(clip: Path, classifier: str, result: ClipResult) -> str:
    """One line a window, with a bar of P(positive)."""
    lines = [
        f"{clip}: {result.duration_s:.1f} s, {result.frames_analysed} frames analysed, "
        f"{result.frames_with_face} with a face, classifier {classifier}",
        "window  seconds        coverage  label         P(positive)",
    ]
    lines += [_line(window) for window in result.windows]
    lines.append(f"strip   {strip(result.windows)}   (+ positive, - not, ? no face)")
    return "\n".join(lines)


def strip(windows: list[Window]) -> str:
    """One character a window: `+` positive, `-` not positive, `?` unknown."""
    return "".join({True: "+", False: "-", None: "?"}[window.positive] for window in windows)


def _line(window: Window) -> str:
    from perception.affect import positive_probability

    label = {True: "positive", False: "not positive", None: "unknown"}[window.positive]
    span = f"{window.start_s:6.1f}-{window.end_s:<6.1f}"
    line = f"{window.index:>6}  {span}  {window.coverage:>7.0%}  {label:<12}"
    if window.probabilities is None:
        return line.rstrip()
    positive = positive_probability(window.probabilities)
    return f"{line}  {positive:.2f} {'█' * round(positive * STRIP)}".rstrip()


def _rounded(window: Window) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        return value

    return {key: short(value) for key, value in dataclasses.asdict(window).items()}
