"""The plan's table is what its arithmetic gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.plan import Inputs, lines, plan

pytestmark = pytest.mark.unit

TEXT = (Path(__file__).parents[3] / "configs" / "deploy" / "SCALING.md").read_text()


def test_the_table_is_computed() -> None:
    assert "\n".join(lines(plan(Inputs()))) in TEXT


def test_every_part_follows_its_input() -> None:
    half, whole = plan(replace(Inputs(), calls=5_000)), plan(Inputs())
    for section in ("Workers", "Policy", "Store"):
        assert half[section] != whole[section]
    assert half["CANDOR"] == whole["CANDOR"]
    slow = plan(replace(Inputs(), loop_s_per_s=0.09))["Workers"]
    assert slow["calls a worker (its event loop)"] == 6
    assert slow["workers"] == pytest.approx(10_000 / 6 * 1.3, abs=1)
