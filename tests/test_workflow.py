"""What is stale after which edit: real Snakemake on a copy of the workflow whose results look finished."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COPIED = ("Snakefile", "config", "workflow", "mixgrpo", "environment.yml")
TRAINED = {"dancegrpo", "dancegrpo_4", "dancegrpo_4_first", "mixgrpo", "flash", "flash_star"}
REPORTED = {"table", "table_spec", "figure", "figure_spec"}

Stale = set[tuple[str, str]]
"""(rule, output) of everything that would be made again."""


class Checkout:
    """A copy of the workflow in a folder of its own, with finished results of preset smoke."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)

    def snakemake(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snakemake", *options]
        environment = {**os.environ, "PYTHONPATH": "workflow/plugins", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, env=environment
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def summary(self, *config: str) -> list[dict[str, str]]:
        """Snakemake's own table of outputs: file, rule, status, plan."""
        done = self.snakemake("--summary", "--config", "preset=smoke", *config)
        lines = done.stdout.splitlines()
        names, *rows = [line.split("\t") for line in lines if "\t" in line]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def pretend_finished(self) -> None:
        """A placeholder for every output, and the records of a run that made them."""
        for row in self.summary():
            path = self.root / row["output_file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("placeholder")
        self.snakemake("--touch", "--forceall", "--cores", "1", "--config", "preset=smoke")

    def stale(self, *config: str) -> Stale:
        rows = [row for row in self.summary(*config) if row["plan"] != "no update"]
        return {(row["rule"], row["output_file"]) for row in rows}

    def edit(self, file: str, pattern: str, replacement: str) -> None:
        """Replace the one place that matches `pattern`."""
        path = self.root / file
        text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.M | re.S)
        assert count == 1, f"{pattern!r} is not in {file}"
        path.write_text(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.pretend_finished()
    return checkout


@pytest.fixture
def checkout(finished: Checkout) -> Iterator[Checkout]:
    """`finished`, put back afterwards."""
    yield finished
    for name in ("config", "mixgrpo"):
        shutil.rmtree(finished.root / name)
        shutil.copytree(ROOT / name, finished.root / name)


def rules(stale: Stale) -> set[str]:
    return {rule for rule, _ in stale}


def cells(stale: Stale, *only: str) -> set[str]:
    """Cells among the outputs of the rules `only`."""
    found = [re.search(r"/(\w+)/seed\d+/", output) for rule, output in stale if rule in only]
    return {match[1] for match in found if match}


def test_finished_means_nothing_to_do(checkout):
    assert checkout.stale() == set()
    assert "Nothing to be done" in checkout.snakemake("-n", "--config", "preset=smoke").stdout


def test_one_cells_setting_makes_only_that_cell_stale(checkout):
    checkout.edit("config/methods/flash.yaml", "tail_ratio: 0.4", "tail_ratio: 0.6")
    stale = checkout.stale()
    assert cells(stale, "settings", "train", "generate", "score") == {"flash"}
    assert rules(stale) == {"settings", "train", "generate", "score", "overhead", "table", "figure"}


def test_a_base_value_makes_every_cell_that_inherits_it_stale(checkout):
    checkout.edit("config/config.yaml", "max_grad_norm: 1.0", "max_grad_norm: 2.0")
    stale = checkout.stale()
    assert cells(stale, "train", "generate", "score") == TRAINED
    assert not rules(stale) & {"pretrain_model", "pretrain_reward", "prompts", "embed"}


def test_an_overridden_base_value_makes_nothing_stale(checkout):
    checkout.edit("config/config.yaml", "num_iterations: 300", "num_iterations: 299")
    assert checkout.stale() == set()


def test_layout_comments_and_touching_make_nothing_stale(checkout):
    for path in [*checkout.root.glob("config/**/*.yaml")]:
        path.write_text(
            f"# new\n{yaml.safe_dump(yaml.safe_load(path.read_text()), sort_keys=True)}"
        )
    checkout.edit("config/config.yaml", "learning_rate: 1.0e-05", "learning_rate: 1e-5")
    checkout.edit("mixgrpo/stages/train.py", '"""Train one cell', '"""Train a cell')
    for path in [*checkout.root.glob("mixgrpo/**/*.py"), *checkout.root.glob("config/**/*.csv")]:
        path.touch()
    assert checkout.stale() == set()


def test_a_scorer_rescores_and_retrains_nothing(checkout):
    checkout.edit("mixgrpo/rewards/sharpness.py", r"\Z", "SCALE = 2\n")
    stale = checkout.stale()
    assert rules(stale) == {"score", "table"}
    assert cells(stale, "score") == TRAINED | {"base"}


def test_a_trained_reward_retrains(checkout):
    checkout.edit("mixgrpo/rewards/tiny_hps.py", r"\Z", "SCALE = 2\n")
    assert cells(checkout.stale(), "train") == TRAINED


@pytest.mark.parametrize(
    ("module", "expected"),
    [("training_curves", {"training_curves"}), ("style", {"training_curves", "figure04"})],
)
def test_plotting_code_redraws_figures_only(checkout, module, expected):
    checkout.edit(f"mixgrpo/report/{module}.py", r"\Z", "SCALE = 2\n")
    stale = checkout.stale()
    assert rules(stale) == {"figure"}
    assert {Path(output).stem for _, output in stale} == expected


def test_table_code_makes_tables_only(checkout):
    checkout.edit("mixgrpo/report/markdown.py", r"\Z", "SCALE = 2\n")
    assert rules(checkout.stale()) == {"table"}


def test_the_algorithm_retrains_and_leaves_the_base_world(checkout):
    checkout.edit("mixgrpo/algorithm/loss.py", r"\Z", "SCALE = 2\n")
    stale = checkout.stale()
    assert cells(stale, "train") == TRAINED
    assert not rules(stale) & {"pretrain_model", "pretrain_reward", "prompts", "embed"}


def test_the_forecast_is_no_code_of_any_job(checkout):
    checkout.edit("mixgrpo/planning/forecast.py", r"\Z", "SCALE = 2\n")
    assert checkout.stale() == set()


def test_a_title_makes_one_table_again(checkout):
    checkout.edit("config/tables.yaml", '"Table 1: ', '"Table One: ')
    stale = checkout.stale()
    assert rules(stale) == {"table_spec", "table"}
    assert {Path(output).stem for _, output in stale} == {"table01"}


def test_the_order_of_rows_is_seen(checkout):
    checkout.edit(
        "config/figures.yaml", r"( +- .cell: mixgrpo[^\n]*\n)( +- .cell: flash,[^\n]*\n)", r"\2\1"
    )
    stale = checkout.stale()
    assert rules(stale) == {"figure_spec", "figure"}
    assert {Path(output).stem for _, output in stale} == {"figure04"}


def test_another_set_of_pictures_generates_and_scores_but_does_not_train(checkout):
    checkout.edit("config/tables.yaml", "p_mix: 0.8", "p_mix: 0.6")
    stale = checkout.stale()
    assert cells(stale, "evaluation", "generate", "score") == TRAINED
    assert rules(stale) == {"evaluation", "generate", "score", *REPORTED} - {"figure_spec"}


def test_another_seed_trains_only_that(checkout):
    trained = {output for rule, output in checkout.stale("seeds=[0,1]") if rule == "train"}
    assert len(trained) == 2 * len(TRAINED)
    assert all("/seed1/" in output for output in trained)


def test_the_sweep_is_no_part_of_all_and_shares_the_base_world(checkout):
    assert not any("sweep" in row["output_file"] for row in checkout.summary())
    options = ("-n", "--quiet", "rules", "--config", "preset=smoke", "--", "sweep")
    planned = checkout.snakemake(*options).stdout
    assert "pretrain_model" not in planned
    assert re.search(r"^train +18$", planned, flags=re.M)


def test_mistakes_are_told_without_a_traceback_before_anything_runs(checkout):
    checkout.edit("config/cells.yaml", "method: flash$", "method: flahs")
    failed = checkout.snakemake("--cores", "1", "--config", "preset=smoke", check=False)
    assert failed.returncode != 0
    assert (
        "config/cells.yaml: flash.method: 'flahs' is not known; did you mean 'flash'?"
        in failed.stderr
    )
    assert "Traceback" not in failed.stderr
    failed = checkout.snakemake("-n", "--config", "presett=smoke", check=False)
    assert "presett" in failed.stdout


def test_a_job_refuses_code_that_changed_after_it_was_planned(checkout):
    """Planned with one scorer, started with another: the job says so and writes nothing."""
    planned = checkout.snakemake("-n", "-p", "--forcerun", "prompts", "--config", "preset=smoke")
    command = re.search(r"python -m mixgrpo prompts .*tiny_hpd_test.*", planned.stdout)
    assert command is not None
    checkout.edit("mixgrpo/tiny/grammar.py", r"\Z", "SCALE = 2\n")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = command[0].split(" > ")[0]
    run = subprocess.run(
        ["bash", "-c", line], cwd=checkout.root, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "changed after it was planned" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_smoke_preset_end_to_end(tmp_path):
    """The whole workflow on a barely trained world: everything is made, and then nothing is left to do."""
    checkout = Checkout(tmp_path)
    ran = checkout.snakemake(
        *("--cores", "2", "--config", "preset=smoke", "--logger", "brief"),
        *("--workflow-profile", "workflow/profiles/default"),
    )
    assert (
        "train: dancegrpo, dancegrpo_4, dancegrpo_4_first, flash, flash_star, mixgrpo" in ran.stderr
    )
    assert re.search(r"\d+/\d+  Training mixgrpo, seed 0: done in \d+ s", ran.stderr)
    results = tmp_path / "results" / "smoke"
    for name in ("table01.md", "table01.csv", "table01.tex", "table01_gains.md"):
        assert (results / "tables" / name).stat().st_size > 0
    for name in ("figure04.png", "figure04.pdf", "training_curves.png"):
        assert (results / "figures" / name).stat().st_size > 0
    table = (results / "tables/table01.md").read_text()
    for label in ("FLUX", "DanceGRPO 25/14", "DanceGRPO 25/4*", "MixGRPO", "MixGRPO-Flash*"):
        assert label in table
    assert "preset smoke" in table
    assert checkout.stale() == set()
    checkout.snakemake("--report", "report.html", "--config", "preset=smoke")
    assert "figure04" in (tmp_path / "report.html").read_text()
