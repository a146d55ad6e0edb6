"""config/ as people may break it: every mistake is found, named by file and key, and all are said at once.

Longer than 300 lines: a table of mistakes, a row each, and one config folder that all tests break.
"""

import csv
import json
import random
import re
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from mixgrpo.config import Settings, canonical, parse
from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.layers import BLOCKS, merge
from mixgrpo.planning.load import load
from mixgrpo.planning.plan import Plan
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
        field = next(field for field in fields(Settings) if field.name == block)
        default = None if field.default is None else json.loads(json.dumps(asdict(field.type())))
        assert default == base[block]
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
    assert (dance.sampling.sde_steps, dance.trained_steps.choice) == ("all_but_last", "random")
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


def test_the_papers_49_models_are_trained_once_each():
    experiment = load(ROOT / "config")
    trained = {n: c for n, c in experiment.cells.items() if c.trained and c.group is None}
    assert len(trained) == 49
    assert len({canonical(cell.settings) for cell in trained.values()}) == 49
    assert set(experiment.tables) - {"sweep"} == {f"table{k:02d}" for k in range(1, 15)}
    shown = {name for table in experiment.tables for name in experiment.cells_of_table(table)}
    assert set(trained) - shown == {"dancegrpo_8"}  # Figure 1


def test_every_model_has_its_untrained_cell():
    experiment = load(ROOT / "config")
    assert {cell: experiment.base_of(cell) for cell in ("flash", "pick_exp", "base")} == {
        "flash": "base",
        "pick_exp": "base",
        "base": "base",
    }
    assert experiment.base_of("sd3_mixgrpo") == experiment.base_of("base_sd3") == "base_sd3"


def test_methods_differ_in_nothing_but_their_method():
    """A fair comparison: same prompts, budget and optimiser, up to the swept learning rate."""
    experiment = load(ROOT / "config")
    for table, flux in (("table01", True), ("table03", False)):
        cells = [experiment.cells[row.names[0]] for row in experiment.tables[table].rows]
        rest = [
            {**asdict(cell.settings), "window": 0, "sampling": 0, "trained_steps": 0, "dpo": 0}
            for cell in cells
            if cell.trained
        ]
        for settings in rest:
            settings["training"].pop("learning_rate")
            assert (settings["training"].pop("kl_weight") == 0) or not flux
        assert all(settings == rest[0] for settings in rest)


def test_settings_of_table_3():
    cells = load(ROOT / "config").cells
    flow, mix, dpo = (cells[f"sd3_{n}"].settings for n in ("flowgrpo", "mixgrpo", "dpo_online"))
    assert (flow.sampling.sde_steps, flow.sampling.num_steps) == ("all", 10)
    assert (flow.training.kl_weight, mix.training.kl_weight) == (0.001, 0.0)
    assert (mix.window.size, mix.sampling.num_steps, mix.training.group_size) == (4, 10, 12)
    assert (mix.training.lora.rank, mix.training.lora.alpha) == (32, 64)
    assert (dpo.dpo.pairs, dpo.sampling.num_steps) == ("online", 40)
    assert mix.model.schedule == "sd3"
    assert mix.dpo is None


@pytest.mark.parametrize("table", [f"table{k:02d}" for k in range(1, 15)])
def test_every_published_value_is_shown_once(table):
    experiment = load(ROOT / "config")
    sheet = experiment.tables[table]
    with (ROOT / "config/published" / sheet.published).open(newline="") as lines:
        header, *rows = csv.reader(lines)
    shown = sorted(row.published for row in sheet.rows if row.published is not None)
    assert shown == list(range(len(rows)))
    columns = [experiment.columns[role].published for role in sheet.columns]
    wanted = {f"{view.published}{column}" for view in sheet.test_sets for column in columns}
    numbers = {name for k, name in enumerate(header) if is_number(rows[-1][k])}
    keys = {"p_mix", "shift_interval", "window_size", "window_stride", "solver_order"}
    assert numbers - keys <= wanted


def is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+", text))


def test_a_cross_dataset_table_has_four_views():
    spec = json.loads(specs.table_json(load(ROOT / "config"), "table11"))
    assert (spec["kind"], spec["published"]) == ("paper", "config/published/table11.csv")
    assert spec["views"][3] == {
        "title": "Experiment 2, out-of-domain",
        "dataset": "tiny_hpd",
        "split": "test",
        "p_mix": 0.8,
        "gains_p_mix": 1.0,
        "published_prefix": "exp2_ood_",
    }
    first = spec["rows"][0]
    cells = [entry["cell"] for entry in first["entries"]]
    assert cells == ["mixgrpo_frozen", "mixgrpo_frozen", "pick_frozen", "pick_frozen"]
    assert first["entries"][0] == {
        "cell": "mixgrpo_frozen",
        "base": "base",
        "trained": ["tiny_hps", "tiny_image_reward", "tiny_pick_score"],
        "p_mix": None,
        "metrics": [],
    }
    assert {key: first[key] for key in ("label", "published_row", "group", "value")} == {
        "label": "Frozen",
        "published_row": 0,
        "group": None,
        "value": None,
    }


def test_table_10_samples_one_model_in_many_ways():
    experiment = load(ROOT / "config")
    entries = [
        row["entries"][0] for row in json.loads(specs.table_json(experiment, "table10"))["rows"]
    ]
    assert [(entry["cell"], entry["p_mix"]) for entry in entries] == [
        ("base", None),
        *(("mixgrpo", share) for share in (0.2, 0.4, 0.6, 0.8, 1.0)),
    ]
    assert entries[0]["trained"] == []


def test_counted_columns_name_the_metrics_of_every_seed():
    experiment = load(ROOT / "config", {"seeds": [0, 1]})
    rows = json.loads(specs.table_json(experiment, "table06"))["rows"]
    runs = "results/tiny/runs/mixgrpo_window2"
    assert rows[0]["entries"][0]["metrics"] == [
        f"{runs}/seed{seed}/metrics.jsonl" for seed in (0, 1)
    ]


def test_what_is_timed_is_timed_side_by_side():
    experiment = load(ROOT / "config")
    timed = set(experiment.timed_cells("flux"))
    assert {"dancegrpo", "dancegrpo_8", "flash_r06", "flash_star_r03"} < timed
    assert "base" not in timed
    assert experiment.timed_cells("sd3") == []
    assert experiment.spread_cell("flux") == "mixgrpo"


def test_a_figure_names_what_it_reads():
    experiment = load(ROOT / "config")
    spec = json.loads(specs.figure_json(experiment, "figure01"))
    assert (spec["draw"], spec["base"], spec["spread"]) == ("trade_off", "base", None)
    assert (spec["scores"], spec["overhead"]) == (
        "results/tiny/scores",
        "results/tiny/overhead/flux.json",
    )
    files = specs.figure_files(experiment, "figure01")
    assert "results/tiny/scores/base/seed0/index.json" in files
    assert "results/tiny/runs/flash/seed0/metrics.jsonl" in files
    shares = [
        cell["p_mix"] for cell in json.loads(specs.figure_json(experiment, "figure05"))["cells"]
    ]
    assert shares == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert json.loads(specs.figure_json(experiment, "figure_sd3"))["base"] == "base_sd3"


def test_own_prompts_are_a_text_file(folder):
    (folder.parent / "mine.txt").write_text("a red circle\n")
    own = {"name": "mine", "splits": {"train": 1}, "files": {"train": "mine.txt"}}
    edit(folder, "presets/tiny.yaml", datasets={"mine": own})
    plan = Plan(load(folder))
    wildcards = SimpleNamespace(dataset="mine", split="train")
    assert plan.prompts_file(wildcards) == ["mine.txt"]
    assert plan.prompts_option(wildcards) == "--file mine.txt"
    (folder.parent / "mine.txt").unlink()
    assert "datasets.mine.files.train: there is no file mine.txt" in mistakes(folder)[0]


def test_real_rewards_are_a_path_and_options(folder, tmp_path):
    weights = tmp_path / "PickScore_v1"
    weights.mkdir()
    for name in ("model.safetensors", "config.json"):
        (weights / name).touch()
    file = tmp_path / "HPS_v2.1_compressed.pt"
    file.touch()
    pick_score = {"name": "pick_score", "path": str(weights), "options": {"dtype": "bfloat16"}}
    hps = {"name": "hps_v2_1", "path": str(file), "options": {"backend": "native"}}
    edit(
        folder,
        "presets/tiny.yaml",
        reward_models={
            "pick_score": pick_score,
            "hps_v2_1": hps,
            "clip_score": {"name": "clip_score", "path": None},
        },
    )
    experiment = load(folder)
    settings = json.loads(specs.settings_json(experiment, "mixgrpo", 0))
    assert settings["rewards"]["pick_score"]["options"] == {"dtype": "bfloat16"}
    rewards = json.loads(specs.rewards_json(experiment))
    assert rewards["hps_v2_1"] == {"path": str(file), "options": {"backend": "native"}}
    assert rewards["colorfulness"] == {"path": None, "options": {}}
    plan = Plan(experiment)
    assert plan.scored_rewards(None) == [
        str(file),
        str(weights / "model.safetensors"),
        "results/tiny/models/tiny_image_reward/model.safetensors",
        "results/tiny/models/tiny_unified/model.safetensors",
    ]
    file.unlink()
    assert f"reward_models.hps_v2_1.path: there is nothing at {file}. " in mistakes(folder)[0]


def test_a_base_model_is_a_directory_or_a_commit_on_the_hub(folder, tmp_path):
    wildcards = SimpleNamespace(model="flux", cell="mixgrpo", seed="0")
    plan = Plan(load(folder))
    assert plan.base_options(wildcards) == "--base results/tiny/models/flux --precision fp32"
    assert plan.text_encoders(wildcards) == [
        f"results/tiny/models/flux/{part}/model.safetensors"
        for part in ("text_encoder", "text_encoder_2")
    ]
    path = str(tmp_path / "my flux")
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (tmp_path / "my flux" / "transformer").mkdir(parents=True)
    for name in names:
        (tmp_path / "my flux" / "transformer" / name).touch()
    model = {"path": path, "text_precision": "bf16"}
    edit(folder, "presets/tiny.yaml", models={"flux": model})
    plan = Plan(load(folder))
    assert plan.base(wildcards) == [f"{path}/transformer/{name}" for name in names]
    assert plan.base_options(wildcards) == f"--base '{path}' --precision bf16"
    hub = {
        "path": "black-forest-labs/FLUX.1-dev",
        "revision": "0ef5fff789c832c5c7f4e127f94c8b54bbcced44",
    }
    edit(folder, "presets/tiny.yaml", models={"flux": hub})
    plan = Plan(load(folder))
    assert plan.base(wildcards) == plan.text_encoders(wildcards) == []
    assert plan.base_options(wildcards).startswith(
        "--base black-forest-labs/FLUX.1-dev --revision 0ef5fff7"
    )
    edit(folder, "presets/tiny.yaml", models={"flux": {"revision": "main"}})
    assert "revision='main': wanted a commit, 40 hexadecimal digits" in mistakes(folder)[0]


def test_pictures_are_as_large_as_evaluation_says(folder):
    def resolution(cell: str) -> int:
        return json.loads(specs.evaluation_json(load(folder), cell))["resolution"]

    assert (resolution("mixgrpo"), resolution("sd3_mixgrpo")) == (32, 32)
    edit(folder, "presets/tiny.yaml", evaluation={"resolutions": {"flux": 48}})
    assert (resolution("mixgrpo"), resolution("sd3_mixgrpo")) == (48, 32)
    edit(folder, "presets/tiny.yaml", evaluation={"resolutions": {"sdx": 48}})
    assert re.search(
        r"tiny.yaml: evaluation.resolutions.sdx: .*'sdx'.*flux, sd3", mistakes(folder)[0]
    )


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
    usual = [("tiny_hpd", "test", 0.8), ("tiny_hpd", "test", 1.0)]
    assert experiment.image_sets("flash_heun") == usual
    cross = [("tiny_pick", "test", 0.8), ("tiny_pick", "test", 1.0)]
    for cell in ("mixgrpo_exp", "pick_exp", "pick_window1"):
        assert experiment.image_sets(cell) == usual + cross
    swept = [("tiny_hpd", "test", share) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert experiment.image_sets("mixgrpo") == swept + cross
    assert experiment.image_sets("base") == [
        ("tiny_hpd", "test", 0.0),
        ("tiny_hpd", "validation", 0.0),
        ("tiny_pick", "test", 0.0),
    ]
    assert experiment.image_sets("base_sd3") == [("tiny_hpd", "test", 0.0)]


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
    trained = [name for name, cell in load(folder).cells.items() if cell.trained and not cell.group]
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
        "(in flash, flash_heun, flash_order1, flash_order3)",
        "config/cells.yaml: odd.method: 'flahs' is not known; did you mean 'flash'? There are: dancegrpo, "
        "dpo_offline, dpo_online, flash, flash_star, flowgrpo, mixgrpo.",
        "config/sweep.yaml: cells: 'mixgpro' is not known; did you mean 'mixgrpo'? There are: "
        + ", ".join(sorted([*trained, "odd"]))
        + ".",
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
            "cells.yaml",
            {"mixgrpo_window6": {"window": {"size": 30}}},
            r"config/cells.yaml, config/config.yaml: .*window.size=30 does not fit sampling.num_steps=25",
        ),
        (
            "cells.yaml",
            {"flash": {"training": {"num_updates": 5}}},
            r"config/config.yaml, config/cells.yaml: training.group_size=12 cannot be dealt",
        ),
        (
            "cells.yaml",
            {"x": {"method": "flash_star"}},
            r"cells.yaml: x: has the same settings as flash_star",
        ),
        ("cells.yaml", {"x": {}}, r"cells.yaml: x: got {}, wanted `method:`"),
        ("cells.yaml", {"X/y": {"method": "flash"}}, r"cells.yaml: X/y: a cell's name is a folder"),
        (
            "cells.yaml",
            {"base": {"training": {}}},
            r"cells.yaml: base: got .* says `trained: false` and its model, nothing",
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
            "cells.yaml",
            {"base_sd3": None},
            r"cells.yaml: base_sd3: got None, wanted `method:`, or `trained: false`",
        ),
        (
            "cells.yaml",
            {"sd3_mixgrpo": {"model": "sd4"}},
            r"cells.yaml: sd3_mixgrpo.model: 'sd4' is not known; did you mean 'sd3'",
        ),
        (
            "cells.yaml",
            {"flash": {"dpo": {"pairs": "onlin"}}},
            r"cells.yaml: flash.dpo.pairs: got 'onlin'",
        ),
        ("cells.yaml", {"flash": {"dpo": 3}}, r"cells.yaml: flash.dpo: got 3, .* or null"),
        (
            "cells.yaml",
            {"flash": {"window": None}},
            r"flash.window: got None, wanted a block of keys\.",
        ),
        (
            "models/sd3.yaml",
            {"training": {"lora": {"rnk": 8}}},
            r"models/sd3.yaml: training.lora.rnk: unknown key.*did you mean 'rank'",
        ),
        (
            "models/sd3.yaml",
            {"training": {"lora": {"rank": 0}}},
            r"models/sd3.yaml: training.lora.rank=0 must be 1 or more. \(in sd3_dpo_offline, ",
        ),
        (
            "tables.yaml",
            {"tables": {"table11": {"rows": [{"cells": ["mixgrpo"], "label": "x"}]}}},
            r"tables.table11.*the row 'x' names 1 cells, not 2",
        ),
        (
            "tables.yaml",
            {"tables": {"table11": {"dataset": "hpdv2"}}},
            r"table11: a table names its `dataset`, or its `views`",
        ),
        (
            "tables.yaml",
            {"tables": {"table02": {"groups": {"In Domain": ["hps"]}}}},
            r"table02: groups: 'hps' is no column of this table",
        ),
        (
            "tables.yaml",
            {"tables": {"table10": {"rows": [{"cell": "flash", "label": "x", "p_mix": 1.2}]}}},
            r"table10.rows.0.*p_mix=1.2 must be in \[0, 1\]",
        ),
        (
            "tables.yaml",
            {
                "tables": {
                    "table01": {
                        "rows": [
                            {"cell": "sd3_mixgrpo", "label": "x"},
                            {"cell": "base", "label": "y"},
                        ]
                    }
                }
            },
            r"table01.columns: times are of one model, but the rows have flux, sd3",
        ),
        (
            "figures.yaml",
            {"figure03": {"draw": "image_gird"}},
            r"figure03.draw: 'image_gird' is not known; did you mean 'image_grid'",
        ),
        (
            "figures.yaml",
            {"figure03": {"num_prompts": None}},
            r"figure03: num_prompts is missing: a figure of images",
        ),
        (
            "figures.yaml",
            {"figure02": {"rows": [{"cell": "base", "label": "x"}], "reads": ["spread"]}},
            r"figure02.rows: spread is measured of trained cells",
        ),
        (
            "presets/tiny.yaml",
            {"models": {"other": {"name": "flux", "path": "x"}}},
            r"models.other: flux plays flux already",
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
            {"tables": {"table01": {"spli": 1}}},
            r"table01.spli: unknown key.*did you mean 'split'",
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
            r"table01.rows: 'x': 'mixgpro' is not known; did you mean 'mixgrpo'",
        ),
        (
            "tables.yaml",
            {"tables": {"table01": {"rows": [{"cell": "base", "label": "x", "published": 9}]}}},
            r"table01.rows: 'x': no row 9 in table01.csv; it has 7",
        ),
        (
            "tables.yaml",
            {"columns": {"image_seconds": {"published": "time"}}},
            r"image_seconds: table09.csv has no such column. 'time' is not known",
        ),
        (
            "figures.yaml",
            {"figure99": {"draw": "image_grid", "reads": ["metrics"], "title": "", "caption": ""}},
            r"figures.yaml: figure99.rows: missing",
        ),
        (
            "figures.yaml",
            {"training_curves": {"rows": [{"cell": "base", "label": "x"}]}},
            r"training_curves.rows: 'x': 'base' is not trained",
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
            {"reward_models": {"clip_score": {"options": {"dtpye": "bfloat16"}}}},
            "reward_models.clip_score.options.dtpye: unknown key. 'dtpye' is not known",
        ),
        (
            "presets/tiny.yaml",
            {"reward_models": {"clip_score": {"options": {"dtype": ["bfloat16"]}}}},
            r"clip_score: options.dtype=\['bfloat16'\]: wanted a text, a number, true or false",
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


def test_a_model_needs_its_untrained_cell_and_its_file(folder):
    text = (folder / "cells.yaml").read_text()
    (folder / "cells.yaml").write_text(
        text.replace("base_sd3:\n  trained: false\n  model: sd3\n", "")
    )
    for sheet in ("tables.yaml", "figures.yaml"):
        replace(folder, sheet, "cell: base_sd3", "cell: base")
    (folder / "models/flux.yaml").unlink()
    found = mistakes(folder)
    assert "the model 'sd3' has no untrained cell" in found[-1]
    assert "there is no config/models/flux.yaml that says what training on it changes" in found[0]
    assert len(found) == 2


def test_a_cell_trains_on_prompts_that_are_there(folder):
    replace(folder, "presets/tiny.yaml", "{train: 200, test: 96}", "{test: 96}")
    found = mistakes(folder)
    assert "tiny_pick has no split `train` to train on" in found[0]
    assert "(in pick_mixgrpo, " in found[0]


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
