"""config/ read, checked and resolved into an `Experiment`, before anything runs.

`load` finds every mistake and reports all of them at once. Torch-free and without side effects, because
the workflow calls it to plan.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from mixgrpo.config import Settings
from mixgrpo.planning.cells import Layers, read_cells, sweep_cells, sweep_name
from mixgrpo.planning.checking import Findings, unknown, unknown_key
from mixgrpo.planning.crosscheck import Shown, crosscheck
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.layers import BLOCKS, ROLES, Files, Layer, blame, merged
from mixgrpo.planning.sheets import (
    SWEEP,
    Column,
    EvaluationSheet,
    Figure,
    PresetSheet,
    Row,
    Sweep,
    Table,
)
from mixgrpo.tiny.config import PretrainConfig


def load(folder: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read and check the config folder. `overrides`: preset and seeds, from the command line.

    UserError lists every mistake with its file, key and remedy.
    """
    findings = Findings()
    files = Files(folder, overrides or {}, findings)
    findings.raise_if_any()
    check_base(files)
    seeds = read_seeds(files)
    sheet = read_preset_sheet(files)
    evaluation = read_evaluation(files, sheet)
    tables, columns, figures, sweep = read_sheets(files)
    if sheet is not None:
        layers = Layers(files, sheet)
        cells = read_cells(files, layers, seeds)
        if sweep is not None:
            cells |= sweep_cells(files, layers, sweep, cells)
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


def check_base(files: Files) -> None:
    """config.yaml holds by itself, also where a preset overrides it."""
    kinds = get_type_hints(Settings)
    for block in BLOCKS:
        file, prefix = files.name("config.yaml"), f"{block}."
        files.findings.sheet(kinds[block], files.base.get(block), file, prefix)


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


def read_evaluation(files: Files, preset: PresetSheet | None) -> EvaluationSheet | None:
    """How pictures for evaluation are sampled."""
    layers = [Layer(files.name("config.yaml"), "", files.base), *files.presets]
    data = merged(layers).get("evaluation")
    sheet = files.findings.sheet(
        EvaluationSheet, data, lambda key: blame(key, layers).file, "evaluation."
    )
    if sheet is not None and preset is not None:
        names = {model.name for model in preset.models.values()}
        for block in ("resolutions", "shifts"):
            for name in sorted(getattr(sheet, block).keys() - names):
                key = f"evaluation.{block}.{name}"
                files.findings.add(blame(key, layers).file, key, unknown(name, names))
    return sheet


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


def sweep_table(sweep: Sweep) -> Table:
    """The table that shows the sweep."""
    return Table(
        title=sweep.title,
        caption=sweep.caption,
        dataset=sweep.dataset,
        split=sweep.split,
        p_mix=sweep.p_mix,
        gains_p_mix=sweep.p_mix,
        columns=sweep.columns,
        rows=[
            Row(cell=sweep_name(cell, value), label=f"{cell}, {value:g}")
            for cell in sweep.cells
            for value in sweep.values
        ],
    )
