"""What is there when calls begin is not looked at again, and is let go all the same."""

from __future__ import annotations

import gc
import weakref

import pytest

from agent import collector

pytestmark = pytest.mark.unit


class Thing:
    """Can be referred to weakly."""


def test_what_is_loaded_is_spared_and_still_let_go() -> None:
    garbage, loaded = Thing(), Thing()
    garbage.itself = garbage  # type: ignore[attr-defined]
    gone, kept = weakref.ref(garbage), weakref.ref(loaded)
    del garbage
    before = gc.get_freeze_count()
    try:
        collector.spare_loaded()
        assert gone() is None, "what was garbage already is not spared"
        assert gc.get_freeze_count() > before
        assert not any(thing is loaded for thing in gc.get_objects())
        del loaded
        assert kept() is None
    finally:
        gc.unfreeze()


def test_no_pass_in_the_block_and_as_before_after_it() -> None:
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
