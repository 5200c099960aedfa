"""Affect windows over video: one shard a video, read as `geli perceive` reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from learning.corpus.places import Entry, Place, told
from learning.corpus.shards import Job, Shard, Unreadable
from learning.errors import DataError

if TYPE_CHECKING:
    from agent.config import Config

AFFECT = "affect"
VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
SHORT_S, SHORT_SHARE = 2.0, 0.02
"""A video that ends earlier than its file says by more than both was cut: its end is not calm but
missing."""


def affect_job(source: str, out: str, config: Config) -> tuple[Job, list[Shard], ReadFaces]:
    """One shard a video: its windows, as `geli perceive` gives them.

    Args:
        source: a folder or URL of videos, read with the folders in it; `candor:` before it takes
            only the participants' own (`<conversation>/processed/<participant>.mp4`).
        out: folder or URL of the shards.
        config: `[perception]`.

    Raises:
        DataError: no video there, or the place cannot be read.
        WeightsError, ConfigError: the models cannot be used.
    """
    from agent.affect import ListenerModels, settings_of

    place, found = videos(source)
    models = ListenerModels.load(config)  # before any worker starts: its mistakes are one line
    models.close()
    settings = {
        "classifier": models.classifier_id,
        "detector": f"{config.perception.detector}:{config.perception.detector_model}",
        **asdict(settings_of(config)),
    }
    shards = [
        Shard(
            entry.name, f"{entry.size} bytes, {entry.changed_ns}", weight=float(max(entry.size, 1))
        )
        for entry in found
    ]
    return Job(AFFECT, settings, Place(out)), shards, ReadFaces(config, place)


def videos(source: str) -> tuple[Place, list[Entry]]:
    """The videos of a place, by name."""
    kind, _, rest = source.partition(":")
    candor = kind == "candor" and bool(rest)
    place = Place(rest if candor else source)
    with told(place):
        found = [e for e in place.entries(deep=True) if e.name.lower().endswith(VIDEOS)]
    if candor:
        found = [entry for entry in found if participant_of(entry.name)]
    if not found:
        what = "processed/<participant>.mp4 of any conversation" if candor else "video"
        raise DataError(f"{place}: holds no {what}", f"files of {' '.join(VIDEOS)} are read")
    return place, found


def participant_of(name: str) -> tuple[str, str] | None:
    """(conversation, participant) of a video in CANDOR's layout; None for any other file, also for
    the two faces side by side, `processed/<conversation>.mp4`."""
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[-2] != "processed":
        return None
    conversation, participant = parts[-3], PurePosixPath(parts[-1]).stem
    return None if participant == conversation else (conversation, participant)


class ReadFaces:
    """Opens a worker's face models; the work is `geli perceive`'s.

    Args:
        config: `[perception]` and where weights lie.
        source: of the videos.
    """

    def __init__(self, config: Config, source: Place) -> None:
        self._config, self._source = config, source

    def __call__(self) -> Callable[[Shard], tuple[Any, dict[str, Any]]]:
        from agent.affect import ListenerModels, settings_of
        from perception.clip import perceive_clip
        from perception.errors import PerceptionError

        models = ListenerModels.load(self._config)
        settings = settings_of(self._config)

        def read(shard: Shard) -> tuple[Any, dict[str, Any]]:
            with self._source.near(shard.input) as path:
                try:
                    clip = perceive_clip(path, models.detector, models.classifier, settings)
                except PerceptionError as error:
                    raise Unreadable(str(error).replace(str(path), shard.input)) from None
            whole_s = clip.told_s or 0.0
            if whole_s - clip.duration_s > max(SHORT_S, SHORT_SHARE * whole_s):
                raise Unreadable(
                    f"{shard.input}: cut short: {clip.duration_s:.1f} s of {whole_s:.1f} s"
                )
            facts = {
                "duration_s": round(clip.duration_s, 3),
                "frames": clip.frames,
                "frames_analysed": clip.frames_analysed,
                "frames_with_face": clip.frames_with_face,
            }
            return windows_table(clip.windows), facts

        return read


def windows_table(windows: Sequence[Any]) -> Any:
    """`perception.windows.Window`s as rows; times in seconds from the video's first frame."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("index", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("face_found", pa.bool_()),
            ("coverage", pa.float64()),
            ("positive", pa.bool_()),
            ("valence", pa.float64()),
            ("probabilities", pa.map_(pa.string(), pa.float64())),
        ]
    )
    columns = {name: [getattr(w, name) for w in windows] for name in schema.names[:-1]}
    columns["probabilities"] = [
        None if w.probabilities is None else list(w.probabilities.items()) for w in windows
    ]
    return pa.table(columns, schema=schema)
