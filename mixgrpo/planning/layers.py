"""The files of config/ as a person wrote them, and how one lies on top of another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixgrpo.config import Settings
from mixgrpo.planning.checking import Findings, keys_at, may_be_null, unknown, unknown_key

ROLES = ("model", "dataset", "rewards")
"""Settings that name a role; the preset says what plays it."""
BLOCKS = ("window", "sampling", "trained_steps", "training", "dpo")
"""Settings that are blocks of keys; layers merge inside them. Some may be null."""
COMMAND_LINE = ("preset", "seeds")
"""What `snakemake --config` may say."""


@dataclass(frozen=True)
class Layer:
    """What one file, or one block of it, says about settings."""

    file: str
    prefix: str
    """Where the block stands in the file: "" or "mixgrpo."."""
    data: Mapping[str, Any]

    def says(self, key: str) -> bool:
        """Whether it sets the dotted `key`."""
        data: Any = self.data
        for part in key.split("."):
            if not isinstance(data, Mapping) or part not in data:
                return False
            data = data[part]
        return True


class Files:
    """The files of a config folder, as a person wrote them."""

    def __init__(self, folder: Path, overrides: Mapping[str, Any], findings: Findings) -> None:
        self.folder, self.findings = folder, findings
        for key in set(overrides) - set(COMMAND_LINE):
            findings.add("command line, --config", key, unknown_key(key, COMMAND_LINE))
        self.base = self.read("config.yaml")
        self.preset_name = str(overrides.get("preset", self.base.get("preset")))
        self.presets = self.read_presets()
        self.methods = {
            path.stem: self.read(f"methods/{path.name}") for path in self.in_folder("methods")
        }
        self.models = {
            path.stem: self.read(f"models/{path.name}") for path in self.in_folder("models")
        }
        self.cells, self.tables = self.read("cells.yaml"), self.read("tables.yaml")
        self.figures, self.sweep = self.read("figures.yaml"), self.read("sweep.yaml")
        self.seeds: Any = self.preset.get("seeds", self.base.get("seeds"))
        if "seeds" in overrides:
            self.seeds = numbers(overrides["seeds"])

    @property
    def preset(self) -> dict[str, Any]:
        """What the preset says, on top of those that it is based on."""
        return merged(self.presets)

    def name(self, file: str) -> str:
        """A file as messages call it."""
        return f"{self.folder.name}/{file}"

    def read(self, file: str) -> dict[str, Any]:
        """One file."""
        return self.findings.read(self.folder / file, self.name(file))

    def in_folder(self, name: str) -> list[Path]:
        """Its YAML files."""
        return sorted((self.folder / name).glob("*.yaml"))

    def read_presets(self) -> list[Layer]:
        """The preset, after those that it is based on."""
        known = {path.stem for path in self.in_folder("presets")}
        layers: list[Layer] = []
        name: Any = self.preset_name
        place, key = self.name("config.yaml or --config"), "preset"
        while name is not None:
            if not isinstance(name, str) or name not in known:
                self.findings.add(place, key, unknown(name, known))
                return []
            known.remove(name)
            place, key = self.name(f"presets/{name}.yaml"), "based_on"
            data = self.read(f"presets/{name}.yaml")
            name = data.pop("based_on", None)
            layers.insert(0, Layer(place, "", data))
        return layers


def numbers(values: Any) -> Any:
    """A list of the command line, whose numbers Snakemake hands on as text.

    >>> numbers(["0", "1", "x"])
    [0, 1, 'x']
    """
    if not isinstance(values, list):
        return values
    return [int(v) if isinstance(v, str) and v.isdecimal() else v for v in values]


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """What the layers say, the last one first heard."""
    data: dict[str, Any] = {}
    for layer in layers:
        data = merge(data, layer.data)
    return data


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` on top of `below`: blocks merge, everything else, and `rewards`, is replaced.

    >>> merge({"training": {"a": 1, "b": 2}, "rewards": {"x": 1}}, {"training": {"b": 3}, "rewards": {"y": 1}})
    {'training': {'a': 1, 'b': 3}, 'rewards': {'y': 1}}
    """
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both and key != "rewards" else value
    return merged


def read_layer(
    findings: Findings,
    file: str,
    prefix: str,
    data: Mapping[str, Any],
    others: Sequence[str] = (),
) -> Layer:
    """The settings in `data`, without unknown keys, which are mistakes; `others` may stand there too."""
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if key in others:
            continue
        if key not in (*ROLES, *BLOCKS):
            findings.add(file, f"{prefix}{key}", unknown_key(key, [*others, *ROLES, *BLOCKS]))
        elif key in ROLES:
            kept[key] = value
        else:
            keep_block(kept, findings, file, prefix, (key,), value)
    return Layer(file, prefix, kept)


def keep_block(
    kept: dict[str, Any],
    findings: Findings,
    file: str,
    prefix: str,
    place: tuple[str, ...],
    value: Any,
) -> None:
    """Put the block of settings at `place` into `kept`, without unknown keys, and only if it is one."""
    names, nullable = keys_at(Settings, place), may_be_null(Settings, place)
    if value is None and nullable:
        kept[place[-1]] = None
        return
    if not isinstance(value, Mapping):
        wanted = "a block of keys, or null" if nullable else "a block of keys"
        findings.add(file, f"{prefix}{'.'.join(place)}", f"got {value!r}, wanted {wanted}.")
        return
    block: dict[str, Any] = {}
    for name, inner in value.items():
        key = (*place, str(name))
        if name not in names:
            findings.add(file, f"{prefix}{'.'.join(key)}", unknown_key(name, names))
        elif keys_at(Settings, key):
            keep_block(block, findings, file, prefix, key, inner)
        else:
            block[name] = inner
    kept[place[-1]] = block


def blame(key: str, layers: Sequence[Layer]) -> Layer:
    """The layer that decided `key`."""
    return next((layer for layer in reversed(layers) if layer.says(key)), layers[0])
