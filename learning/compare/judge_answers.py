"""What a judge answered: read from its text, and kept on disk so that nothing is asked twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learning.errors import DataError

Answer = dict[str, bool]
"""Letter of a reply to yes or no."""

_SAID = {"yes": True, "no": False, "true": True, "false": False}
_LINE = re.compile(r"\W*([A-Z])\W+(yes|no)\W*", re.IGNORECASE)


def parse(text: str, letters: str) -> Answer | None:
    """Yes or no for every letter, or None.

    Read is a JSON object with exactly these letters (in a code fence or not, after a thought that
    ends in </think> or not), or one line `A: yes` a letter and nothing else.
    """
    text = text.rpartition("</think>")[2].strip()
    if fenced := re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, re.DOTALL):
        text = fenced[1]
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        lines = [_LINE.fullmatch(line) for line in text.splitlines() if line.strip()]
        pairs = [(m[1], m[2]) for m in lines if m] if all(lines) else []
    if not isinstance(pairs, list) or not all(isinstance(p, tuple) for p in pairs):
        return None
    found = {str(key).strip().upper(): _yes(value) for key, value in pairs}
    if len(found) != len(pairs) or set(found) != set(letters) or None in found.values():
        return None
    return {letter: bool(found[letter]) for letter in letters}


def _yes(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return _SAID.get(value.strip(" .").lower()) if isinstance(value, str) else None


class Answers:
    """Digest of what was asked to what was answered (None: unreadable), one JSON line each.

    A line that a kill cut short, or that is no answer, does not count.

    Args:
        file: need not exist.

    Raises:
        DataError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, Answer | None] = {}
        self._lock = threading.Lock()
        self._handle: Any = None
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from None
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                row = json.loads(line)
                answer = row["answer"]
                if answer is None or all(isinstance(v, bool) for v in answer.values()):
                    self.known[row["digest"]] = answer

    def has(self, digest: str, letters: str) -> bool:
        """Whether this was asked before, about these letters."""
        if digest not in self.known:
            return False
        answer = self.known[digest]
        return answer is None or set(answer) == set(letters)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Append to the file from here on.

        Raises:
            DataError: it cannot be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+b") as handle:
                if handle.tell():
                    handle.seek(-1, os.SEEK_END)
                    if handle.read(1) != b"\n":
                        handle.write(b"\n")
                self._handle = handle
                yield
        except OSError as error:
            raise DataError(f"{self.file} cannot be written: {error.strerror}") from None
        finally:
            self._handle = None

    def add(self, digest: str, answer: Answer | None) -> None:
        """Keep one answer; from any thread."""
        line = json.dumps({"digest": digest, "answer": answer}) + "\n"
        with self._lock:
            self.known[digest] = answer
            self._handle.write(line.encode())
            self._handle.flush()
