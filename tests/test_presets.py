"""The paper preset: every cell has the paper's settings, and what it costs is counted by hand here."""

import subprocess
import sys

import pytest

from mixgrpo.config import Settings
from mixgrpo.planning.gpu_hours import gpu_hours, gpu_lines, jobs_of_cells, table_costs
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


def test_gpu_hours_are_seconds_times_gpus_and_unknown_times_are_counted(paper):
    hours, known, unknown = gpu_hours(paper, jobs_of_cells(paper, ["mixgrpo", "base", "mixgrpo"]))
    assert hours == pytest.approx(MIXGRPO_HOURS, rel=1e-4)
    assert (known, unknown) == (1, 4)
    assert gpu_hours(paper, jobs_of_cells(paper, ["sd3_mixgrpo"])) == (0.0, 0, 3)
    assert known_seconds(paper, "train", {"cell": "sd3_mixgrpo"}) is None
    assert gpu_lines(paper, jobs_of_cells(paper, ["mixgrpo"])) == [
        f"This takes about {MIXGRPO_HOURS:.0f} GPU-hours for 1 jobs, judged by recorded times.",
        "Nobody recorded the times of 2 more jobs on GPUs: they come on top.",
    ]


def test_a_run_that_two_tables_show_is_in_the_sum_once(paper):
    lines = table_costs(paper).splitlines()
    assert len(lines) == 1 + 14 + 1
    of_tables = [float(line.split(":")[1].split("GPU")[0].replace(",", "")) for line in lines[1:]]
    assert sum(of_tables[:-1]) > 1.2 * of_tables[-1]
    assert "48 trained cells" in lines[-1]
    assert "tables" not in table_costs(load(ROOT / "config", {"preset": "tiny"}))


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
    assert "together  48 trained cells" in printed
    assert "train               49" in printed
