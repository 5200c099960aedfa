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

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from learning.corpus.places import Entry, Place, told
from learning.errors import DataError

MANIFEST = "manifest.json"
FOOTER = b"geli"
"""Key of a shard's own description in its Parquet footer."""
READERS = 16
"""Footers that are read at once."""


class Unreadable(Exception):
    """An input that cannot be read, today or tomorrow: it is listed and left out."""


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
    group: str = ""
    """What its worker loads for it: shards of one group are begun one after the other."""


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
        with told(self.out):
            known = manifest_of(self.out)
            if known is None:
                known = Manifest(self.kind, self.digest, json.loads(json.dumps(self.settings)))
                self.out.write(MANIFEST, known.encoded())
        self.check(known)
        return known

    def check(self, known: Manifest) -> None:
        """Whether what lies in the folder is this job's.

        Raises:
            DataError: another job's, or made with other settings.
        """
        if known.kind != self.kind:
            raise DataError(f"{self.out}: holds {known.kind}, not {self.kind}", "choose another")
        if known.digest != self.digest:
            raise DataError(
                f"{self.out}: made with other settings ({_changed(known.settings, self.settings)})",
                "choose another folder, or the old settings",
            )

    def state(self) -> tuple[set[str], dict[str, str]]:
        """Stems of the finished shards, and of inputs that cannot be read with the reason."""
        with told(self.out):
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
        with told(self.out):
            done, bad = self.state()
            wanted = {self.stem(shard): shard for shard in shards}
            described = {row["shard"]: row for row in known.shards}
            new = [stem for stem in wanted if stem in done and stem not in described]
            with ThreadPoolExecutor(READERS) as pool:
                described |= dict(zip(new, pool.map(self._row, new), strict=True))
            inputs = {stem.partition(".")[0] for stem in wanted}
            for stem in done | set(bad):
                if stem not in wanted and stem.partition(".")[0] in inputs:
                    self.out.drop(f"{stem}.parquet" if stem in done else f"{stem}.bad.json")
            made = Manifest(
                self.kind,
                self.digest,
                known.settings,
                [described[stem] for stem in wanted if stem in done],
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
    with told(out):
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
            with told(out):
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
