"""The paper preset: every cell has the paper's settings, and what it costs is counted by hand here."""

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mixgrpo.config import Settings
from mixgrpo.planning.gpu_hours import gpu_hours, gpu_lines, plan_costs
from mixgrpo.planning.load import load
from mixgrpo.planning.specs import evaluation_json
from mixgrpo.planning.times import known_seconds
from mixgrpo.provenance import ROOT

MIXGRPO_HOURS = 150.839 * 300 * 32 / 3600
"""Of one run of Table 1's row, on the paper's 32 GPUs."""


@pytest.fixture(scope="module")
def paper():
    return load(ROOT / "config", {"preset": "paper"})


def test_every_flux_cell_trains_as_section_4_2_says(paper):
    cells = [
        c.settings for c in paper.cells.values() if c.trained and c.settings.model.name == "flux"
    ]
    assert len({id(cell) for cell in cells}) >= 45
    for cell in cells:
        training = cell.training
        assert (cell.sampling.num_steps, cell.sampling.shift) == (25, 3.0)
        assert (training.num_prompts, training.group_size, training.num_updates) == (32, 12, 4)
        assert (training.num_iterations, training.window_clock) == (300, 1)
        assert (training.weight_decay, training.advantage_clip) == (1e-4, 5.0)
        assert (training.precision, training.sharding, training.lora) == ("bf16", "fsdp", None)
        assert (cell.model.resolution, cell.model.guidance) == (720, 3.5)
        assert cell.model.revision is not None
    names = [name for name in paper.cells if not name.startswith("sweep_")]
    assert {paper.cells[name].settings.training.learning_rate for name in names} == {1e-5, 3e-4}


@pytest.mark.parametrize(
    ("cell", "noise", "eta", "steps"),
    [
        ("mixgrpo", "flow_grpo", 0.7, 4),
        ("flash_star", "flow_grpo", 0.7, 4),
        ("dancegrpo", "dance_grpo", 0.3, 24),
    ],
)
def test_methods_keep_their_own_noise(paper, cell: str, noise: str, eta: float, steps: int):
    settings: Settings = paper.cells[cell].settings
    assert (settings.sampling.noise, settings.sampling.eta) == (noise, eta)
    assert settings.num_sde_steps == steps
    rewards = {"hps_v2_1", "pick_score", "image_reward", "unified_reward"}
    assert {name: reward.weight for name, reward in settings.rewards.items()} == dict.fromkeys(
        rewards, 1.0
    )


def test_sd3_cells_train_adapters_as_flow_grpo_does(paper):
    cells = [name for name in paper.cells if name.startswith("sd3_")]
    assert len(cells) == 4
    for name in cells:
        settings = paper.cells[name].settings
        assert (settings.training.lora.rank, settings.training.lora.alpha) == (32, 64)
        assert (settings.training.learning_rate, settings.training.group_size) == (3e-4, 24)
        assert (settings.model.resolution, settings.model.guidance) == (512, 4.5)
        assert (settings.model.schedule, settings.training.sharding) == ("sd3", "none")
    assert paper.cells["sd3_flowgrpo"].settings.training.kl_weight == 0.001


def test_pictures_are_evaluated_at_the_papers_size(paper):
    assert '"resolution": 1024' in evaluation_json(paper, "mixgrpo")
    assert '"shift": 3.158' in evaluation_json(paper, "mixgrpo")
    assert '"resolution": 512' in evaluation_json(paper, "sd3_mixgrpo")
    assert '"shift": 3.0' in evaluation_json(paper, "sd3_mixgrpo")
    assert '"num_steps": 50' in evaluation_json(paper, "sd3_mixgrpo")


def jobs_of(*cells: str) -> list[tuple[str, dict[str, str]]]:
    return [
        (rule, {"cell": cell, "seed": "0"})
        for cell in cells
        for rule in ("train", "generate", "score")
    ]


def test_gpu_hours_are_seconds_times_gpus_and_unknown_times_are_counted(paper):
    hours, known, unknown = gpu_hours(paper, jobs_of("mixgrpo"))
    assert hours == pytest.approx(MIXGRPO_HOURS, rel=1e-4)
    assert (known, unknown) == (1, 2)
    assert gpu_hours(paper, jobs_of("sd3_mixgrpo")) == (0.0, 0, 3)
    assert known_seconds(paper, "train", {"cell": "sd3_mixgrpo"}) is None
    assert gpu_lines(paper, jobs_of("mixgrpo")) == [
        f"This takes about {MIXGRPO_HOURS:.0f} GPU-hours for 1 jobs, judged by recorded times.",
        "Nobody recorded the times of 2 more jobs on GPUs: they come on top.",
    ]


def costs_of_cells(plan: str) -> dict[str, list[str]]:
    """The words of each cell's line."""
    lines = [line.split() for line in plan.splitlines() if line.startswith("    ")]
    return {words[0]: words[1:] for words in lines if words[0] != "trained"}


def costs_of_tables(plan: str) -> dict[str, list[str]]:
    rest = plan.split("\n\n")[1].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in rest if "and" not in line.split()[:1]}


def number(word: str) -> float:
    return 0.0 if word in ("unknown", "-") else float(word.replace(",", "").rstrip(","))


def test_the_plan_has_a_line_for_each_cell_under_the_first_table_that_shows_it(paper):
    plan = plan_costs(paper)
    cells = costs_of_cells(plan)
    assert len(cells) == 51
    assert sum(name in plan.split() for name in paper.cells if paper.cells[name].group) == 0
    assert cells["mixgrpo"][:4] == ["3", f"{MIXGRPO_HOURS:.1f}", "unknown", "unknown"]
    assert cells["sd3_dpo_online"][:4] == ["3", "unknown", "unknown", "unknown"]
    assert cells["base"][:4] == ["2", "-", "unknown", "unknown"]
    assert " ".join(cells["mixgrpo_random"][4:]) == "also in table11"
    assert " ".join(cells["flash"][4:]) == "also in table08, table09, figures"
    assert " ".join(cells["mixgrpo"][4:]) == "also in table04, table05, table06 and 7 more"
    lines = plan.splitlines()
    tables = [line.split()[0] for line in lines if line.endswith("score")]
    assert tables == [*sorted(set(paper.tables) - {"sweep", "table10"}), "figures"]
    at = {line.split()[0]: k for k, line in enumerate(lines) if line.strip()}
    assert at["flash_order1"] < at["flash_r06"] < at["pick_mixgrpo"] < at["dancegrpo_8"]


def test_a_run_that_two_tables_show_is_in_the_sum_once(paper):
    plan = plan_costs(paper)
    cells, tables = costs_of_cells(plan), costs_of_tables(plan)
    together = tables.pop("together")
    assert together[:5] == ["49", "151", "49", "51", "51"]
    trained = sum(number(words[1]) for words in cells.values())
    assert number(together[5]) == pytest.approx(trained, abs=0.05 * 51)
    assert sum(number(words[5]) for words in tables.values()) > 1.2 * trained
    assert tables["table01"][:5] == ["6", "20", "6", "7", "7"]
    of_table = [cells[name][1] for name in paper.cells_of_table("table01")]
    assert number(tables["table01"][5]) == pytest.approx(sum(map(number, of_table)), abs=0.3)
    assert tables["table03"][5:] == ["unknown"]
    assert "and 106 jobs of unknown time" in plan
    assert re.search(r"and embed +7 +unknown", plan)


def test_every_seed_of_a_trained_cell_is_counted():
    plan = plan_costs(load(ROOT / "config", {"preset": "paper", "seeds": [0, 1, 2]}))
    assert costs_of_cells(plan)["mixgrpo"][:2] == ["9", f"{3 * MIXGRPO_HOURS:,.1f}"]
    assert costs_of_tables(plan)["together"][:5] == ["49", "445", "147", "149", "149"]


def test_what_was_measured_here_is_taken_and_what_needs_no_gpu_costs_none(
    paper, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for rule, seconds in (("train", 3600), ("generate", 7200)):
        file = tmp_path / "results" / "paper" / "benchmarks" / rule / "mixgrpo" / "seed0.tsv"
        file.parent.mkdir(parents=True)
        file.write_text(f"s\th:m:s\n{seconds}\t1:00:00\n")
    jobs = paper.sheet.jobs | {"score": replace(paper.sheet.jobs["score"], gpu=0)}
    plan = plan_costs(replace(paper, sheet=replace(paper.sheet, jobs=jobs)))
    assert costs_of_cells(plan)["mixgrpo"][:4] == ["3", "32.0", "2.0", "0.0"]


def test_thousands_of_cells_are_planned_in_a_second(paper):
    """In 50 tables, each of which shows the first cell again."""
    names = [f"cell{k}" for k in range(5000)]
    cells = {"base": paper.cells["base"]} | dict.fromkeys(names, paper.cells["mixgrpo"])
    table = paper.tables["table04"]
    tables = {}
    for k in range(50):
        rows = [
            replace(table.rows[0], cell=name) for name in dict.fromkeys([names[0], *names[k::50]])
        ]
        tables[f"table{k:02d}"] = replace(table, rows=rows)
    many = replace(paper, cells=cells, tables=tables, figures={})
    start = time.perf_counter()
    plan = plan_costs(many)
    assert time.perf_counter() - start < 5
    assert costs_of_tables(plan)["together"][:2] == ["5,000", "15,002"]
    assert "also in table01, table02, table03 and 46 more" in plan


def test_reduced_is_the_same_runs_on_fewer_gpus(paper):
    reduced = load(ROOT / "config", {"preset": "reduced"})
    for name, cell in paper.cells.items():
        ours, theirs = reduced.cells[name].settings, cell.settings
        assert (ours.training, ours.sampling, ours.window) == (
            theirs.training,
            theirs.sampling,
            theirs.window,
        )
    assert reduced.job("train", {"cell": "mixgrpo"}).gpu == 8
    assert paper.job("train", {"cell": "mixgrpo"}).gpu == 32
    assert paper.job("table", {}).gpu == 0


def test_the_whole_paper_is_planned_with_its_cost():
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "1"]
    planned = subprocess.run(
        [*command, "--config", "preset=paper"], cwd=ROOT, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr
    printed = planned.stdout + planned.stderr
    assert "GPU-hours of preset paper, from nothing" in printed
    assert costs_of_cells(printed)["flash_star"][:2] == ["3", "222.1"]
    assert "train               49" in printed
