"""The deployment examples agree with the configuration and with each other.

Neither Docker nor Kubernetes runs here: what can be read is held against what the program takes.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from agent import config
from agent.config import Config
from agent.web.rtc import check_ice_servers
from agent.web.security import HEALTH

pytestmark = pytest.mark.unit

DEPLOY = Path(__file__).parents[3] / "configs" / "deploy"
ROOM_S = 30
"""What the end takes beyond draining, at least."""


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.fixture
def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def settings(name: str) -> Config:
    made = config.load(DEPLOY / name, ["server.internal_host=10.77.0.5"])
    check_ice_servers(made)
    return made


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def environment() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_file_says_what_it_assumes() -> None:
    files = {path.name for path in DEPLOY.iterdir()}
    assert files == {
        "compose.yaml", "kubernetes.yaml", "nginx.conf", "geli.toml", "geli-vllm.toml",
        "env.example", "Dockerfile", "prometheus.yml", "alerts.yml", "grafana.json", "SCALING.md",
        "LLAMACPP.md",
    }  # fmt: skip
    for name in files - {"env.example", "SCALING.md", "LLAMACPP.md"}:
        assert "Assumes:" in (DEPLOY / name).read_text(), name


@pytest.mark.parametrize("name", ["geli.toml", "geli-vllm.toml"])
def test_compose_and_its_configurations(name: str, compose: dict[str, Any]) -> None:
    loaded, services, given = settings(name), compose["services"], environment()
    server = loaded.server
    (pool,) = compose["networks"]["geli"]["ipam"]["config"]
    assert pool["subnet"] in server.trusted_proxies
    ipaddress.ip_network(pool["subnet"])
    database = sa.make_url(loaded.store.url)
    postgres = services[database.host or ""]["environment"]
    assert database.username == postgres["POSTGRES_USER"]
    assert database.database == postgres["POSTGRES_DB"]
    assert database.password == given["POSTGRES_PASSWORD"]
    assert server.turn_secret == given["TURN_SECRET"]
    turn = " ".join(services["coturn"]["command"])
    assert "--use-auth-secret" in turn
    assert "--static-auth-secret=${TURN_SECRET:?" in turn
    (port,) = re.findall(r"--listening-port=(\d+)", turn)
    assert all(f":{port}?" in url for url in server.turn_urls)
    for host in ("geli-1", "geli-2"):
        one = services[host]
        (command,) = one["command"]
        assert "--set server.internal_host=$$(hostname -i)" in command
        assert f"./{name}:/etc/geli/{name}:ro" in one["volumes"]
        assert seconds(one["stop_grace_period"]) >= server.drain_s + ROOM_S
        assert f"http://127.0.0.1:{server.port}{HEALTH[0]}" in one["healthcheck"]["test"][-1]
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    targets = [f"geli-{n}:{loaded.telemetry.metrics_port}" for n in (1, 2)]
    assert scrape["static_configs"][0]["targets"] == targets
    if loaded.responder.engine == "openai":
        url = re.fullmatch(r"http://(\w+):(\d+)/v1", loaded.responder.url or "")
        assert url is not None
        words = services[url[1]]["command"]
        assert words[words.index("--port") + 1] == url[2]
        assert words[words.index("--model") + 1] == loaded.responder.model


def test_what_compose_takes_from_the_environment_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert used == set(environment())


def test_nginx_and_compose(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    upstream = dict(re.findall(r"server (geli-\d):(\d+)", text))
    assert set(upstream) == {name for name in compose["services"] if name.startswith("geli-")}
    assert set(upstream.values()) == {str(settings("geli.toml").server.port)}
    (listen,) = re.findall(r"listen (\d+) ssl", text)
    nginx = compose["services"]["nginx"]
    assert nginx["ports"] == [f"{listen}:{listen}"]
    assert "./nginx.conf:/etc/nginx/nginx.conf:ro" in nginx["volumes"]
    assert "/etc/nginx/tls/cert.pem" in text
    assert "./tls:/etc/nginx/tls:ro" in nginx["volumes"]
    size = re.search(r"client_max_body_size (\d+)k", text)
    assert size is not None
    assert int(size[1]) * 1024 == config.load("cpu").limits.body_bytes


def test_kubernetes_and_its_configuration(
    kubernetes: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (name, text), *more = kubernetes["Secret"]["stringData"].items()
    assert not more
    (tmp_path / name).write_text(text)
    pod = kubernetes["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    words = [word.replace("$(POD_IP)", "10.244.0.9") for word in container["args"]]
    assert [env["name"] for env in container["env"]] == ["POD_IP"]
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    loaded = config.load(tmp_path / name, overrides)
    check_ice_servers(loaded)
    server = loaded.server
    assert server.internal_host == "10.244.0.9"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert words[words.index("--config") + 1] == f"{mounts['config']}/{name}"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"page": server.port, "internal": server.internal_port}
    assert pod["spec"]["terminationGracePeriodSeconds"] >= server.drain_s + ROOM_S
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"].partition("?")[0] in HEALTH
        assert asked["port"] == "internal"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz?for=pages"
    service = kubernetes["Service"]["spec"]["ports"][0]
    assert (service["port"], service["targetPort"]) == (server.port, "page")
    labels = pod["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    assert kubernetes["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    policy = kubernetes["NetworkPolicy"]["spec"]
    (internal,) = [
        rule for rule in policy["ingress"] if {"port": ports["internal"]} in rule["ports"]
    ]
    assert internal["from"] == [{"podSelector": {"matchLabels": labels}}]
    ingress = kubernetes["Ingress"]["spec"]
    assert server.allowed_origins == [f"https://{ingress['rules'][0]['host']}"]


def test_the_image_has_what_the_makefile_installs() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    makefile = (DEPLOY.parents[1] / "Makefile").read_text()
    (packages,) = re.findall(r"^RUN_PACKAGES := (.*)$", makefile, re.MULTILINE)
    assert packages in dockerfile
    for folder in ("agent", "perception", "learning", "tui", "configs"):
        assert f"COPY {folder} {folder}" in dockerfile
