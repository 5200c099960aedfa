"""The registry of learned policies as the live agent reads it.

    <data>/registry/policies/<id>/   LoRA adapter (PEFT) and manifest.json; never changed
    <data>/registry/rewards/<id>/    a reward function and manifest.json; never changed
    <data>/registry/state.json       which policy is promoted, which is the candidate, and how so
    <data>/registry/marks/           what is known of an entry later than the entry itself

A policy crosses from learning to the call as such a folder and nothing else. Writers of state and
marks hold a lock file, so that two processes lose nothing; readers need none, since every file
appears whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from agent.errors import PolicyError

Kind = Literal["policy", "reward"]
FOLDERS: dict[Kind, str] = {"policy": "policies", "reward": "rewards"}
MANIFEST = "manifest.json"
DELETED = "deleted.json"
"""Ids of deleted sessions: a run that began before the deletion is marked when it is added."""
ACTIONS = ("promote", "rollback", "candidate")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

log_ = logging.getLogger("geli.policy")


@dataclass(slots=True, frozen=True)
class Change:
    """One line of the registry's history."""

    at: str
    """UTC, ISO 8601."""
    action: str
    """`promote`, `rollback` or `candidate`."""
    id: str | None
    """What it is now; None: the base model (or no candidate)."""
    previous: str | None
    by: str


@dataclass(slots=True, frozen=True)
class State:
    """What `state.json` says."""

    promoted: str | None = None
    """None: the base model speaks."""
    candidate: str | None = None
    history: tuple[Change, ...] = ()
    """Oldest first."""

    def draws_candidate(self, share: float, rng: random.Random) -> bool:
        """Whether the next call is the candidate's; with probability `share` where there is one."""
        return self.candidate is not None and share > 0 and rng.random() < share


def registry_of(data: Path) -> Path:
    """The registry in a data directory; it need not exist."""
    return data / "registry"


def state(registry: Path) -> State:
    """The registry's state; without a registry the base model speaks.

    Raises:
        PolicyError: `state.json` is damaged or cannot be read. It is never taken for empty: that
            would put the base model back without a word.
    """
    path = registry / "state.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return State()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read: {_why(error)}", _MEND) from None
    try:
        data = json.loads(text)
        changes = [Change(**change) for change in data["history"]]
        found = State(data["promoted"], data["candidate"], tuple(changes))
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{path}: damaged: {_why(error)}", _MEND) from None
    ids = [found.promoted, found.candidate, *(i for c in changes for i in (c.id, c.previous))]
    for given in ids:
        if given is not None and not (isinstance(given, str) and ID.fullmatch(given)):
            raise PolicyError(f"{path}: damaged: {str(given)[:40]!r} is no id", _MEND)
    if any(change.action not in ACTIONS for change in changes):
        raise PolicyError(f"{path}: damaged: an action that is unknown", _MEND)
    return found


_MEND = "move that file away, then 'geli learn policies promote ID' (or: promote base)"


def promoted(registry: Path) -> Path | None:
    """The promoted policy's folder; None: the base model.

    Raises:
        PolicyError: the state is damaged, or the folder is gone.
    """
    return folder(registry, state(registry).promoted)


def candidate(registry: Path) -> Path | None:
    """The candidate's folder; None: there is none.

    Raises:
        PolicyError: the state is damaged, or the folder is gone.
    """
    return folder(registry, state(registry).candidate)


def choose(registry: Path, share: float, rng: random.Random) -> Path | None:
    """Who speaks in a new call: the candidate with probability `share`, else the promoted one.

    Raises:
        PolicyError: the state is damaged, or the folder is gone.
    """
    now = state(registry)
    drawn = now.candidate if now.draws_candidate(share, rng) else now.promoted
    return folder(registry, drawn)


def folder(registry: Path, policy_id: str | None) -> Path | None:
    """A policy's folder; None for the base.

    Raises:
        PolicyError: it is gone.
    """
    if policy_id is None:
        return None
    path = registry / FOLDERS["policy"] / policy_id
    if not path.is_dir():
        raise PolicyError(
            f"policy {policy_id} is not in the registry {registry}",
            "'geli learn policies rollback', or promote another one",
        )
    return path


def base_of(adapter: Path) -> str | None:
    """The base model an adapter was trained for; None where no manifest says it.

    Raises:
        PolicyError: the manifest is damaged.
    """
    found = _manifest(adapter).get("base")
    return found if isinstance(found, str) else None


def check_adapter(adapter: Path, base: str) -> None:
    """Hold an adapter against its manifest before anything is loaded; without one all is well.

    Args:
        adapter: its folder.
        base: name of the model that it is to be put on.

    Raises:
        PolicyError: trained for another base, a file is missing or is not what was registered.
    """
    manifest = _manifest(adapter)
    name = manifest.get("id", adapter)
    trained_for = base_of(adapter)
    if trained_for is not None and trained_for != base:
        raise PolicyError(
            f"adapter {name} was trained for {trained_for}, the responder speaks with {base}",
            f"responder.model = {trained_for!r}, or 'geli learn policies promote' another one",
        )
    digests = manifest.get("files")
    if isinstance(digests, dict):
        for file, digest in digests.items():
            if problem := file_problem(adapter / file, digest):
                raise PolicyError(f"adapter {name}: {problem}", "'geli learn policies rollback'")


def file_problem(path: Path, digest: str) -> str | None:
    """What is wrong with a registered file; None when it is as it was."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: {_why(error)}"
    if found != digest:
        return f"{path} is damaged: its SHA-256 begins {found[:12]}, not {str(digest)[:12]}"
    return None


# --- marks -------------------------------------------------------------------------------------


def mark_deleted(registry: Path, session_id: str) -> list[str]:
    """Note at every entry that was trained on a session that the session is deleted.

    Trained on it: the manifest's `sessions` name it, or the entry's `reward` or `parent` was.

    Returns:
        The ids of those entries, oldest first. An entry whose manifest cannot be read is logged.

    Raises:
        PolicyError: a mark cannot be written.
    """
    if not registry.is_dir():
        return []
    with locked(registry):
        marks = registry / "marks"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        _add_mark(marks / DELETED, session_id, now)
        touched = _trained_on(registry, session_id)
        for entry_id, kind in touched.items():
            _add_mark(marks / f"{kind}-{entry_id}.json", session_id, now)
    return sorted(touched, key=lambda entry_id: entry_id.partition("-")[2])


def deleted_sessions(registry: Path, kind: Kind, entry_id: str) -> tuple[str, ...]:
    """Sessions that an entry was trained on and that were deleted since.

    Raises:
        PolicyError: the marks are damaged.
    """
    return tuple(_marks(registry / "marks" / f"{kind}-{entry_id}.json"))


def mark_late(registry: Path, kind: Kind, entry_id: str, sessions: list[str]) -> None:
    """Mark a new entry with those of its sessions that were deleted while it was trained. The
    caller holds the lock.

    Raises:
        PolicyError: the marks are damaged or cannot be written.
    """
    marks = registry / "marks"
    gone = _marks(marks / DELETED)
    for session_id in sessions:
        if session_id in gone:
            _add_mark(marks / f"{kind}-{entry_id}.json", session_id, gone[session_id])


def _trained_on(registry: Path, session_id: str) -> dict[str, Kind]:
    """Entries by id that learned from the session, directly or through what they came from."""
    kinds: dict[str, Kind] = {}
    sources: dict[str, set[str]] = {}
    touched: set[str] = set()
    for kind, name in FOLDERS.items():
        for path in sorted((registry / name).glob("[!.]*")):
            try:
                manifest = _manifest(path)
            except PolicyError as error:
                log_.warning("nobody knows whether it learned from the session: %s", error)
                continue
            kinds[path.name] = kind
            sources[path.name] = {str(manifest.get(key)) for key in ("reward", "parent")}
            if session_id in manifest.get("sessions", []):
                touched.add(path.name)
    while new := {i for i, came_from in sources.items() if came_from & touched} - touched:
        touched |= new
    return {entry_id: kinds[entry_id] for entry_id in touched}


def _marks(path: Path) -> dict[str, str]:
    """Deleted session id to when."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["deleted_sessions"]
        return {str(session_id): str(at) for session_id, at in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{path}: damaged: {_why(error)}", "delete that file") from None


def _add_mark(path: Path, session_id: str, at: str) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"deleted_sessions": {session_id: at} | _marks(path)})


# --- files -------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Hold the registry's lock file; waits for other processes and threads.

    Raises:
        PolicyError: the registry cannot be written.
    """
    try:
        handle = os.open(registry / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise PolicyError(f"{registry} cannot be written: {_why(error)}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # lets go of the lock


def write_state(registry: Path, new: State) -> None:
    """Replace `state.json`; the caller holds the lock.

    Raises:
        PolicyError: it cannot be written.
    """
    write_json(registry / "state.json", asdict(new))


def write_json(path: Path, data: Any) -> None:
    """Replace a file by one rename, so that a crash leaves the old one or the new one.

    Raises:
        PolicyError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(data, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise PolicyError(f"{path}: cannot be written: {_why(error)}") from None


def sync_folder(path: Path) -> None:
    """Make renames in a folder outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _manifest(entry: Path) -> dict[str, Any]:
    """An entry's manifest; empty where there is none (an adapter that was never registered)."""
    path = entry / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: damaged: {_why(error)}") from None
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: damaged: not a JSON object")
    return cast(dict[str, Any], data)


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"no {error} in it"
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
