"""Every reward and policy that was learned, as folders that never change, and which one speaks.

    registry = Registry.open()
    policy = registry.add("policy", folder, base="smollm2-135m-instruct", seed=0, ...)
    registry.promote(policy.id, by="ada")

The layout is agent/policies.py's, which reads it for the live call. What comes later (a session
that was deleted) is a mark beside the folder. No torch and no numpy here: `tui` imports it.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent import __version__, policies
from agent.errors import PolicyError
from agent.policies import FOLDERS, MANIFEST, Change, Kind, State
from learning.errors import RegistryError

BASE = "base"
"""What a person calls the policy without an adapter."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""Files that a policy must have."""
PREFIX: dict[Kind, str] = {"policy": "p", "reward": "r"}
HALF_WRITTEN = ".adding-"
STALE_S = 3600.0
"""A folder that was being written this long ago was left by a crash."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class GateResult(_Model):
    """One gate: what was measured, and what it had to be."""

    name: str
    value: float
    threshold: float
    passed: bool
    comparison: Literal["<=", "<", ">=", ">"]
    """`value comparison threshold` is what passing means."""

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} (wanted {self.comparison} {self.threshold:.4g})"


class Manifest(_Model):
    """What is known of one entry."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=r"^[pr]-[0-9]{8}T[0-9]{6}-[0-9a-f]{6}$")
    kind: Kind
    created_at: datetime
    base: str
    """Weights by name: the policy's base model, or the reward's encoder."""
    parent: str | None = None
    """The entry whose weights it started from; None: the base's."""
    reward: str | None = None
    """Policy: the reward it was trained against."""
    seed: int
    data_digest: str
    data_source: str
    sessions: list[str] = []
    """Ids of stored sessions it was trained on."""
    metrics: dict[str, float] = {}
    gates: list[GateResult] = []
    versions: dict[str, str] = {}
    settings: dict[str, Any] = {}
    files: dict[str, str]
    """Every other file of the folder, to its SHA-256."""
    notes: str = ""

    @field_validator("created_at")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time needs its zone")
        return value.astimezone(UTC)

    @property
    def failed(self) -> list[GateResult]:
        """Gates that it did not pass."""
        return [gate for gate in self.gates if not gate.passed]


class Registry:
    """The entries of one data directory. Use `Registry.open`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, data: Path | None = None) -> Registry:
        """Make the folders where there are none, and clear away what a crash left half-written.

        Args:
            data: the data directory; default: $GELI_DATA, else ~/.local/share/geli.

        Raises:
            RegistryError: the folders cannot be made.
            StoreError: the data directory cannot be made.
        """
        if data is None:
            from agent.store_engine import data_dir

            data = data_dir()
        registry = cls(policies.registry_of(data))
        with _writing(registry.root):
            for name in (*FOLDERS.values(), "marks"):
                (registry.root / name).mkdir(parents=True, exist_ok=True)
            for name in FOLDERS.values():
                for left in (registry.root / name).glob(f"{HALF_WRITTEN}*"):
                    with contextlib.suppress(FileNotFoundError):  # its writer finished just now
                        if time.time() - left.stat().st_mtime > STALE_S:
                            shutil.rmtree(left, ignore_errors=True)
        return registry

    # --- entries ------------------------------------------------------------------------------

    def add(
        self,
        kind: Kind,
        folder: Path,
        *,
        base: str,
        seed: int,
        data_digest: str,
        data_source: str,
        parent: str | None = None,
        reward: str | None = None,
        sessions: Sequence[str] = (),
        metrics: Mapping[str, float] | None = None,
        gates: Sequence[GateResult] = (),
        versions: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        notes: str = "",
    ) -> Manifest:
        """Copy a folder of files into the registry; it appears whole, by one rename.

        Args:
            kind: `policy` (a PEFT LoRA adapter) or `reward`.
            folder: what to keep: weights, figures, curves; folders in it too.
            base: see `Manifest`, as for the other fields.
            seed: of the run.
            data_digest: `Dataset.digest`.
            data_source: `Dataset.source`.
            parent: the entry whose weights it started from.
            reward: the reward it was trained against.
            sessions: ids of stored sessions it was trained on.
            metrics: numbers by name.
            gates: what it was held against.
            versions: of packages; geli's and Python's are added.
            settings: the sections of the configuration that shaped it.
            notes: for a person.

        Raises:
            RegistryError: nothing to keep, a policy without its adapter, or a full disk.
        """
        names = _files_in(folder)
        if kind == "policy" and (missing := [n for n in ADAPTER if n not in names]):
            raise RegistryError(
                f"{folder}: no {missing[0]} in it", "a policy is a PEFT LoRA adapter"
            )
        now = datetime.now(UTC).replace(microsecond=0)
        entry_id = f"{PREFIX[kind]}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        home = self.root / FOLDERS[kind]
        beside = home / f"{HALF_WRITTEN}{entry_id}"
        with _writing(home):
            beside.mkdir(parents=True)
            try:
                manifest = Manifest(
                    id=entry_id,
                    kind=kind,
                    created_at=now,
                    base=base,
                    parent=parent,
                    reward=reward,
                    seed=seed,
                    data_digest=data_digest,
                    data_source=data_source,
                    sessions=list(sessions),
                    metrics=dict(metrics or {}),
                    gates=list(gates),
                    versions={"geli": __version__, "python": platform.python_version()}
                    | dict(versions or {}),
                    settings=dict(settings or {}),
                    files={name: _copy(folder / name, beside / name) for name in names},
                    notes=notes,
                )
                _keep(beside / MANIFEST, manifest.model_dump_json(indent=2).encode())
                policies.sync_folder(beside)
                with policies.locked(self.root):
                    # Under the lock: a deletion comes before (late mark) or after (ordinary mark).
                    policies.mark_late(self.root, kind, entry_id, manifest.sessions)
                    beside.rename(home / entry_id)
                policies.sync_folder(home)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise
        return manifest

    def list(self, kind: Kind = "policy") -> Sequence[Manifest]:
        """Entries, newest first, without those that `unreadable` names."""
        found = []
        for path in self._folders(kind):
            with contextlib.suppress(RegistryError):
                found.append(_read(path))
        return sorted(found, key=lambda m: (m.created_at, m.id), reverse=True)

    def unreadable(self, kind: Kind = "policy") -> dict[str, RegistryError]:
        """Entries whose manifest cannot be read, and why."""
        found = {}
        for path in self._folders(kind):
            try:
                _read(path)
            except RegistryError as error:
                found[path.name] = error
        return found

    def get(self, given: str) -> Manifest:
        """The entry of that id, or the only one whose id starts so.

        Raises:
            RegistryError: none (names the closest), several, or a damaged manifest.
        """
        return _read(self._folder(given))

    def path(self, given: str) -> Path:
        """The folder of an entry.

        Raises:
            RegistryError: see `get`.
        """
        return self._folder(given)

    def verify(self, given: str) -> Manifest:
        """Read all of an entry's files again and hold them against its manifest.

        Raises:
            RegistryError: a file is missing or is not what was registered.
        """
        folder = self._folder(given)
        manifest = _read(folder)
        for name, digest in manifest.files.items():
            if problem := policies.file_problem(folder / name, digest):
                raise RegistryError(f"{manifest.id}: {problem}", "restore a copy, or train again")
        return manifest

    def marks(self, given: str) -> tuple[str, ...]:
        """Ids of sessions that the entry was trained on and that were deleted since.

        Raises:
            RegistryError: no such entry, or damaged marks.
        """
        folder = self._folder(given)
        kind: Kind = "policy" if folder.parent.name == FOLDERS["policy"] else "reward"
        with _translated():
            return policies.deleted_sessions(self.root, kind, folder.name)

    # --- who speaks ---------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Which policy is promoted, which is the candidate, and how it came to that.

        Raises:
            RegistryError: the state is damaged.
        """
        with _translated():
            return policies.state(self.root)

    @property
    def previous(self) -> str | None:
        """What `rollback` would put back; None: the base.

        Raises:
            RegistryError: nothing was promoted before, so there is nothing to go back to.
        """
        return _before(self.state)

    def promote(self, given: str, by: str, force: bool = False) -> State:
        """Let a policy speak in the next calls; `base` lets the base model speak.

        Args:
            given: id of a policy, or the start of one, or `base`.
            by: who says so.
            force: even where gates failed.

        Raises:
            RegistryError: a reward, a damaged policy, or one whose gates failed.
        """
        policy_id = None if given == BASE else self._speakable(given, force).id
        with self._changing() as (now, at):
            candidate = None if now.candidate == policy_id else now.candidate
            change = Change(at, "promote", policy_id, now.promoted, by)
            return self._write(State(policy_id, candidate, (*now.history, change)))

    def rollback(self, by: str) -> State:
        """Put the policy back that spoke before the promoted one; again: the one before that.

        Raises:
            RegistryError: nothing was promoted, or what spoke before is damaged.
        """
        with self._changing() as (now, at):
            before = _before(now)
            if before is not None:
                self.verify(before)
            change = Change(at, "rollback", before, now.promoted, by)
            return self._write(State(before, now.candidate, (*now.history, change)))

    def set_candidate(self, given: str | None, by: str = "", force: bool = False) -> State:
        """Name the policy that a share of the calls goes to; None: no such policy.

        Raises:
            RegistryError: see `promote`.
        """
        policy_id = None if given is None else self._speakable(given, force).id
        with self._changing() as (now, at):
            change = Change(at, "candidate", policy_id, now.candidate, by)
            return self._write(State(now.promoted, policy_id, (*now.history, change)))

    # --- inside -------------------------------------------------------------------------------

    def _speakable(self, given: str, force: bool) -> Manifest:
        manifest = self.verify(given)
        if manifest.kind != "policy":
            raise RegistryError(
                f"{manifest.id} is a reward, which cannot speak", "name a policy (p-…)"
            )
        if manifest.failed and not force:
            failed = "; ".join(str(gate) for gate in manifest.failed)
            raise RegistryError(
                f"{manifest.id} did not pass {len(manifest.failed)} of "
                f"{len(manifest.gates)} gates: {failed}",
                "--force takes it all the same",
            )
        return manifest

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[State, str]]:
        """The state as it is now and the time, under the lock."""
        with _translated(), policies.locked(self.root):
            yield policies.state(self.root), datetime.now(UTC).isoformat(timespec="seconds")

    def _write(self, new: State) -> State:
        policies.write_state(self.root, new)
        return new

    def _folders(self, kind: Kind) -> Sequence[Path]:
        return sorted(p for p in (self.root / FOLDERS[kind]).glob("[!.]*") if p.is_dir())

    def _folder(self, given: str) -> Path:
        every = {p.name: p for kind in FOLDERS for p in self._folders(kind)}
        if given in every:
            return every[given]
        found = [name for name in every if given and name.startswith(given)]
        if len(found) == 1:
            return every[found[0]]
        if found:
            some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
            raise RegistryError(f"{given!r} begins {len(found)} ids", f"one of {some}")
        if given == BASE:
            raise RegistryError("the base model is no entry of the registry", "name a policy")
        close = difflib.get_close_matches(given, every, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "see 'geli learn policies list'"
        raise RegistryError(f"the registry has no {given!r}", hint)


def _before(state: State) -> str | None:
    """What spoke before the promoted policy: promotions are pushed, a rollback takes one off."""
    spoke: list[str | None] = [None]
    for change in state.history:
        if change.action == "promote" and change.id != spoke[-1]:
            spoke.append(change.id)
        elif change.action == "rollback" and len(spoke) > 1:
            spoke.pop()
    if len(spoke) == 1:
        raise RegistryError("nothing was promoted, so there is nothing to roll back to")
    return spoke[-2]


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RegistryError(f"{path}: damaged: {where}: {first['msg']}") from None
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from None
    if manifest.id != folder.name:
        raise RegistryError(f"{path}: damaged: it is the manifest of {manifest.id}")
    return manifest


def _files_in(folder: Path) -> list[str]:
    """Names of all files, relative to the folder, with `/`."""
    if not folder.is_dir():
        raise RegistryError(f"{folder} is no folder")
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    if not names:
        raise RegistryError(f"{folder} is empty", "there is nothing to register")
    for path, name in zip(paths, names, strict=True):
        if path.is_symlink() or not path.is_file():
            raise RegistryError(f"{path} is no plain file", "copy what it stands for")
        if name == MANIFEST:
            raise RegistryError(f"{path}: the registry writes that file itself", "take it out")
    return names


def _copy(source: Path, target: Path) -> str:
    """Copy a file, durable and read-only; returns the SHA-256 of what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("xb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
        _seal(write)
    return digest.hexdigest()


def _keep(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        _seal(file)


def _seal(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o555)


@contextlib.contextmanager
def _writing(where: Path) -> Iterator[None]:
    """The system's refusals as one line."""
    try:
        with _translated():
            yield
    except OSError as error:
        name = error.filename or where
        raise RegistryError(f"{name}: {error.strerror or error}", "is the disk full?") from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PolicyError as error:
        raise RegistryError(error.problem, error.way_out) from None
