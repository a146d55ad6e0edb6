"""Every module of the layer shows its numbers in doctests, and they hold."""

import doctest
import importlib
import pkgutil

import pytest

import mixgrpo.algorithm

MODULES = [module.name for module in pkgutil.iter_modules(mixgrpo.algorithm.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_hold(name):
    outcome = doctest.testmod(importlib.import_module(f"mixgrpo.algorithm.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
