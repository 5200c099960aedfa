"""A local OpenAI-compatible server whose answers a test decides."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | tuple[int, dict[str, str]]
"""The answer's text, or a status with headers."""


@dataclass
class FakeJudge:
    """Requests it got, and where it is."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def shown(body: dict[str, Any]) -> dict[str, str]:
    """Letter to reply, as the first request about it listed them."""
    text = body["messages"][1]["content"]
    block = text.partition("<replies>\n")[2].partition("\n</replies>")[0]
    return dict(re.findall(r"^([A-Z]): (.*)$", block, re.MULTILINE))


def verdict(body: dict[str, Any], likes: Callable[[str, str], bool]) -> str:
    """A well-formed answer: yes where `likes(letter, reply)`."""
    return json.dumps({k: "yes" if likes(k, v) else "no" for k, v in shown(body).items()})


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[FakeJudge]:
    """Serve until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                judge.bodies.append(body)
                judge.headers.append(dict(self.headers))
                said = answer(body)
            status, headers = (200, {}) if isinstance(said, str) else said
            message = {"role": "assistant", "content": said}
            content = json.dumps(
                {"choices": [{"message": message}]}
                if status == 200
                else {"error": {"message": f"you sent {body}"}}
            ).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge = FakeJudge(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
