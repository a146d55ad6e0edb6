"""cells.yaml resolved: config.yaml <- preset <- method <- cell <- the preset's own word on the cell."""

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


def read_cells(files: Files, sheet: PresetSheet, seeds: tuple[int, ...]) -> dict[str, Cell]:
    """Every cell of cells.yaml whose settings hold."""
    cells: dict[str, Cell] = {}
    for cell in sheet.cells.keys() - files.cells.keys():
        place = blame(f"cells.{cell}", files.presets).file
        files.findings.add(place, f"cells.{cell}", unknown(cell, files.cells))
    for cell, block in files.cells.items():
        if not is_cell(files, cell, block):
            continue
        trained = "method" in block
        settings = resolve(files, cell, layers_of(files, cell, sheet), sheet, trained=trained)
        if settings is not None:
            cells[cell] = Cell(settings=settings, trained=trained, seeds=seeds if trained else (0,))
    return cells


def is_cell(files: Files, cell: str, block: Any) -> bool:
    """Whether a block of cells.yaml names its method, or says that it is untrained and nothing else."""
    file, findings = files.name("cells.yaml"), files.findings
    if not CELL_NAME.fullmatch(str(cell)):
        findings.add(
            file, str(cell), "a cell's name is a folder: lower-case letters, digits and _."
        )
    elif not isinstance(block, Mapping) or ("method" in block) == ("trained" in block):
        findings.add(file, cell, f"got {block!r}, wanted `method:`, or `trained: false`.")
    elif "method" in block and block["method"] not in [*files.methods]:
        findings.add(file, f"{cell}.method", unknown(block["method"], files.methods))
    elif "trained" in block and block != {"trained": False}:
        findings.add(file, cell, f"got {block!r}; an untrained cell says `trained: false` alone.")
    else:
        return True
    return False


def layers_of(files: Files, cell: str, sheet: PresetSheet) -> list[Layer]:
    """What decides the settings of `cell`, the last one first heard; all its keys are known."""
    block, findings = files.cells[cell], files.findings
    method = block.get("method")
    layers = [
        read_layer(
            findings, files.name("config.yaml"), "", files.base, ("preset", "seeds", "evaluation")
        )
    ]
    for preset in files.presets:
        data = {key: value for key, value in preset.data.items() if key in (*ROLES, *BLOCKS)}
        layers.append(read_layer(findings, preset.file, "", data))
    if method is not None:
        layers.append(
            read_layer(findings, files.name(f"methods/{method}.yaml"), "", files.methods[method])
        )
    layers.append(
        read_layer(findings, files.name("cells.yaml"), f"{cell}.", block, ("method", "trained"))
    )
    own = sheet.cells.get(cell, {})
    place = blame(f"cells.{cell}", files.presets).file
    return [*layers, read_layer(findings, place, f"cells.{cell}.", own)]


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
            }
            for role, weight in rewards.items()
        },
        **({block: data.get(block, {}) for block in BLOCKS} if trained else {}),
    }
    checked = check(Settings, settings)
    for problem in checked.problems:
        named = re.findall(r"(?:([a-z_]+)\.)?([a-z_]+)=", problem.message)
        keys = [f"{block or problem.key}.{name}" for block, name in named] or [problem.key]
        if problem.key.startswith("rewards."):
            keys = ["rewards"]
        places = [blame(key, layers) for key in keys]
        where = ", ".join(dict.fromkeys(place.file for place in places))
        files.findings.add(where, f"{places[0].prefix}{problem.key}", problem.message, seen_in=cell)
    return checked.value


def sweep_cells(
    files: Files, sheet: PresetSheet, sweep: Sweep, known: Mapping[str, Cell]
) -> dict[str, Cell]:
    """A cell for every value in every cell that is swept."""
    file, cells = files.name("sweep.yaml"), {}
    trained = [name for name, block in files.cells.items() if block != {"trained": False}]
    for name in sweep.cells:
        if name not in trained:
            files.findings.add(file, "cells", unknown(name, trained))
        if name not in known:
            continue
        for value in sweep.values:
            tried = read_layer(files.findings, file, "", nested(sweep.key, value))
            if not tried.says(sweep.key):
                return {}
            layers = [*layers_of(files, name, sheet), tried]
            settings = resolve(files, name, layers, sheet, trained=True)
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
