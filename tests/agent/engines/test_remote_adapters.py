"""How adapters are asked for: the contracts of vLLM and of llama.cpp, over a real socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.config import ResponderEngine
from agent.engines.model_server import Patience
from agent.engines.protocols import Message
from agent.engines.remote_adapters import Adapter, find_adapter
from agent.engines.responder_openai import OpenAIResponder
from agent.errors import EngineError, PolicyError

pytestmark = pytest.mark.transport


class Shelf:
    """Answers as a server that has these adapters."""

    def __init__(self) -> None:
        self.models = ["base"]
        self.loras: list[dict[str, Any]] = []
        self.loads = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.hangs = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = {"data": [{"id": name} for name in outer.models]}
                self._say(200, outer.loras if self.path == "/lora-adapters" else listed)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                if self.path == "/v1/chat/completions":
                    outer.hangs.wait(20)
                elif outer.loads:
                    outer.models.append(body["lora_name"])
                self._say(200 if outer.loads else 404, {})

            def _say(self, status: int, data: object) -> None:
                text = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.hangs.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    one = Shelf()
    yield one
    one.close()


def find(shelf: Shelf, kind: str, folder: Path | None) -> Adapter | None:
    settings = {"url": shelf.url, "model": "base", "adapters": kind, "adapter": folder}
    return find_adapter(ResponderEngine.model_validate(settings), None)


def test_by_name(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not have the adapter policy-1"):
        find(shelf, "names", tmp_path / "policy-1")
    shelf.models.append("policy-1")
    assert find(shelf, "names", tmp_path / "policy-1") == Adapter("policy-1", "policy-1")
    assert find(shelf, "names", None) is None


def test_vllm_loads_it_once(shelf: Shelf, tmp_path: Path) -> None:
    for _ in range(2):
        assert find(shelf, "vllm", tmp_path / "policy-1") == Adapter("policy-1", "policy-1")
    body = {"lora_name": "policy-1", "lora_path": str(tmp_path / "policy-1")}
    assert shelf.asked == [("/v1/load_lora_adapter", body)]


def test_vllm_that_may_not_load(shelf: Shelf, tmp_path: Path) -> None:
    shelf.loads = False
    with pytest.raises(PolicyError, match=r"policy-1 \(HTTP 404\).*RUNTIME_LORA_UPDATING"):
        find(shelf, "vllm", tmp_path / "policy-1")


def test_llama_cpp_says_every_scale(shelf: Shelf, tmp_path: Path) -> None:
    shelf.loras = [{"id": 0, "path": "/srv/policy-1.gguf"}, {"id": 1, "path": "/srv/two/a.gguf"}]
    found = find(shelf, "llama.cpp", tmp_path / "two")
    scales = [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]
    assert found == Adapter("two", "base", {"lora": scales})
    base = find(shelf, "llama.cpp", None)
    assert base is not None and [s["scale"] for s in base.extra["lora"]] == [0.0, 0.0]
    with pytest.raises(PolicyError, match="does not have the adapter other"):
        find(shelf, "llama.cpp", tmp_path / "other")


def test_none_never_pretends(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="asks no server for it"):
        find(shelf, "none", tmp_path)


def test_a_server_that_is_down_is_no_refusal(shelf: Shelf, tmp_path: Path) -> None:
    shelf.close()
    with pytest.raises(EngineError, match="ConnectError"):
        find(shelf, "names", tmp_path)


# --- how long a server is waited for -----------------------------------------------------------


def ask(shelf: Shelf, patience: Patience, stop: threading.Event | None = None) -> list[str]:
    wanted = stop or threading.Event()
    responder = OpenAIResponder(shelf.url, "base", patience=patience)
    return list(responder.open().reply([Message("user", "Hi.")], wanted.is_set))


def until(what: Any) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_no_first_token_in_time_then_it_is_left_alone(shelf: Shelf) -> None:
    patience = Patience(first_token_s=0.2)
    for _ in range(2):
        with pytest.raises(EngineError, match="too slow"):
            ask(shelf, patience)
    with pytest.raises(EngineError, match="it is asked again in"):
        ask(shelf, patience)
    assert len(shelf.asked) == 2, "the third was not sent"


def test_too_many_fail_at_once_and_stopping_needs_no_token(shelf: Shelf) -> None:
    patience = Patience(in_flight=1, waiting=0, first_token_s=30)
    stop = threading.Event()
    said: list[list[str]] = []
    first = threading.Thread(target=lambda: said.append(ask(shelf, patience, stop)))
    first.start()
    until(lambda: shelf.asked)
    with pytest.raises(EngineError, match="1 replies in work"):
        ask(shelf, patience)
    stop.set()
    first.join(10)
    assert said == [[]] and not shelf.hangs.is_set(), "it gave up while the server still thinks"
