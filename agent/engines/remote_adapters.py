"""How a learned adapter is asked for at an OpenAI-compatible server, and whether it is there.

A policy that the server does not have is an error before any call begins with it: servers that
answer an unknown name with another model would speak for a policy that never spoke.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import httpx

from agent import policies
from agent.config import ResponderEngine
from agent.errors import EngineError, PolicyError

LOAD_S = 60.0
"""A server may read its model and the adapter before it answers."""


@dataclass(slots=True, frozen=True)
class Adapter:
    """What a request says so that this adapter speaks."""

    id: str
    """As the registry names it; empty: the base model."""
    model: str
    extra: dict[str, Any] = field(default_factory=dict)
    """More keys of the request's body."""


def find_adapter(settings: ResponderEngine, api_key: str | None) -> Adapter | None:
    """The adapter `settings.adapter` at the server; None: the server is not to know of adapters.

    Raises:
        PolicyError: the server does not have it, or its files are damaged.
        EngineError: the server is out of reach, or refuses to say.
    """
    folder, kind = settings.adapter, settings.adapters
    if kind == "none":
        if folder is not None:
            raise PolicyError(
                f"adapter {folder}: responder.adapters = 'none' asks no server for it",
                "set responder.adapters to what the server understands",
            )
        return None
    assert settings.url is not None
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(
        headers=headers, timeout=httpx.Timeout(LOAD_S, connect=settings.connect_s)
    ) as client:
        try:
            return _find(client, settings, settings.url.rstrip("/"), folder)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            why = type(error).__name__ if status is None else f"HTTP {status}"
            raise EngineError(
                f"the policy server {settings.url} does not say which adapters it has: {why}"
            ) from None


def _find(
    client: httpx.Client, settings: ResponderEngine, url: str, folder: Path | None
) -> Adapter | None:
    model, kind = settings.model, settings.adapters
    if folder is not None:
        # The server's name for the base need not be ours, so only the files are held to account.
        policies.check_adapter(folder, policies.base_of(folder) or model)
    if kind == "llama.cpp":
        return _among_loras(client, url, model, folder)
    if folder is None:
        return None
    name = folder.name
    if kind == "paths":
        return _by_path(client, url, name, settings.adapters_at.replace("{id}", name))
    if name not in _listed(client, url):
        if kind != "vllm":
            raise _unknown(url, name, f"serve it by that name: --lora-modules {name}={folder}")
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        answer = client.post(f"{url}/load_lora_adapter", json=body)
        if answer.status_code != 200 or name not in _listed(client, url):
            raise _unknown(
                url,
                f"{name} (HTTP {answer.status_code})",
                "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
                "where it can read that folder",
            )
    return Adapter(name, name)


def _listed(client: httpx.Client, url: str) -> set[str]:
    answer = client.get(f"{url}/models").raise_for_status()
    return {str(model["id"]) for model in answer.json()["data"]}


def _by_path(client: httpx.Client, url: str, name: str, path: str) -> Adapter:
    """Such a server lists no paths: it is asked for one token, which loads the policy too."""
    body = {"model": path, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello."}]}
    answer = client.post(f"{url}/chat/completions", json=body)
    if answer.status_code != 200:
        raise _unknown(
            url, f"{name} (HTTP {answer.status_code})", f"it must be able to read {path}"
        )
    return Adapter(name, path)


def _among_loras(client: httpx.Client, url: str, model: str, folder: Path | None) -> Adapter:
    """Each adapter's scale is said, for the base too: the server's own default may be another."""
    loras = client.get(f"{url.removesuffix('/v1')}/lora-adapters").raise_for_status().json()
    wanted = None if folder is None else folder.name
    scales = [
        {"id": lora["id"], "scale": 1.0 if wanted in _names(lora["path"]) else 0.0}
        for lora in loras
    ]
    if wanted is not None and sum(lora["scale"] for lora in scales) != 1.0:
        raise _unknown(url, wanted, f"start llama-server with --lora {wanted}.gguf")
    return Adapter(wanted or "", model, {"lora": scales})


def _names(path: str) -> set[str]:
    """`/srv/ID.gguf` and `/srv/ID/adapter.gguf` are both the policy ID."""
    return {PurePath(path).stem, PurePath(path).parent.name}


def _unknown(url: str, name: str, way_out: str) -> PolicyError:
    return PolicyError(f"the policy server {url} does not have the adapter {name}", way_out)
