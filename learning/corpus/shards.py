"""What is done and what is left of a corpus-sized job, told by the names in its folder. No Ray.

    OUT/manifest.json               the job, its settings and their digest; when a run has ended,
                                    every shard with its input and rows, and what cannot be read
    OUT/<input>.<identity>.parquet  one shard, there whole or not at all
    OUT/<input>.<identity>.bad.json an input that cannot be read, and why

`<input>` is a digest of the input's name, `<identity>` one of the settings and of what tells the
input from another of the same name (size and time of change, or the digest of its text). So one
listing says what is done, without opening an input or a shard; a shard of other settings is never
taken for one of these; and two runs at once write the same bytes under the same name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from learning.errors import DataError

MANIFEST = "manifest.json"
FOOTER = b"geli"
"""Key of a shard's own description in its Parquet footer."""
READERS = 16
"""Footers that are read at once."""


class Unreadable(Exception):
    """An input that cannot be read, today or tomorrow: it is listed and left out."""


@dataclass(frozen=True)
class Entry:
    """A file of a `Place`."""

    name: str
    """Relative, with `/`."""
    size: int
    changed_ns: int
    """Nanoseconds since 1970; 0 where the storage does not say."""


@dataclass(frozen=True)
class Place:
    """A folder: a path, or a URL that pyarrow or fsspec reads (`s3://`, `gs://`, `memory://` …).

    Every method raises `OSError` where the storage fails.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """pyarrow's filesystem, and the folder in it."""
        from pyarrow import fs

        if "://" not in self.url:
            return fs.LocalFileSystem(), str(Path(self.url).expanduser().absolute())
        try:
            system, root = fs.FileSystem.from_uri(self.url)
        except (ValueError, NotImplementedError):  # pyarrow does not know the scheme
            import fsspec

            try:
                found, root = fsspec.core.url_to_fs(self.url)
            except (ValueError, ImportError, OSError) as error:
                line = (str(error).splitlines() or [type(error).__name__])[0][:160]
                raise DataError(f"{self}: cannot be used: {line}") from None
            system = fs.PyFileSystem(fs.FSSpecHandler(found))
        except OSError as error:
            raise DataError(f"{self}: cannot be used: {_line(error)}") from None
        return system, root.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}  # each process opens its own

    def __str__(self) -> str:
        """The URL without a key or a query: what messages may show."""
        if "://" not in self.url:
            return self.url
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def local(self) -> Path | None:
        """The folder where it is one of this machine."""
        from pyarrow import fs

        system, root = self._opened
        return Path(root) if isinstance(system, fs.LocalFileSystem) else None

    def child(self, name: str) -> Place:
        """A folder in it."""
        head, mark, query = self.url.partition("?")
        return Place(f"{head.rstrip('/')}/{name}{mark}{query}")

    def entries(self, deep: bool = False) -> list[Entry]:
        """Files by name, hidden ones left out; none where there is no such folder."""
        from pyarrow import fs

        system, root = self._opened
        selector = fs.FileSelector(root, allow_not_found=True, recursive=deep)
        found = []
        for info in system.get_file_info(selector):
            name = info.path[len(root) :].lstrip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if info.type == fs.FileType.File and not hidden:
                found.append(Entry(name, info.size, info.mtime_ns or 0))
        return sorted(found, key=lambda entry: entry.name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        from pyarrow import fs

        system, root = self._opened
        return bool(system.get_file_info(f"{root}/{name}").type == fs.FileType.File)

    def open(self, name: str) -> Any:
        """A binary file that can be sought in."""
        system, root = self._opened
        return system.open_input_file(f"{root}/{name}")

    def read(self, name: str) -> bytes:
        """A whole file."""
        with self.open(name) as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        """A file that appears whole or not at all, in place of one of that name."""
        system, root = self._opened
        folder = self.local
        if folder is None:  # object storage shows an object when all of it is there
            with system.open_output_stream(f"{root}/{name}") as stream:
                stream.write(content)
            return
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{name}.{uuid.uuid4().hex[:12]}"
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise

    def drop(self, name: str) -> None:
        """Delete a file; it may be gone already."""
        system, root = self._opened
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(f"{root}/{name}")

    @contextlib.contextmanager
    def near(self, name: str) -> Iterator[Path]:
        """A file as one of this machine: itself, or a copy that goes with the block."""
        if (folder := self.local) is not None:
            yield folder / name
            return
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as copy:
            with self.open(name) as file:
                while piece := file.read(1 << 22):
                    copy.write(piece)
            copy.flush()
            yield Path(copy.name)


@dataclass(frozen=True)
class Shard:
    """A piece of work that is done whole or not at all."""

    input: str
    """What it is made of, as a person knows it; unique in a job."""
    identity: str
    """What tells this input from another one of the same name."""
    content: Any = None
    """What its worker is given, as JSON can hold it."""
    weight: float = 1.0
    """Its share of the work, for the progress bar."""


@dataclass(frozen=True)
class Job:
    """What is made where, and how."""

    kind: str
    """What the job makes, e.g. `affect`."""
    settings: Mapping[str, Any]
    """All that the result depends on beside the inputs."""
    out: Place

    @cached_property
    def digest(self) -> str:
        """Of kind and settings, 16 hex digits."""
        return digest_of([self.kind, dict(self.settings)])

    def stem(self, shard: Shard) -> str:
        """Name of the shard's files."""
        return f"{digest_of(shard.input)}.{digest_of([self.digest, shard.identity])}"

    def begin(self) -> Manifest:
        """Claim the folder for these settings, or go on in one of the same.

        Raises:
            DataError: it holds another job or other settings, or cannot be written.
        """
        with _told(self.out):
            known = manifest_of(self.out)
            if known is None:
                known = Manifest(self.kind, self.digest, json.loads(json.dumps(self.settings)))
                self.out.write(MANIFEST, known.encoded())
        if known.kind != self.kind:
            raise DataError(f"{self.out}: holds {known.kind}, not {self.kind}", "choose another")
        if known.digest != self.digest:
            raise DataError(
                f"{self.out}: made with other settings ({_changed(known.settings, self.settings)})",
                "choose another folder, or the old settings",
            )
        return known

    def state(self) -> tuple[set[str], dict[str, str]]:
        """Stems of the finished shards, and of inputs that cannot be read with the reason."""
        with _told(self.out):
            names = [entry.name for entry in self.out.entries()]
            bad = [name for name in names if name.endswith(".bad.json")]
            return (
                {n.removesuffix(".parquet") for n in names if n.endswith(".parquet")},
                {n.removesuffix(".bad.json"): json.loads(self.out.read(n))["reason"] for n in bad},
            )

    def has(self, shard: Shard) -> bool:
        """Whether it was finished meanwhile, by another run."""
        return self.out.has(f"{self.stem(shard)}.parquet")

    def commit(self, shard: Shard, table: Any, facts: Mapping[str, Any]) -> None:
        """Write a finished shard.

        Args:
            shard: which.
            table: a `pyarrow.Table`.
            facts: what else is known of it; kept in the footer.
        """
        from pyarrow import parquet

        about = self._about(shard) | {"rows": table.num_rows, "facts": dict(facts)}
        described = {**(table.schema.metadata or {}), FOOTER: json.dumps(about).encode()}
        buffer = io.BytesIO()
        parquet.write_table(table.replace_schema_metadata(described), buffer, compression="zstd")
        self.out.write(f"{self.stem(shard)}.parquet", buffer.getvalue())

    def refuse(self, shard: Shard, reason: str) -> None:
        """Note that an input cannot be read."""
        about = self._about(shard) | {"reason": reason}
        self.out.write(f"{self.stem(shard)}.bad.json", (json.dumps(about) + "\n").encode())

    def _about(self, shard: Shard) -> dict[str, Any]:
        return {
            "kind": self.kind, "digest": self.digest,
            "input": shard.input, "identity": shard.identity,
        }  # fmt: skip

    def finish(self, shards: Sequence[Shard], known: Manifest) -> Manifest:
        """Write the manifest of all that is there of these shards; drop what an input was before.

        Args:
            shards: all of the job, done or not.
            known: the manifest before; a shard that it tells of is not opened again.
        """
        with _told(self.out):
            done, bad = self.state()
            wanted = {self.stem(shard): shard for shard in shards}
            told = {row["shard"]: row for row in known.shards}
            new = [stem for stem in wanted if stem in done and stem not in told]
            with ThreadPoolExecutor(READERS) as pool:
                told |= dict(zip(new, pool.map(self._row, new), strict=True))
            inputs = {stem.partition(".")[0] for stem in wanted}
            for stem in done | set(bad):
                if stem not in wanted and stem.partition(".")[0] in inputs:
                    self.out.drop(f"{stem}.parquet" if stem in done else f"{stem}.bad.json")
            made = Manifest(
                self.kind,
                self.digest,
                known.settings,
                [told[stem] for stem in wanted if stem in done],
                [
                    {"input": wanted[s].input, "reason": bad[s]}
                    for s in wanted
                    if s in bad and s not in done
                ],
                all(stem in done or stem in bad for stem in wanted),
            )
            self.out.write(MANIFEST, made.encoded())
        return made

    def _row(self, stem: str) -> dict[str, Any]:
        about = footer_of(self.out, f"{stem}.parquet")
        return {"shard": stem, **{k: about[k] for k in ("input", "identity", "rows", "facts")}}


@dataclass
class Manifest:
    """What `manifest.json` holds."""

    kind: str
    digest: str
    settings: dict[str, Any]
    shards: list[dict[str, Any]] = field(default_factory=list)
    """`shard`, `input`, `identity`, `rows`, `facts` of each finished one."""
    bad: list[dict[str, str]] = field(default_factory=list)
    """`input` and `reason`."""
    complete: bool = False
    """Whether nothing was left to do when it was written."""

    def encoded(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()


def manifest_of(out: Place) -> Manifest | None:
    """What a folder says of itself; None where it says nothing.

    Raises:
        DataError: a damaged manifest.
        OSError: the storage fails.
    """
    if not out.has(MANIFEST):
        return None
    try:
        return Manifest(**json.loads(out.read(MANIFEST)))
    except (ValueError, TypeError):
        raise DataError(
            f"{out}/{MANIFEST} is damaged", "delete it: finished shards stay and are found again"
        ) from None


def tables(out: Place, kind: str) -> tuple[Manifest, Iterator[tuple[dict[str, Any], Any]]]:
    """What a job has made so far: its manifest, and (footer, `pyarrow.Table`) of each shard.

    Of an input that changed while a job was run again only the newest shard is read.

    Raises:
        DataError: no job of that kind there, a damaged shard, or the storage fails.
    """
    with _told(out):
        manifest = manifest_of(out)
        entries = out.entries()
    if manifest is None or manifest.kind != kind:
        raise DataError(f"{out}: holds no {kind}", f"make them with 'geli learn corpus' ({kind})")
    newest: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.changed_ns):
        if entry.name.endswith(".parquet"):
            newest[entry.name.partition(".")[0]] = entry
    return manifest, _read(out, manifest, sorted(entry.name for entry in newest.values()))


def _read(out: Place, manifest: Manifest, names: Iterable[str]) -> Iterator[tuple[Any, Any]]:
    import pyarrow
    from pyarrow import parquet

    for name in names:
        try:
            with _told(out):
                table = parquet.read_table(pyarrow.BufferReader(out.read(name)))
            about = json.loads(table.schema.metadata[FOOTER])
        except (pyarrow.ArrowInvalid, KeyError, ValueError, TypeError):
            raise _damaged(out, name) from None
        if about["digest"] == manifest.digest:
            yield about, table


def footer_of(out: Place, name: str) -> dict[str, Any]:
    """A shard's own description, without its rows.

    Raises:
        DataError: it is damaged.
        OSError: the storage fails.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with out.open(name) as file:
            return dict(json.loads(parquet.read_metadata(file).metadata[FOOTER]))
    except (pyarrow.ArrowInvalid, KeyError, ValueError, TypeError):
        raise _damaged(out, name) from None


def _damaged(out: Place, name: str) -> DataError:
    return DataError(f"{out}/{name} is damaged", "delete it and run the job again")


def digest_of(content: Any) -> str:
    """SHA-256 of something as JSON, 16 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, as `name: old, now new`."""
    now = json.loads(json.dumps(now))
    return "; ".join(
        f"{key}: {before.get(key)}, now {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    )


@contextlib.contextmanager
def _told(place: Place) -> Iterator[None]:
    """A storage that fails is one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{place}: {_line(error)}", "check the place and who may use it") from None


def _line(error: OSError) -> str:
    said = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    return said[:200]
