"""One reward from a data set to the registry: split, train, measure, keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learning.dialogue import Dataset
from learning.errors import DataError
from learning.processes import Processes
from learning.splits import By, Split, split

if TYPE_CHECKING:
    from agent.config import Config
    from learning.registry import GateResult, Manifest
    from learning.reward import TextReward
    from learning.trainer import Outcome

MIN_SESSIONS = 10
"""Rated sessions (labelled, where nothing is rated) under which nothing is left to measure on."""


@dataclass(slots=True)
class Made:
    """A trained reward and what is known of it."""

    reward: TextReward
    outcome: Outcome
    metrics: dict[str, float]
    split: Split
    data: Dataset


def check(data: Dataset, config: Config, least: int = MIN_SESSIONS) -> None:
    """Refuse what cannot give a reward that was measured.

    Raises:
        DataError: too few rated sessions, ratings all equal, or no labels for the shaping.
    """
    settings = config.reward
    ratings = [d.rating for d in data.dialogues if d.rating is not None]
    if settings.method not in ("mean", "mode"):
        if len(ratings) < least:
            raise DataError(
                f"{data.source}: {len(ratings)} rated session{'s' * (len(ratings) != 1)}, "
                f"learning needs {least}",
                "hold more calls, or rate with 'geli sessions rate'",
            )
        if max(ratings) - min(ratings) < 1e-9:
            raise DataError(
                f"{data.source}: all {len(ratings)} ratings are {ratings[0]:g}",
                "there is nothing to tell apart: collect sessions that felt different",
            )
    if settings.shaping == "va":
        labels = {d.turns[i].li for d in data.dialogues for i in d.scored} - {None}
        if len(labels) < 2:
            what = f"every label is {labels.pop()}" if labels else "no turn has a label"
            raise DataError(
                f"{data.source}: {what}, so the listener's face cannot shape the reward",
                "--set reward.shaping=none or ls, or collect calls with the camera on",
            )


def make(
    data: Dataset,
    config: Config,
    folder: Path,
    by: By = "conversation",
    cache: Path | None = None,
    on_progress: Callable[[str, float, float], None] = lambda *_: None,
) -> Made:
    """Train and measure; writes the reward, its split and its losses into `folder`.

    Args:
        data: where it learns from.
        config: `[reward]`.
        folder: made if need be; a checkpoint in it is continued.
        by: what a split keeps together.
        cache: for vectors of research data.
        on_progress: see `reward.train`.

    Raises:
        DataError: see `check`.
        TrainingError: see `reward.train`.
    """
    from learning.evaluate import evaluate
    from learning.reward import train

    check(data, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}", "choose --out") from None
    processes = Processes.join(config.reward.device)
    parts = split(data.dialogues, config.reward.seed, by)
    training, validation, test = (
        parts.pick(data.dialogues, part) for part in ("train", "validation", "test")
    )
    reward, outcome = train(
        training,
        validation,
        config,
        folder,
        cache=cache,
        on_progress=on_progress,
        processes=processes,
    )
    metrics = evaluate(reward, test, training, processes=processes)
    metrics |= {"epochs": float(outcome.epochs), "best_epoch": float(outcome.best_epoch)}
    if processes.main:
        _write(folder / "split.json", asdict(parts))
        _write(folder / "losses.json", outcome.losses)
    return Made(reward, outcome, metrics, parts, data)


def keep(made: Made, config: Config, folder: Path, gates: tuple[GateResult, ...] = ()) -> Manifest:
    """Add a made reward to the registry.

    Raises:
        RegistryError: it cannot be written.
    """
    import shutil
    import tempfile

    from learning.registry import Registry

    stored = made.data.source.startswith("store")
    with tempfile.TemporaryDirectory(dir=folder) as bare:
        for name in ("reward.json", "reward.safetensors", "losses.json", "split.json"):
            shutil.copy(folder / name, Path(bare) / name)
        return Registry.open().add(
            "reward",
            Path(bare),
            base=config.reward.encoder,
            seed=config.reward.seed,
            data_digest=made.data.digest,
            data_source=made.data.source,
            sessions=[d.id for d in made.data.dialogues] if stored else [],
            metrics=made.metrics,
            gates=gates,
            versions=versions(),
            settings=config.reward.model_dump(mode="json"),
        )


def versions() -> dict[str, str]:
    """Of the packages that shape a result."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "trl", "numpy")}


def _write(file: Path, content: object) -> None:
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(beside, file)
