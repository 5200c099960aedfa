"""A registry with entries whose ids and times are known, for tests of the screens that show it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from agent.policies import Kind
from learning.registry import GateResult, Manifest, Registry
from tests.tui.screens import settle
from tui import jobs
from tui.app import Review

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
PASSED = GateResult(name="kl", value=3.0, threshold=12.0, passed=True, comparison="<=")
FAILED = GateResult(name="win_rate", value=0.4, threshold=0.5, passed=False, comparison=">=")
POLICY = {
    "score": 61.8, "kl": 3.0, "words": 12.2, "distinct_2": 0.78, "repetition": 0.0025,
    "refusals": 0.0, "unsafe": 0.34, "current_score": 54.5, "current_kl": 0.0,
    "current_words": 23.8, "current_distinct_2": 0.81, "current_repetition": 0.006,
    "current_refusals": 0.0, "current_unsafe": 0.29, "win_rate": 0.714,
}  # fmt: skip
REWARD = {
    "sessions": 5.0, "mse_mean": 638.4, "mse": 15.1, "mse_low": 2.4, "mse_high": 28.0, "mae": 3.27,
    "mae_low": 1.47, "mae_high": 5.03, "delta": 0.4636, "delta_low": 0.4024, "delta_high": 0.5356,
    "r_positive": 0.729, "r_positive_low": 0.684, "r_positive_high": 0.798,
    "r_non_positive": 0.265, "r_non_positive_low": 0.227, "r_non_positive_high": 0.299,
    "mse_ratio": 0.024, "mse_ratio_low": 0.004, "mse_ratio_high": 0.047, "epochs": 40.0,
}  # fmt: skip
CURVES = [{"update": n, "reward": 40.0 + n % 4 + n / 2, "kl": n / 5} for n in range(1, 21)]
LOSSES = [[1 / n, 1 / n + 0.1] for n in range(1, 21)]


class Entries:
    """Adds entries, each a minute after the one before, with ids that a test can name."""

    def __init__(self, registry: Registry, scratch: Path, patch: pytest.MonkeyPatch) -> None:
        self.registry, self.scratch, self.patch, self.n = registry, scratch, patch, 0

    def add(self, kind: Kind = "policy", **more: Any) -> Manifest:
        """An entry; `more` as for `Registry.add`."""
        self.n += 1
        at, tag = START + timedelta(minutes=self.n), f"{self.n:06x}"

        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return at

        fields: dict[str, Any] = {
            "base": "smollm2-135m-instruct" if kind == "policy" else "minilm-l6-v2",
            "seed": 0,
            "data_digest": "0123456789abcdef",
            "data_source": "store",
            "metrics": POLICY if kind == "policy" else REWARD,
            "gates": [PASSED],
            "settings": {f"setting_{i}": i for i in range(30)},
        }
        with self.patch.context() as patch:
            patch.setattr("learning.registry.datetime", Then)
            patch.setattr("learning.registry.secrets.token_hex", lambda _: tag)
            return self.registry.add(kind, self._files(kind), **(fields | more))

    def _files(self, kind: Kind) -> Path:
        folder = self.scratch / f"made-{self.n}"
        folder.mkdir(parents=True)
        if kind == "policy":
            (folder / "adapter_config.json").write_text("{}")
            (folder / "adapter_model.safetensors").write_bytes(b"weights")
            lines = "".join(json.dumps(line) + "\n" for line in CURVES)
            (folder / "curves.jsonl").write_text(lines)
        else:
            (folder / "reward.json").write_text("{}")
            (folder / "losses.json").write_text(json.dumps(LOSSES))
        return folder


def fake_geli(patch: pytest.MonkeyPatch, script: str) -> None:
    """`geli` is this Python script; its arguments are sys.argv[1:]."""
    patch.setattr(jobs, "GELI", (sys.executable, "-c", script))


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for it, looking at the screen anew each time."""
    for _ in range(3000):
        if condition():
            return
        await pilot.pause(0.01)
    raise AssertionError("it did not come")


async def press(pilot: Pilot[None], *keys: str) -> None:
    """One key after the other, each with all that comes of it."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def notices(app: Review) -> Sequence[str]:
    """What was said in the corner."""
    return [f"{one.title} {one.message}".strip() for one in app._notifications]


def asked(app: Review) -> str:
    """The text of the small window."""
    from textual.widgets import Static

    return "\n".join(str(one.render()) for one in app.screen.query(Static))
