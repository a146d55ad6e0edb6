"""Preset overhead_small, one iteration of two cells of each model: the code of preset `overhead`, on this CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mixgrpo.config import Settings, canonical
from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.load import load
from mixgrpo.provenance import ROOT
from mixgrpo.stages import costs, embed, overhead, prompts
from mixgrpo.training import side_by_side

PLAN = {"paths": ["shared", "unshared", "one_by_one"], "num_positions": 1}
CELLS = {"flux_random": ("flash_star", "mixgrpo"), "sd3_random": ("sd3_dpo_offline", "sd3_mixgrpo")}


@pytest.fixture(scope="module")
def experiment():
    return load(ROOT / "config", {"preset": "overhead_small"})


def small(settings: Settings) -> Settings:
    """Fewer and smaller pictures, so that the test takes seconds."""
    outline = str(ROOT / settings.model.path)
    dpo = settings.dpo and replace(settings.dpo, num_levels=4)
    return replace(
        settings,
        dpo=dpo,
        model=replace(settings.model, path=outline, resolution=32),
        sampling=replace(settings.sampling, num_steps=9),
        training=replace(settings.training, group_size=4),
    )


@pytest.fixture(scope="module")
def inputs(experiment, tmp_path_factory):
    """By model, the options of the stage."""
    root = tmp_path_factory.mktemp("overhead_small")
    words, plan = root / "prompts.tsv", root / "plan.json"
    prompts.run(dataset="tiny_hpd", split="train", num=4, output=words)
    plan.write_text(json.dumps(PLAN))
    found = {}
    for model, cells in CELLS.items():
        paths = []
        for cell in cells:
            paths.append(root / "runs" / cell / "seed0" / "settings.json")
            paths[-1].parent.mkdir(parents=True)
            paths[-1].write_text(canonical(small(experiment.settings(cell, 0))))
        base = Path(json.loads(paths[0].read_text())["model"]["path"])
        embeddings = root / f"{model}.safetensors"
        embed.run(model=model, base=base, prompts=words, output=embeddings)
        found[model] = {
            "settings": paths,
            "prompts": words,
            "embeddings": embeddings,
            "plan": plan,
            "output": root / f"{model}.json",
        }
    return found


@pytest.fixture(scope="module")
def measured(inputs):
    for options in inputs.values():
        overhead.run(**options)
    return {model: json.loads(options["output"].read_text()) for model, options in inputs.items()}


def test_every_path_of_every_cell_is_measured(measured):
    for model, cells in CELLS.items():
        rows = measured[model]["rows"]
        assert list(rows) == list(cells)
        for row in rows.values():
            assert list(row) == ["sharing_on", "sharing_off", "one_by_one"]
            for one in row.values():
                assert one["rollout_flops"] > 0
                assert one["update_flops"] > 0
                assert one["iteration_seconds"] > 0
            assert row["sharing_off"]["micro_batch"] == 3
            assert row["one_by_one"]["micro_batch"] == 1
        assert measured[model]["peak_flops"] > 1e9


def test_counts_on_each_path(measured):
    rows = measured["flux_random"]["rows"]["mixgrpo"]
    assert rows["sharing_off"]["counted_rollout_evaluations"] == 9
    assert rows["one_by_one"]["counted_rollout_evaluations"] == 9
    assert rows["sharing_on"]["counted_rollout_evaluations"] < 9
    dpo = measured["sd3_random"]["rows"]["sd3_dpo_offline"]
    assert dpo["sharing_on"] == dpo["sharing_off"], "nothing to share: measured once"
    assert (dpo["sharing_on"]["rollout_nfe"], dpo["sharing_on"]["update_nfe"]) == (9, 4)


def test_flops_are_those_of_the_evaluations(measured):
    """A LoRA update costs two passes, and one more beside a frozen network; Flow-DPO trains one branch of two."""
    sd3 = measured["sd3_random"]["rows"]
    assert sd3["sd3_mixgrpo"]["sharing_off"]["update_passes"] == 2
    dpo = sd3["sd3_dpo_offline"]["sharing_off"]
    assert dpo["update_passes"] == 3 / 2
    evaluations = dpo["counted_update_evaluations"] / dpo["counted_rollout_evaluations"]
    assert dpo["update_flops"] == pytest.approx(dpo["rollout_flops"] * evaluations * 3 / 2)
    naive = measured["flux_random"]["rows"]["mixgrpo"]["sharing_off"]
    assert naive["update_flops"] == pytest.approx(naive["rollout_flops"] * 4 / 9 * 2)


def test_what_an_interrupted_run_measured_is_kept(inputs, monkeypatch):
    options = inputs["flux_random"]
    done, iterate = [], side_by_side.iterate

    def interrupted(trainer, iteration, **rest):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(trainer.settings)
        return iterate(trainer, iteration, **rest)

    monkeypatch.setattr(side_by_side, "iterate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        overhead.run(**options)
    kept = list(options["output"].with_suffix("").glob("*.jsonl"))
    lines = kept[0].read_text().splitlines()
    assert len(lines) == 2, "four iterations, of which two were warm-ups"
    with kept[0].open("a") as file:
        file.write('{"key": "flash_st')  # killed while it wrote
    again = []
    monkeypatch.setattr(
        side_by_side, "iterate", lambda *a, **k: again.append(a) or iterate(*a, **k)
    )
    overhead.run(**options)
    warm_ups = 3
    assert len(again) == 2 * 3 - 2 + warm_ups
    assert not kept[0].exists(), "asked again, it measures again"


def test_the_page_has_every_table(measured, inputs, experiment, tmp_path):
    names = experiment.cost_tables
    assert names == ["table01", "table03", "table09"]
    paths = [tmp_path / f"{name}.json" for name in names]
    for name, path in zip(names, paths, strict=True):
        spec = json.loads(specs.table_json(experiment, name))
        spec["published"] = str(ROOT / spec["published"])
        path.write_text(json.dumps(spec))
    md, csv = tmp_path / "costs.md", tmp_path / "costs.csv"
    costs.run(specs=paths, overheads=[o["output"] for o in inputs.values()], md=md, csv=csv)
    text = md.read_text()
    for title in ("Table 1: ratios to the first row", "Table 9: seconds per sampled image"):
        assert title in text
    assert "scaled down" in text
    data = pd.read_csv(csv)
    assert set(data["path"]) == {"shared", "unshared", "one_by_one"}
    assert set(data[data["table"] == "table03"]["cell"]) == set(CELLS["sd3_random"])
    row = data[(data["table"] == "table01") & (data["cell"] == "mixgrpo")].iloc[0]
    assert row["paper_iteration_seconds"] == 150.839
    assert 0 < row["rollout_utilisation"] < 1
    assert row["rollout_utilisation"] == pytest.approx(
        row["rollout_flops"] / row["rollout_seconds"] / row["peak_flops"], rel=1e-6
    )


def test_a_table_without_measurements_is_named(measured, inputs, experiment, tmp_path):
    path = tmp_path / "table03.json"
    path.write_text(specs.table_json(experiment, "table03"))
    with pytest.raises(UserError, match="table03: none of its cells was measured"):
        costs.run(
            specs=[path],
            overheads=[inputs["flux_random"]["output"]],
            md=tmp_path / "a.md",
            csv=tmp_path / "a.csv",
        )
