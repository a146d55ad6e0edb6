"""A Snakemake profile, as far as a cluster has to do with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixgrpo.errors import UserError

NAMES = ("profile.yaml", "config.yaml")
"""What Snakemake looks for in the folder of a profile."""


@dataclass(frozen=True)
class Profile:
    """What stands in its file."""

    path: Path
    data: Mapping[str, Any]

    def number(self, option: str, default: float) -> float:
        """An option that is a number."""
        value = self.data.get(option, default)
        return float(value) if isinstance(value, int | float) else default

    def resources(self, key: str) -> Iterator[tuple[str, str]]:
        """(place, value) of a resource wherever the profile sets it, for all rules or for one."""
        yield from named("default-resources", self.data.get("default-resources"), key)
        rules = self.data.get("set-resources")
        if isinstance(rules, Mapping):
            for rule, block in rules.items():
                yield from named(f"set-resources.{rule}", block, key)
        else:  # a list of rule:key=value
            for entry in rules or ():
                rule, _, setting = str(entry).partition(":")
                yield from named(f"set-resources.{rule}", [setting], key)


def named(place: str, block: Any, key: str) -> Iterator[tuple[str, str]]:
    """The value of `key` in a block, which is a mapping or a list of key=value."""
    if isinstance(block, list):
        block = dict(str(entry).split("=", 1) for entry in block if "=" in str(entry))
    for name, value in block.items() if isinstance(block, Mapping) else ():
        if name == key and value is not None:
            yield f"{place}.{key}", str(value).strip("'\"")


def read_profile(path: Path) -> Profile:
    """UserError when there is no such file, or none for Slurm. Snakemake ignores a profile that it does not find."""
    path = (
        next((path / name for name in NAMES if (path / name).exists()), path / NAMES[0])
        if path.is_dir()
        else path
    )
    if not path.exists():
        others = sorted(str(p.parent) for p in Path("workflow/profiles").glob("*/profile.yaml"))
        hint = (
            f"Profiles here: {', '.join(others)}."
            if others
            else "There are none below workflow/profiles here."
        )
        raise UserError(
            f"the profile {path} does not exist, and Snakemake would run everything on this machine without a word. "
            f"Call make from the root of the repository, with the name or the folder of a profile (PROFILE=...). {hint}"
        )
    if path.name not in NAMES:
        raise UserError(
            f"the profile {path} must be called profile.yaml: Snakemake is given its folder."
        )
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError) as error:
        raise UserError(
            f"the profile {path} cannot be read: {' '.join(str(error).split())}."
        ) from None
    if not isinstance(data, Mapping):
        raise UserError(
            f"the profile {path} holds no options: got {data!r}, wanted `key: value` lines."
        )
    if data.get("executor") != "slurm":
        raise UserError(
            f"the profile {path} does not submit: got executor: {data.get('executor')}, wanted executor: slurm."
        )
    return Profile(path, data)
