"""config/ as people may break it: every mistake is found, named by file and key, and all are said at once.

Longer than 300 lines: a table of mistakes, a row each, and one config folder that all tests break.
"""

import json
import random
import re
import shutil
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from mixgrpo.config import Settings, parse
from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.layers import BLOCKS, merge
from mixgrpo.planning.load import load
from mixgrpo.report.figure_spec import read_figure_spec
from mixgrpo.report.table_spec import read_table_spec

ROOT = Path(__file__).parent.parent
PAPER_ROLES = {"hps_v2_1", "pick_score", "image_reward", "unified_reward"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "config", tmp_path / "config"))


def edit(folder: Path, file: str, **blocks) -> None:
    """Merge `blocks` into a file."""
    path = folder / file
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), blocks)))


def replace(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def mistakes(folder: Path, overrides=None) -> list[str]:
    with pytest.raises(UserError) as error:
        load(folder, overrides)
    head, *lines = str(error.value).splitlines()
    assert head.startswith(f"the configuration has {len(lines)} mistake")
    return [line.strip() for line in lines]


# What the delivered configuration says


@pytest.mark.parametrize("preset", ["tiny", "smoke"])
def test_every_preset_resolves_to_settings_that_hold(preset):
    experiment = load(ROOT / "config", {"preset": preset})
    for cell in experiment.cells:
        for seed in experiment.cells[cell].seeds:
            text = specs.settings_json(experiment, cell, seed)
            settings = parse(json.loads(text), where=cell)
            assert settings == experiment.settings(cell, seed)
            assert bool(settings.code) == experiment.cells[cell].trained


def test_config_yaml_is_the_default_of_every_setting():
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for block in BLOCKS:
        kind = next(field.type for field in fields(Settings) if field.name == block)
        assert is_dataclass(kind)
        assert json.loads(json.dumps(asdict(kind()))) == base[block]
    assert set(base["rewards"]) == PAPER_ROLES
    assert len(set(base["rewards"].values())) == 1


def test_methods_of_table_1():
    cells = load(ROOT / "config").cells
    mixgrpo, dance = cells["mixgrpo"].settings, cells["dancegrpo"].settings
    assert (mixgrpo.window.size, mixgrpo.window.stride, mixgrpo.window.interval) == (4, 1, 25)
    assert (mixgrpo.sampling.num_steps, mixgrpo.sampling.shift, mixgrpo.sampling.eta) == (
        25,
        3,
        0.7,
    )
    assert (dance.sampling.noise, dance.sampling.eta) == ("dance_grpo", 0.3)
    assert (dance.sampling.sde_steps, dance.trained_steps.choice) == ("all", "random")
    counts = {name: cells[name].settings.trained_steps.count for name in cells}
    assert counts["dancegrpo"] == 14
    assert counts["dancegrpo_4"] == counts["dancegrpo_4_first"] == 4
    assert cells["dancegrpo_4_first"].settings.trained_steps.choice == "first"
    flash, star = cells["flash"].settings, cells["flash_star"].settings
    assert (flash.sampling.tail_ratio, flash.window.interval) == (0.4, 20)
    assert (star.sampling.tail_ratio, star.window.strategy) == (0.2, "frozen")
    shortened = {
        cell.settings.training.num_iterations * cell.settings.training.window_clock
        for cell in cells.values()
    }
    assert shortened == {300}


def test_methods_differ_in_nothing_but_their_method():
    """A fair comparison: same prompts, budget and optimiser, up to the swept learning rate."""
    cells = {name: cell for name, cell in load(ROOT / "config").cells.items() if cell.trained}
    rest = [
        {**asdict(cell.settings), "window": 0, "sampling": 0, "trained_steps": 0}
        for cell in cells.values()
    ]
    for settings in rest:
        settings["training"].pop("learning_rate")
    assert all(settings == rest[0] for settings in rest)


def test_the_base_does_not_depend_on_how_others_train(folder):
    before = specs.settings_json(load(folder), "base", 0)
    edit(folder, "config.yaml", training={"clip_range": 0.5}, sampling={"num_steps": 20})
    assert specs.settings_json(load(folder), "base", 0) == before


def test_seeds_of_the_command_line_and_of_the_sweep():
    experiment = load(ROOT / "config", {"seeds": [0, 1]})
    assert experiment.cells["mixgrpo"].seeds == (0, 1)
    assert experiment.cells["base"].seeds == (0,)
    swept = [cell for cell in experiment.cells.values() if cell.group == "mixgrpo"]
    assert len({cell.settings.training.learning_rate for cell in swept}) == len(swept) == 3
    assert not {0, 1} & {seed for cell in swept for seed in cell.seeds}


def test_image_sets_are_what_tables_and_figures_ask_for():
    experiment = load(ROOT / "config")
    assert experiment.image_sets("mixgrpo") == [
        ("tiny_hpd", "test", 0.8),
        ("tiny_hpd", "test", 1.0),
    ]
    assert experiment.image_sets("base") == [
        ("tiny_hpd", "test", 0.0),
        ("tiny_hpd", "validation", 0.0),
    ]


def test_specs_are_what_the_stages_read(tmp_path):
    experiment = load(ROOT / "config", {"seeds": [0, 1]})
    path = tmp_path / "spec.json"
    for table in experiment.tables:
        path.write_text(specs.table_json(experiment, table))
        assert read_table_spec(path).table == table
    for figure in experiment.figures:
        path.write_text(specs.figure_json(experiment, figure))
        assert read_figure_spec(path).name == figure


def test_layout_of_yaml_is_no_setting(folder):
    before = specs.settings_json(load(folder), "flash", 0)
    for path in folder.rglob("*.yaml"):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()), sort_keys=True))
    replace(folder, "config.yaml", "learning_rate: 1.0e-05", "learning_rate: 1e-5")
    replace(folder, "methods/flash.yaml", "tail_ratio: 0.4", "tail_ratio: 0.40")
    assert specs.settings_json(load(folder), "flash", 0) == before


# What people get wrong


def test_all_mistakes_at_once(folder):
    edit(folder, "presets/tiny.yaml", training={"learning_rat": 1})
    edit(folder, "methods/flash.yaml", sampling={"tail_ratio": 1.5})
    edit(folder, "cells.yaml", odd={"method": "flahs"})
    edit(folder, "sweep.yaml", cells=["mixgpro"])
    assert mistakes(folder, {"seeds": ["a"]}) == [
        "config/config.yaml or --config: seeds: got ['a'], wanted a list of different integers from 0, "
        "such as [0, 1, 2].",
        "config/presets/tiny.yaml: training.learning_rat: unknown key. 'learning_rat' is not known; did you "
        "mean 'learning_rate'? There are: "
        + ", ".join(sorted(f.name for f in fields(training())))
        + ".",
        "config/methods/flash.yaml: sampling.tail_ratio=1.5 must be in (0, 1], or null for a plain ODE tail. "
        "(in flash)",
        "config/cells.yaml: odd.method: 'flahs' is not known; did you mean 'flash'? There are: dancegrpo, "
        "flash, flash_star, mixgrpo.",
        "config/sweep.yaml: cells: 'mixgpro' is not known; did you mean 'mixgrpo'? There are: dancegrpo, "
        "dancegrpo_4, dancegrpo_4_first, flash, flash_star, mixgrpo, odd.",
    ]


def training():
    return next(field.type for field in fields(Settings) if field.name == "training")


@pytest.mark.parametrize(
    ("file", "blocks", "message"),
    [
        (
            "config.yaml",
            {"windw": {}},
            r"config/config.yaml: windw: unknown key.*did you mean 'window'",
        ),
        ("config.yaml", {"training": {"betas": [0.9]}}, r"config/config.yaml: training.betas"),
        (
            "config.yaml",
            {"window": {"size": 30}},
            r"config/config.yaml: window.size=30 does not fit sampling.num_steps=25.*\(in .*mixgrpo",
        ),
        (
            "presets/tiny.yaml",
            {"training": {"num_updates": 5}},
            r"config/config.yaml, config/presets/tiny.yaml: training.group_size=12 cannot be dealt",
        ),
        (
            "cells.yaml",
            {"x": {"method": "flash"}},
            r"cells.yaml: x: has the same settings as flash",
        ),
        ("cells.yaml", {"x": {}}, r"cells.yaml: x: got {}, wanted `method:`"),
        ("cells.yaml", {"X/y": {"method": "flash"}}, r"cells.yaml: X/y: a cell's name is a folder"),
        (
            "cells.yaml",
            {"base": {"training": {}}},
            r"cells.yaml: base: got .* says `trained: false` alone",
        ),
        (
            "cells.yaml",
            {"flash": {"rewards": {"hps": 1}}},
            r"cells.yaml: flash.rewards: 'hps' is not known",
        ),
        ("cells.yaml", {"flash": {"dataset": "x"}}, r"cells.yaml: flash.dataset: 'x' is not known"),
        (
            "cells.yaml",
            {"flash": {"rewards": {"hps_v2_1": 0}}},
            r"cells.yaml: .*weight=0.0 must be positive",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"columns": ["fid"]}}},
            r"table01.columns: 'fid' is not known",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"p_mix": 2}}},
            r"tables.table01.*p_mix=2.0 must be in \[0, 1\]",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"kin": 1}}},
            r"table01.kin: unknown key.*did you mean 'kind'",
        ),
        ("tables.yaml", {"tables": {"table01": {"split": "tset"}}}, r"table01.split: got 'tset'"),
        (
            "tables.yaml",
            {"tables": {"table01": {"dataset": "coco"}}},
            r"table01.dataset: 'coco' is not known",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"published": "x.csv"}}},
            r"table01.published: 'x.csv' is not",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"rows": [{"cell": "mixgpro", "label": "x"}]}}},
            r"table01.rows: 'mixgpro' is not known; did you mean 'mixgrpo'",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"rows": [{"cell": "base", "label": "x", "published": 9}]}}},
            r"table01.rows: base: no row 9 in table01.csv; it has 7",
        ),
        (
            "tables.yaml",
            {"columns": {"pick_score": {"published": "pick"}}},
            r"pick_score: table01.csv has no such column. 'pick' is not known",
        ),
        (
            "figures.yaml",
            {"figure99": {"draws": "metrics", "title": "", "caption": ""}},
            r"figures.yaml: figure99.rows: missing",
        ),
        (
            "figures.yaml",
            {"training_curves": {"rows": [{"cell": "base", "label": "x"}]}},
            r"training_curves.rows: 'base' is not trained",
        ),
        ("sweep.yaml", {"key": "training.lr"}, r"sweep.yaml: training.lr: unknown key"),
        (
            "presets/smoke.yaml",
            {"based_on": "tinny"},
            r"smoke.yaml: based_on: 'tinny' is not known",
        ),
        (
            "presets/smoke.yaml",
            {"based_on": "smoke"},
            r"smoke.yaml: based_on: 'smoke' is not known",
        ),
        (
            "presets/tiny.yaml",
            {"cells": {"falsh": {}}},
            r"tiny.yaml: cells.falsh: 'falsh' is not known",
        ),
        (
            "presets/tiny.yaml",
            {"pretrain": {"vea_steps": 1}},
            r"tiny.yaml: pretrain.vea_steps: unknown key",
        ),
        (
            "presets/tiny.yaml",
            {"reward_models": {"clip_score": {"name": "tiny_hps"}}},
            r"tiny_hps plays (hps_v2_1|clip_score) already",
        ),
        (
            "presets/tiny.yaml",
            {"reward_models": {"clip_score": {"name": "tiny_clip"}}},
            r"reward_models.clip_score.name: 'tiny_clip' is not known; did you mean 'tiny_clip_score'",
        ),
        (
            "presets/tiny.yaml",
            {"models": {"flux": {"name": "flx"}}},
            r"models.flux.name: 'flx' is not known",
        ),
        (
            "presets/tiny.yaml",
            {"datasets": {"hpdv2": {"splits": {"train": 0}}}},
            r"datasets.hpdv2.*splits.train=0: wanted at least 1 prompt",
        ),
        (
            "presets/tiny.yaml",
            {"evaluation": {"shift": -1}},
            r"tiny.yaml: evaluation.*shift=-1.0 must be pos",
        ),
    ],
)
def test_one_mistake_is_one_line(folder, file, blocks, message):
    edit(folder, file, **blocks)
    preset = "smoke" if "smoke" in file else "tiny"
    found = mistakes(folder, {"preset": preset})
    assert len(found) == 1, found
    assert re.search(message, found[0]), found


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "cells.yaml",
            "flash:",
            "mixgrpo:",
            r"cells.yaml: mixgrpo: stands twice, in lines \d+ and \d+",
        ),
        ("config.yaml", "size: 4", "size: 4\n  size: 5", r"config.yaml: size: stands twice"),
        ("config.yaml", "window:", "window: [", r"config.yaml: not YAML: .*line \d+"),
        (
            "config.yaml",
            "learning_rate: 1.0e-5",
            "learning_rate: fast",
            r"got 'fast'.*valid number",
        ),
        (
            "config.yaml",
            "num_steps: 25",
            "num_steps: 25.5",
            r"config.yaml: sampling.num_steps: got 25.5",
        ),
        (
            "config.yaml",
            "preset: tiny",
            "preset: tinny",
            r"preset: 'tinny' is not known; did you mean 'tiny'",
        ),
        ("config.yaml", "seeds: [0]", "seeds: [0, 0]", r"seeds: got \[0, 0\]"),
        ("config.yaml", "seeds: [0]", "seeds: 3", r"seeds: got 3"),
    ],
)
def test_mistakes_of_text(folder, file, old, new, message):
    replace(folder, file, old, new)
    assert any(re.search(message, line) for line in mistakes(folder, {}))


def test_command_line_knows_preset_and_seeds_only(folder):
    assert "'learning_rate' is not known" in mistakes(folder, {"learning_rate": 1})[0]


def test_missing_file(folder):
    (folder / "cells.yaml").unlink()
    assert mistakes(folder) == ["config/cells.yaml: there is no such file."]


def test_nothing_a_person_can_write_ends_in_a_traceback(folder):
    """Any value of any file replaced by something odd is accepted or explained."""
    odd = [None, -1, 2.5, "x", [], [1], {}, {"a": 1}, True, float("nan"), "2020-01-01"]
    rng = random.Random(0)
    texts = {path: path.read_text() for path in sorted(folder.rglob("*.yaml"))}
    for _ in range(120):
        path = rng.choice(list(texts))
        data = yaml.safe_load(texts[path])
        places = [(data, key) for key in data] + nested(data)
        if not places:
            continue
        parent, key = rng.choice(places)
        parent[key] = rng.choice(odd)
        path.write_text(yaml.safe_dump(data))
        try:
            experiment = load(folder, {"preset": rng.choice(["tiny", "smoke"])})
            for table in experiment.tables:
                specs.table_json(experiment, table)
        except UserError as error:
            said = str(error)
        else:
            said = "the configuration has no mistake"
        assert said.startswith("the configuration has ")
        path.write_text(texts[path])


def nested(data) -> list[tuple[dict | list, str | int]]:
    """(parent, key) of everything below the first level."""
    found = []
    children = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    for child in children:
        if isinstance(child, dict | list):
            found += [
                (child, key) for key in (child if isinstance(child, dict) else range(len(child)))
            ]
            found += nested(child)
    return found
