"""Dashboard, scrape configuration and alerts name what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.config import load
from agent.telemetry.metrics import Metrics

pytestmark = pytest.mark.unit

DEPLOY = Path(__file__).parents[3] / "configs" / "deploy"
NAME = re.compile(r"\bgeli_[a-z_]+")


def expressions() -> dict[str, str]:
    """PromQL by where it stands."""
    board = json.loads((DEPLOY / "grafana.json").read_text())
    found = {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    return found


def known() -> dict[str, set[str]]:
    """Labels by name of a sample, of every instrument."""
    made = Metrics()
    found: dict[str, set[str]] = {}
    for instrument in vars(made).values():
        if not hasattr(instrument, "_labelnames"):
            continue
        own = set(instrument._labelnames)
        (family,) = list(instrument.collect())
        if family.type == "histogram":
            found |= {f"{family.name}_{part}": own for part in ("sum", "count")}
            found[f"{family.name}_bucket"] = own | {"le"}
        else:
            found[family.name + ("_total" if family.type == "counter" else "")] = own
    return found


def test_every_name_exists_and_every_metric_is_shown() -> None:
    there = known()
    assert len(there) > 25
    shown = set()
    for where, expression in expressions().items():
        names = set(NAME.findall(expression))
        assert names or expression.startswith("up{"), where
        assert names <= set(there), (where, names - set(there))
        shown |= names
        by = re.findall(r"by \(([^)]*)\)", expression)
        selected = re.findall(r"\b(\w+)=\"", expression)
        used = {label.strip() for group in by for label in group.split(",")} | set(selected)
        labels = {label for name in names for label in there[name]} | {"instance", "job"}
        assert used <= labels, (where, used - labels)

    def base(name: str) -> str:
        return re.sub(r"_(bucket|sum|count)$", "", name)

    assert {base(name) for name in there} == {base(name) for name in shown}


def test_brackets_close() -> None:
    for where, expression in expressions().items():
        for pair in ("()", "{}", "[]"):
            assert expression.count(pair[0]) == expression.count(pair[1]), where


def test_prometheus_reads_what_the_servers_serve() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["job_name"] == "geli"
    targets = job["static_configs"][0]["targets"]
    port = load(DEPLOY / "geli.toml", ["server.internal_host=10.77.0.5"]).telemetry.metrics_port
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert targets == [f"{name}:{port}" for name in services if name.startswith("geli-")]
    assert scrape["rule_files"] == ["alerts.yml"]


def test_the_text_is_prometheus_own_format() -> None:
    names = [family.name for family in text_string_to_metric_families(Metrics().text().decode())]
    assert "geli_calls_live" in names
    assert len(names) == len(set(names))


def test_help_does_not_load_telemetry() -> None:
    """`geli --help`, and what imports the calls, must stay quick."""
    code = (
        "import sys, agent.cli, agent.call; "
        "print([m for m in sys.modules if m.startswith(('prometheus', 'opentelemetry'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
