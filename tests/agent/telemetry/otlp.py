"""An OTLP/HTTP receiver on loopback that keeps what arrives, as bytes and decoded."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Receiver:
    """What arrived so far."""

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self.paths: set[str] = set()
        self.spans: list[Any] = []
        self.resources: list[Any] = []

    def take(self, path: str, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.paths.add(path)
        self.raw += body
        for group in request.resource_spans:
            self.resources.append(group.resource)
            for scope in group.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def under(self, parent: Any) -> list[Any]:
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def tree(self) -> list[str]:
        """Lines: every span under its parent, begin and length in milliseconds."""
        (call,) = self.named("call")

        def lines(span: Any, depth: int) -> list[str]:
            begin = (span.start_time_unix_nano - call.start_time_unix_nano) / 1e6
            took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
            about = {a.key.removeprefix("geli."): value_of(a.value) for a in span.attributes}
            told = " ".join(f"{k}={v}" for k, v in about.items() if "engine" not in k)
            own = f"{'  ' * depth + span.name:24}{begin:9.1f}{took:9.1f}  {told}"
            return [own, *(line for child in self.under(span) for line in lines(child, depth + 1))]

        return lines(call, 0)


def value_of(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: value_of(a.value) for a in span.attributes}


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver while the block runs."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            found.take(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
