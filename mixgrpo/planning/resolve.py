"""config/ resolved into an `Experiment`: config.yaml <- preset <- method <- cell, every value checked.

`load` finds every mistake and reports all of them at once, before anything runs. Torch-free and without
side effects, because the workflow calls it to plan.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixgrpo.config import Settings
from mixgrpo.planning.checking import Findings, check, unknown, unknown_key
from mixgrpo.planning.crosscheck import Shown, crosscheck
from mixgrpo.planning.experiment import Cell, Experiment
from mixgrpo.planning.layers import BLOCKS, ROLES, Files, Layer, blame, merged, read_layer
from mixgrpo.planning.sheets import Column, EvaluationSheet, Figure, PresetSheet, Row, Sweep, Table
from mixgrpo.tiny.config import PretrainConfig

CELL_NAME = re.compile("[a-z0-9_]+")
SWEEP = "sweep"
"""The table that sweep.yaml describes."""


def load(folder: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read and check the config folder. `overrides`: preset and seeds, from the command line.

    UserError lists every mistake with its file, key and remedy.
    """
    findings = Findings()
    files = Files(folder, overrides or {}, findings)
    findings.raise_if_any()
    seeds = read_seeds(files)
    sheet = read_preset_sheet(files)
    evaluation = read_evaluation(files)
    tables, columns, figures, sweep = read_sheets(files)
    if sheet is not None:
        cells = read_cells(files, sheet, seeds)
        if sweep is not None:
            cells |= sweep_cells(files, sheet, sweep, cells)
            tables[SWEEP] = sweep_table(sweep)
        shown = Shown(tables, figures, columns)
        crosscheck(findings, folder, sheet, cells, shown, named=files.cells)
    findings.raise_if_any()
    assert sheet is not None
    assert evaluation is not None
    return Experiment(
        preset=files.preset_name,
        seeds=seeds,
        cells=cells,
        tables=tables,
        figures=figures,
        columns=columns,
        sheet=sheet,
        evaluation=evaluation,
        config=folder.name,
    )


def read_seeds(files: Files) -> tuple[int, ...]:
    """Training seeds of the tables."""
    seeds = files.seeds
    integers = (
        isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    )
    if not integers or len(set(seeds)) != len(seeds):
        files.findings.add(
            files.name("config.yaml or --config"),
            "seeds",
            f"got {seeds!r}, wanted a list of different integers from 0, such as [0, 1, 2].",
        )
        return ()
    return tuple(seeds)


def read_evaluation(files: Files) -> EvaluationSheet | None:
    """How pictures for evaluation are sampled."""
    layers = [Layer(files.name("config.yaml"), "", files.base), *files.presets]
    data = merged(layers).get("evaluation")
    return files.findings.sheet(
        EvaluationSheet, data, lambda key: blame(key, layers).file, "evaluation."
    )


def read_preset_sheet(files: Files) -> PresetSheet | None:
    """What the preset says beside settings; `<results>` in a path is its folder of results."""
    settings = (*ROLES, *BLOCKS, "evaluation", "seeds")
    data = {key: value for key, value in files.preset.items() if key not in settings}
    for group in ("models", "reward_models"):
        block = data.get(group)
        data[group] = {
            role: with_results(sheet, f"results/{files.preset_name}")
            for role, sheet in (block.items() if isinstance(block, Mapping) else ())
        }

    def file(key: str) -> str:
        return blame(key, files.presets).file

    if data.get("pretrain") is not None:
        files.findings.sheet(PretrainConfig, data["pretrain"], file, "pretrain.")
    return files.findings.sheet(PresetSheet, data, file)


def with_results(sheet: Any, results: str) -> Any:
    """A model's or reward's block with its path resolved."""
    if isinstance(sheet, Mapping) and isinstance(sheet.get("path"), str):
        return {**sheet, "path": sheet["path"].replace("<results>", results)}
    return sheet


def read_sheets(
    files: Files,
) -> tuple[dict[str, Table], dict[str, Column], dict[str, Figure], Sweep | None]:
    """Tables, columns, figures and the sweep, those of them that hold."""
    findings, file = files.findings, files.name("tables.yaml")
    for key in files.tables.keys() - {"columns", "tables"}:
        findings.add(file, key, unknown_key(key, ["columns", "tables"]))

    def sheets(kind: type, data: Any, file: str, key: str) -> dict[str, Any]:
        blocks = findings.mapping(data, file, key)
        prefix = f"{key}." if key else ""
        found = {
            name: findings.sheet(kind, block, file, f"{prefix}{name}.")
            for name, block in blocks.items()
        }
        return {str(name): sheet for name, sheet in found.items() if sheet is not None}

    tables = sheets(Table, files.tables.get("tables"), file, "tables")
    columns = sheets(Column, files.tables.get("columns"), file, "columns")
    figures = sheets(Figure, files.figures, files.name("figures.yaml"), "")
    return tables, columns, figures, findings.sheet(Sweep, files.sweep, files.name("sweep.yaml"))


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
        places = [blame(key, layers) for key in keys]
        where = ", ".join(dict.fromkeys(place.file for place in places))
        files.findings.add(where, f"{places[0].prefix}{problem.key}", problem.message, seen_in=cell)
    return checked.value


def sweep_cells(
    files: Files, sheet: PresetSheet, sweep: Sweep, known: Mapping[str, Cell]
) -> dict[str, Cell]:
    """A cell for every value in every cell that is swept."""
    file, cells = files.name("sweep.yaml"), {}
    trained = [name for name, cell in known.items() if cell.trained]
    for name in sweep.cells:
        if name not in trained:
            files.findings.add(file, "cells", unknown(name, trained))
            continue
        for value in sweep.values:
            tried: Any = value
            for part in reversed(sweep.key.split(".")):
                tried = {part: tried}
            layers = [
                *layers_of(files, name, sheet),
                read_layer(files.findings, file, "", tried),
            ]
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


def sweep_name(cell: str, value: float) -> str:
    """Name of a cell of the sweep.

    >>> sweep_name("mixgrpo", 5e-5)
    'sweep_mixgrpo_5e-05'
    """
    return f"{SWEEP}_{cell}_{value:g}"


def sweep_table(sweep: Sweep) -> Table:
    """The table that shows the sweep."""
    return Table(
        kind="gains",
        title=sweep.title,
        caption=sweep.caption,
        dataset=sweep.dataset,
        split=sweep.split,
        p_mix=sweep.p_mix,
        columns=sweep.columns,
        rows=[
            Row(cell=sweep_name(cell, value), label=f"{cell}, {value:g}")
            for cell in sweep.cells
            for value in sweep.values
        ],
    )
