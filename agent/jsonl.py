"""Sessions as JSON Lines: the exchange format, schema version 1.

One session a line, UTF-8, one JSON object (RFC 8259: no NaN, no Infinity), lines end in LF; a name
that ends in `.gz` is gzip. Blank lines and a byte-order mark are skipped. An unknown key or a value
out of its range rejects its line. All times of `turns` and `windows` are seconds on the session
clock, which starts at 0 with the first received audio; wall times are ISO 8601 with their zone.

    Session
      schema_version   1 (required)
      id               1–64 of A–Z a–z 0–9 _ -, unique in a store
      started_at       wall time; ended_at: wall time or null
      ended_how        hung_up | dropped | crashed | timed_out | null
      consent          keep | learn (learning reads only `learn`; talk_only is never stored)
      source           browser | talk | replay | simulated | import
      overall_affect   0–100 or null: the person's answer to the paper's overall-affect question
      overall_affect_at, overall_affect_source, comment   when and how it was given, or null
      excluded         true: kept out of learning; excluded_reason: text or null
      policy_id, config_digest, program_version           text or null
      note             the operator's, or null; tags: list of text
      person           SHA-256 of the person's token (64 hex digits), or null
      turns            list of Turn, in the order of their index, each index once
      windows          list of AffectWindow, in the order of their index, each index once

    Turn
      index            0, 1, 2, …
      speaker          user | agent
      start_s, end_s   seconds, start_s <= end_s
      text             what was said; of the agent, the words that were really heard
      spoken_text      written for the reader, ignored on import: `text` of agent turns, else null
      generated_text   agent: all the policy wrote, heard or not; null for the user
      interrupted      agent: the user barged in
      kind             utterance (user) | reply | greeting | prompt | goodbye | apology
      policy_id        text or null
      engines          object: role to engine id
      latency          object or null: end_of_turn_wait_ms, transcription_ms, first_token_ms,
                       first_sentence_ms, first_audio_ms, voice_to_voice_ms (each a number or null)
      li               agent: 1 the listener looked positive, 0 not, null unknown
      li_coverage      0–1 or null; li_windows: indices of the windows; li_rule: text or null
      sentiment        -1 to 1 or null; prosody: object of numbers or null

    AffectWindow
      index, start_s, end_s, face_found, coverage (0–1), probabilities (object of 0–1, or null),
      valence (-1 to 1 or null), positive (true | false | null unknown), classifier

Absent keys take their default (null, false, an empty list); required are schema_version, id,
started_at, consent, of a turn index, speaker, start_s, end_s, text, and of a window index, start_s,
end_s, face_found, coverage, classifier.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from agent.errors import StoreError
from agent.records import SCHEMA_VERSION, Consent, Session
from agent.schema import UNSTORABLE
from agent.store import Store

LONGEST_LINE = 64 * 2**20
"""Bytes; an hour of talk is about 0.5 MiB."""
LARGEST_INDEX = 2**31 - 1
"""What a database keeps in an integer column."""
WALL_TIMES = ("started_at", "ended_at", "overall_affect_at")
REQUIRED = ("schema_version", "id", "started_at", "consent")


class BadLine(ValueError):
    """A line that is no session of this schema."""


@dataclass(slots=True, frozen=True)
class Rejection:
    """A line that was not taken."""

    line: int
    """From 1."""
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    imported: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    """Sessions that the store has already, word for word."""
    rejected: list[Rejection] = field(default_factory=list)


def dump_line(session: Session) -> str:
    """One session as one line, without its LF."""
    return json.dumps(session.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)


def parse(line: str) -> Session:
    """The session of one line.

    Raises:
        BadLine: not JSON, another schema, or a value out of its range.
    """
    try:
        data = json.loads(line, parse_constant=_no_constant)
        unstorable = UNSTORABLE.search(line) or _has_unstorable(data)
    except ValueError as error:
        raise BadLine(f"not JSON: {error}") from None
    except RecursionError:
        raise BadLine("nested too deeply") from None
    if not isinstance(data, dict):
        raise BadLine("not a JSON object")
    if data.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise BadLine(
            f"schema_version {data['schema_version']!r} is not known; this is {SCHEMA_VERSION}"
        )
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise BadLine(f"{missing[0]} is missing")
    if unstorable:
        raise BadLine("a text holds NUL or half a surrogate pair")
    numeric = [key for key in WALL_TIMES if not isinstance(data.get(key), str | None)]
    if numeric:
        raise BadLine(f"{numeric[0]}: a wall time is an ISO 8601 text")
    try:
        session = Session.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise BadLine(f"{where or 'session'}: {what}") from None
    if session.consent is Consent.TALK_ONLY:
        raise BadLine("consent is talk_only, which is never stored")
    for name, items in (("turns", session.turns), ("windows", session.windows)):
        indices = [item.index for item in items]
        if indices != sorted(set(indices)):
            raise BadLine(f"{name}: indices must rise and be used once")
        if indices and indices[-1] > LARGEST_INDEX:
            raise BadLine(f"{name}: an index is over {LARGEST_INDEX}")
    return session


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _has_unstorable(data: Any) -> bool:
    if isinstance(data, str):
        return UNSTORABLE.search(data) is not None
    if isinstance(data, dict):
        return any(_has_unstorable(k) or _has_unstorable(v) for k, v in data.items())
    return isinstance(data, list) and any(_has_unstorable(item) for item in data)


def export_sessions(sessions: Iterable[Session], path: Path | None) -> int:
    """Write sessions to `path` (whole or not at all), or to standard output; returns how many.

    Raises:
        StoreError: the file cannot be written.
    """
    if path is None:
        return _write(sessions, sys.stdout.buffer)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
                    count = _write(sessions, packed)
            else:
                count = _write(sessions, raw)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(name, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        Path(name).unlink(missing_ok=True)
    return count


def _write(sessions: Iterable[Session], out: Any) -> int:
    count = 0
    for session in sessions:
        out.write(dump_line(session).encode() + b"\n")
        count += 1
    return count


def read_file(path: Path) -> Iterator[tuple[int, Session | Rejection]]:
    """Line number, and its session or why it is none. Blank lines are passed over.

    Raises:
        StoreError: the file cannot be opened or is damaged as a whole.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield from _lines(gzip.GzipFile(fileobj=raw) if packed else raw)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StoreError(f"{path}: damaged gzip: {error}", "what came before it was read") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None


def _lines(stream: BinaryIO) -> Iterator[tuple[int, Session | Rejection]]:
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE)
            yield number, Rejection(number, f"longer than {LONGEST_LINE >> 20} MiB")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            yield number, parse(line.decode())
        except UnicodeDecodeError:
            yield number, Rejection(number, "not UTF-8")
        except BadLine as error:
            yield number, Rejection(number, str(error))


def import_file(store: Store, path: Path, dry_run: bool = False) -> ImportReport:
    """Add the sessions of a file; a bad line is rejected, the good ones are kept.

    Raises:
        StoreError: the file or the store cannot be used at all.
    """
    report = ImportReport()
    seen: dict[str, int] = {}
    for number, found in read_file(path):
        if isinstance(found, Rejection):
            report.rejected.append(found)
        elif found.id in seen:
            reason = f"session {found.id} was on line {seen[found.id]} already"
            report.rejected.append(Rejection(number, reason))
        elif store.has(found.id):
            if store.get(found.id) == found:  # not as text: SQLite stores -0.0 as 0.0
                report.duplicates.append(found.id)
            else:
                reason = f"session {found.id} is in the store with other content"
                report.rejected.append(Rejection(number, reason))
        else:
            if not dry_run:
                store.insert(found)
            report.imported.append(found.id)
        if not isinstance(found, Rejection):
            seen.setdefault(found.id, number)
    return report
