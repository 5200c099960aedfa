"""Every test module declares one category, so that nothing slow hides among the quick."""

import pytest

CATEGORIES = {"unit", "engine", "transport", "e2e", "gpu", "llamacpp", "vllm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if len(CATEGORIES & {mark.name for mark in item.iter_markers()}) != 1:
            raise pytest.UsageError(
                f"{item.nodeid}: set pytestmark to exactly one of {sorted(CATEGORIES)}"
            )
