"""What a vLLM server does for us, by our own decoding on a tiny model: `-m vllm` asks a real one.

Same requests and answers as vLLM 0.32 gave: `token_ids` with what ended them, processed
log-probabilities, adapters loaded and unloaded by name.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import torch

from agent.learning_config import Policy
from learning.policy.decoding import Sampling, heights, write
from learning.policy.model import PolicyModel, open_model

BASE = "tiny"


class Vllm:
    """Serves one model folder on 127.0.0.1 while the block lasts.

    Args:
        place: the base.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.settings = Policy(lora_r=4)
        self.models: dict[str, PolicyModel] = {BASE: self._open(None)}
        self.deaf = False
        """Loads an adapter and speaks with the base all the same."""
        self.fails: list[int] = []
        """Statuses of the next completions."""
        self.takes_adapters = True
        self.token_ids = True
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        vllm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self._say(200, json.dumps({"data": [{"id": name} for name in vllm.models]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with vllm._lock:
                    self._say(*vllm.answer(self.path, body))

            def _say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _open(self, adapter: Path | None) -> PolicyModel:
        return open_model(self.place, self.settings, torch.device("cpu"), adapter)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        match path:
            case "/v1/load_lora_adapter":
                name = body["lora_name"]
                if not self.takes_adapters or name in self.models:
                    return 400, json.dumps({"error": {"type": "InvalidUserInput"}})
                self.models[name] = self._open(None if self.deaf else Path(body["lora_path"]))
                return 200, f"Success: LoRA adapter '{name}' added successfully."  # no JSON
            case "/v1/unload_lora_adapter":
                known = self.models.pop(body["lora_name"], None)
                return (200, "Success") if known else (404, "{}")
            case "/v1/completions":
                self.asked.append(body)
                if self.fails:
                    return self.fails.pop(0), "{}"
                if body["model"] not in self.models:
                    return 404, "{}"
                return 200, json.dumps({"choices": [self._completion(body)]})
        return 404, "{}"

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(
            body["temperature"], body["max_tokens"], body["top_p"], body["repetition_penalty"]
        )
        chance = heights(1, sampling.tokens, body["seed"])
        stops = set(body["stop_token_ids"])
        done = write(self.models[body["model"]], [body["prompt"]], stops, sampling, chance)
        choice: dict[str, Any] = {"logprobs": {"token_logprobs": done.logprobs[0].tolist()}}
        return choice | ({"token_ids": done.replies[0]} if self.token_ids else {})
