"""cells.yaml resolved: config.yaml <- preset <- model <- method <- cell <- the preset's own word on the cell."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mixgrpo.config import Settings
from mixgrpo.planning.checking import check, unknown
from mixgrpo.planning.experiment import Cell
from mixgrpo.planning.layers import BLOCKS, ROLES, Files, Layer, blame, merged, read_layer
from mixgrpo.planning.sheets import PresetSheet, Sweep

CELL_NAME = re.compile("[a-z0-9_]+")


class Layers:
    """The layers of cells; those that many cells share are read once."""

    def __init__(self, files: Files, sheet: PresetSheet) -> None:
        self.files, self.sheet = files, sheet
        findings, others = files.findings, ("preset", "seeds", "evaluation")
        self.common = [read_layer(findings, files.name("config.yaml"), "", files.base, others)]
        for preset in files.presets:
            data = {key: value for key, value in preset.data.items() if key in (*ROLES, *BLOCKS)}
            self.common.append(read_layer(findings, preset.file, "", data))
        self.models, self.methods = (
            {
                name: read_layer(findings, files.name(f"{folder}/{name}.yaml"), "", data)
                for name, data in found.items()
            }
            for folder, found in (("models", files.models), ("methods", files.methods))
        )

    def of(self, cell: str) -> list[Layer]:
        """What decides the settings of `cell`, the last one first heard; all its keys are known."""
        block, findings = self.files.cells[cell], self.files.findings
        file, others = self.files.name("cells.yaml"), ("method", "trained")
        above = [read_layer(findings, file, f"{cell}.", block, others)]
        if cell in self.sheet.cells:
            place = blame(f"cells.{cell}", self.files.presets).file
            own = self.sheet.cells[cell]
            above.append(read_layer(findings, place, f"cells.{cell}.", own))
        if "method" in block:
            above.insert(0, self.methods[block["method"]])
        said = blame("model", [*self.common, *above])
        model = said.data.get("model")
        if isinstance(model, str) and model in self.models:
            above.insert(0, self.models[model])
        elif isinstance(model, str) and model in self.sheet.models:
            wanted = self.files.name(f"models/{model}.yaml")
            message = (
                f"there is no {wanted} that says what training on it changes; {{}} is nothing."
            )
            findings.add(said.file, f"{said.prefix}model", message)
        return [*self.common, *above]


def read_cells(files: Files, layers: Layers, seeds: tuple[int, ...]) -> dict[str, Cell]:
    """Every cell of cells.yaml whose settings hold."""
    cells: dict[str, Cell] = {}
    sheet = layers.sheet
    for cell in sheet.cells.keys() - files.cells.keys():
        place = blame(f"cells.{cell}", files.presets).file
        files.findings.add(place, f"cells.{cell}", unknown(cell, files.cells))
    for cell, block in files.cells.items():
        if not is_cell(files, cell, block):
            continue
        trained = "method" in block
        settings = resolve(files, cell, layers.of(cell), sheet, trained=trained)
        if settings is not None:
            cells[cell] = Cell(settings=settings, trained=trained, seeds=seeds if trained else (0,))
    return cells


def is_cell(files: Files, cell: str, block: Any) -> bool:
    """Whether a block of cells.yaml names its method, or says that it is untrained and of which model."""
    file, findings = files.name("cells.yaml"), files.findings
    if not CELL_NAME.fullmatch(str(cell)):
        findings.add(
            file, str(cell), "a cell's name is a folder: lower-case letters, digits and _."
        )
    elif not isinstance(block, Mapping) or ("method" in block) == ("trained" in block):
        findings.add(file, cell, f"got {block!r}, wanted `method:`, or `trained: false`.")
    elif "method" in block and block["method"] not in [*files.methods]:
        findings.add(file, f"{cell}.method", unknown(block["method"], files.methods))
    elif "trained" in block and {**block, "model": 0} != {"trained": False, "model": 0}:
        message = (
            f"got {block!r}; an untrained cell says `trained: false` and its model, nothing else."
        )
        findings.add(file, cell, message)
    else:
        return True
    return False


def resolve(
    files: Files, cell: str, layers: Sequence[Layer], sheet: PresetSheet, *, trained: bool
) -> Settings | None:
    """The layers merged and their roles resolved; an untrained cell keeps nothing but its roles."""
    data = merged(layers)
    place = blame("rewards", layers)
    rewards = files.findings.mapping(data.get("rewards"), place.file, f"{place.prefix}rewards")
    roles: dict[str, tuple[Mapping[str, Any], Sequence[str]]] = {
        "model": (sheet.models, [str(data.get("model"))]),
        "dataset": (sheet.datasets, [str(data.get("dataset"))]),
        "rewards": (sheet.reward_models, list(rewards)),
    }
    for key, (known, names) in roles.items():
        for name in names:
            if name not in known:
                place = blame(key, layers)
                files.findings.add(
                    place.file, f"{place.prefix}{key}", unknown(name, known), seen_in=cell
                )
                return None
    settings = {
        "preset": files.preset_name,
        "seed": 0,
        "model": asdict(sheet.models[data["model"]]),
        "dataset": sheet.datasets[data["dataset"]].name,
        "rewards": {
            sheet.reward_models[role].name: {
                "weight": weight,
                "path": sheet.reward_models[role].path,
                "options": sheet.reward_models[role].options,
            }
            for role, weight in rewards.items()
        },
        **{block: data[block] for block in BLOCKS if trained and block in data},
    }
    checked = check(Settings, settings)
    for problem in checked.problems:
        named = re.findall(r"((?:[a-z_]+\.)*)([a-z_]+)=", problem.message)
        keys = [f"{block or f'{problem.key}.'}{name}" for block, name in named] or [problem.key]
        if problem.key.startswith("rewards."):
            keys = ["rewards"]
        places = [blame(key, layers) for key in keys]
        where = ", ".join(dict.fromkeys(place.file for place in places))
        files.findings.add(where, f"{places[0].prefix}{problem.key}", problem.message, seen_in=cell)
    return checked.value


def sweep_cells(
    files: Files, layers: Layers, sweep: Sweep, known: Mapping[str, Cell]
) -> dict[str, Cell]:
    """A cell for every value in every cell that is swept."""
    file, cells = files.name("sweep.yaml"), {}
    trained = [
        name
        for name, block in files.cells.items()
        if isinstance(block, Mapping) and "method" in block
    ]
    for name in sweep.cells:
        if name not in trained:
            files.findings.add(file, "cells", unknown(name, trained))
        if name not in known:
            continue
        for value in sweep.values:
            tried = read_layer(files.findings, file, "", nested(sweep.key, value))
            if not tried.says(sweep.key):
                return {}
            swept = [*layers.of(name), tried]
            settings = resolve(files, name, swept, layers.sheet, trained=True)
            if settings is not None:
                cells[sweep_name(name, value)] = Cell(
                    settings=settings,
                    trained=True,
                    seeds=tuple(sweep.seeds),
                    group=name,
                    value=value,
                )
    return cells


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key as blocks.

    >>> nested("training.learning_rate", 1e-5)
    {'training': {'learning_rate': 1e-05}}
    """
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def sweep_name(cell: str, value: float) -> str:
    """Name of a cell of the sweep.

    >>> sweep_name("mixgrpo", 5e-5)
    'sweep_mixgrpo_5e-05'
    """
    return f"sweep_{cell}_{value:g}"
