"""An OpenAI-compatible server on loopback that misbehaves as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Script = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Plays one script for each request: a function that writes the response."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str], dict]] = []
        self.came: list[float] = []
        """When each request came, time.monotonic()."""
        self.scripts: list[Script] = []
        self.broken = threading.Event()
        """Set when a connection was found closed."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.came.append(time.monotonic())
                outer.requests.append((self.path, dict(self.headers), body))
                script = outer.scripts.pop(0) if len(outer.scripts) > 1 else outer.scripts[0]
                try:
                    script(self)
                except (BrokenPipeError, ConnectionResetError):
                    outer.broken.set()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def begin(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()


def send(handler: BaseHTTPRequestHandler, text: str) -> None:
    handler.wfile.write(text.encode())
    handler.wfile.flush()


def chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"content": text}}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


def stream(*pieces: str, end: str = "data: [DONE]\n\n") -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        begin(handler)
        send(handler, ": a comment\n\n")
        send(handler, 'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n')
        for piece in pieces:
            send(handler, chunk(piece))
        send(handler, end)

    return script


def status(code: int, body: str = '{"error": "no"}', retry_after: str | None = None) -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        send(handler, body)

    return script


def endless(handler: BaseHTTPRequestHandler) -> None:
    begin(handler)
    for _ in range(100_000):
        send(handler, chunk("more "))
        time.sleep(0.001)


def until_closed(handler: BaseHTTPRequestHandler) -> None:
    """Wait, silent, for the other side to close."""
    handler.connection.settimeout(20)
    if handler.connection.recv(1) == b"":
        raise ConnectionResetError


@contextmanager
def serving(*scripts: Script, port: int = 0) -> Iterator[Server]:
    """A server that plays these, the last of them again and again."""
    made = Server(port)
    made.scripts = list(scripts)
    try:
        yield made
    finally:
        made.close()
