"""Where the files of a corpus lie: a folder, or object storage by URL."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from learning.errors import DataError

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""Variables that name an S3 server other than AWS's, as `endpoint_override=` in a URL does."""


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

    Keys are taken from where the storage's own tools take them (`AWS_ACCESS_KEY_ID` …), never from
    the URL. Every method raises `OSError` where the storage fails.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """pyarrow's filesystem, and the folder in it."""
        from pyarrow import fs

        if "://" not in self.url:
            return fs.LocalFileSystem(), str(Path(self.url).expanduser().absolute())
        url = self._for_s3() if self.url.startswith("s3://") else self.url
        try:
            try:
                system, root = fs.FileSystem.from_uri(url)
            except (ValueError, NotImplementedError) as error:
                if "Unrecognized filesystem type" not in str(error):
                    raise
                import fsspec

                found, root = fsspec.core.url_to_fs(url)
                system = fs.PyFileSystem(fs.FSSpecHandler(found))
        except (ValueError, NotImplementedError, ImportError, OSError) as error:
            line = _line(error).replace(url, str(self))
            raise DataError(f"{self}: cannot be used: {line}") from None
        return system, root.rstrip("/")

    def _for_s3(self) -> str:
        """The URL for pyarrow, which reads options of S3 in the query.

        Raises:
            DataError: a key in it.
        """
        if {":", "@"} & set(urlsplit(self.url).netloc):
            raise DataError(
                f"{self}: holds a key, which lists of processes would show",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
            )
        if "endpoint_override=" in self.url or any(name in os.environ for name in ENDPOINTS):
            # The SDK's checksums come after the content, which is then sent without its length:
            # others than AWS refuse that (HTTP 411).
            os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
        if "allow_delayed_open=" in self.url:
            return self.url
        # A small file is one request then, of which a killed writer leaves nothing.
        return f"{self.url}{'&' if '?' in self.url else '?'}allow_delayed_open=true"

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}  # each process opens its own

    def __str__(self) -> str:
        """The URL without a key or a query: what messages may show."""
        if "://" not in self.url:
            return self.url
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme == "s3" and ":" in host:  # a key with a slash in it
            return "s3://…"
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    @property
    def local(self) -> Path | None:
        """The folder where it is one of this machine."""
        from pyarrow import fs

        system, root = self._opened
        return Path(root) if isinstance(system, fs.LocalFileSystem) else None

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
        try:
            system.delete_file(f"{root}/{name}")
        except FileNotFoundError:
            pass
        except OSError:
            # On S3 pyarrow writes an empty `<folder>/` afterwards, which some servers refuse.
            if self.has(name):
                raise

    @contextlib.contextmanager
    def near(self, name: str) -> Iterator[Path]:
        """A file as one of this machine: itself, or a copy that goes with the block.

        The copy has no name on the disk, so that a killed process leaves no face there.
        """
        if (folder := self.local) is not None:
            yield folder / name
            return
        with tempfile.TemporaryFile() as copy:
            with self.open(name) as file:
                while piece := file.read(1 << 22):
                    copy.write(piece)
            copy.flush()
            yield Path(f"/proc/self/fd/{copy.fileno()}")


@contextlib.contextmanager
def told(place: Place) -> Iterator[None]:
    """A storage that fails is one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{place}: {_line(error)}", "check the place and who may use it") from None


def _line(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return str((said.splitlines() or [type(error).__name__])[0])[:200]
