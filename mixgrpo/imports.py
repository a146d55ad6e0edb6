"""Importing a module by its name, quickly."""

import gc
import importlib
from types import ModuleType


def import_module(name: str) -> ModuleType:
    """`importlib.import_module` with the garbage collector off: imports make many objects and no garbage.

    Those of torch, diffusers and transformers cost over a second more otherwise. What is alive afterwards is
    taken out of later collections.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
