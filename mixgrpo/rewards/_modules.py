"""Modules in the place of those that an import asks for."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def modules_in_place(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Inside, `import {name}` gives `modules[name]`; afterwards what there was before, or nothing."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
