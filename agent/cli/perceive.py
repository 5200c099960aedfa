"""`geli perceive`: read the facial affect of a video file, exactly as a call would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured
from agent.errors import MediaError

if TYPE_CHECKING:
    from agent.config import Config
    from perception.clip import ClipResult
    from perception.windows import Window

BAR = 24
"""Characters of the P(positive) bar."""


@click.command("perceive")
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@configured
def command(clip: Path, as_json: bool, config: Config) -> None:
    """Read the facial affect of CLIP, a video file, in sliding windows.

    The windows are those of a call: positive, not positive, or unknown where no face was seen.
    """
    result, classifier = _perceive(clip, config)
    if as_json:
        click.echo(json.dumps(as_record(clip, classifier, result)))
    else:
        click.echo(as_table(clip, classifier, result))


def _perceive(clip: Path, config: Config) -> tuple[ClipResult, str]:
    """What the clip showed, and the id of the classifier that says so."""
    from rich.console import Console

    from agent.affect import ListenerModels, settings_of
    from agent.cli.progress import bar
    from perception.clip import open_video, perceive_clip
    from perception.errors import PerceptionError

    way_out = "any video file that FFmpeg reads will do"
    try:
        with open_video(clip) as (container, _):  # before models are fetched and loaded
            whole_s = (container.duration or 0) / 1e6
    except PerceptionError as error:
        raise MediaError(str(error), way_out) from None
    models = ListenerModels.load(config)
    try:
        with bar(clip.name, whole_s, Console(stderr=True)) as update:
            result = perceive_clip(
                clip,
                models.detector,
                models.classifier,
                settings_of(config),
                progress=lambda done_s, _: update(done_s),
            )
    except PerceptionError as error:
        raise MediaError(str(error), way_out) from None
    finally:
        models.close()
    return result, models.classifier_id


def as_record(clip: Path, classifier: str, result: ClipResult) -> dict[str, Any]:
    """What `--json` prints; the windows are `agent.records.AffectWindow`s."""
    from agent.affect import record_of

    return {
        "file": str(clip),
        "duration_s": round(result.duration_s, 3),
        "frames_analysed": result.frames_analysed,
        "frames_with_face": result.frames_with_face,
        "classifier": classifier,
        "windows": [
            record_of(window, classifier).model_dump(mode="json") for window in result.windows
        ],
    }


def as_table(clip: Path, classifier: str, result: ClipResult) -> str:
    """One line a window, with a bar of P(positive), and the whole clip as one strip."""
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
    return f"{line}  {positive:.2f} {'█' * round(positive * BAR)}".rstrip()
