"""The whole workflow on a barely trained world: everything is made, killed, taken up again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workflow.checkout import PRESET, Checkout

pytestmark = pytest.mark.slow

TABLES = ("table01", "table03", "table10")
FIGURES = ("figure02", "figure05")
LIKE_MAKE = ("--cores", "2", "--logger", "brief", "--workflow-profile", "workflow/profiles/default")
RUN = "results/smoke/runs/mixgrpo/seed0"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A part of the workflow run to its end, as `make reproduce` does."""
    checkout = Checkout(tmp_path_factory.mktemp("smoke"))
    ran = checkout.snakemake(*LIKE_MAKE, *asked(checkout))
    (checkout.root / "said.txt").write_text(ran.stderr)
    return checkout


def asked(checkout: Checkout) -> list[str]:
    """Snakemake's options for the part of the workflow that these tests make."""
    options = checkout.planning("targets", "--tables", " ".join([*TABLES, *FIGURES]))
    return options.splitlines()[0].split()


def start(checkout: Checkout, *options: str) -> subprocess.Popen[str]:
    """Snakemake in a process group of its own, which can be killed with its jobs."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *LIKE_MAKE, *options],
        cwd=checkout.root,
        env=checkout.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_says_what_it_does(smoke):
    said = (smoke.root / "said.txt").read_text()
    assert re.search(r"  train: 10 cells \(dancegrpo, dancegrpo_4, dancegrpo_4_first, flash", said)
    assert re.search(r"This takes about \d+ minutes on 2 cores", said)
    assert re.search(r"\d+/\d+  Training mixgrpo, seed 0: done in \d+ s", said)
    assert said.index("Making table01: done") < said.index("Making table10: done")
    assert not list((smoke.root / "logs/running").iterdir())


def test_tables_and_figures_are_made_without_a_blank(smoke):
    results = smoke.root / "results/smoke"
    for table in TABLES:
        for ending in ("md", "csv", "tex", "html"):
            assert (results / f"tables/{table}.{ending}").stat().st_size > 0
    for figure in FIGURES:
        assert (results / f"figures/{figure}.png").stat().st_size > 0
        assert (results / f"figures/{figure}.pdf").stat().st_size > 0
    text = (results / "tables/table01.md").read_text()
    for label in ("FLUX", "DanceGRPO 25/14", "DanceGRPO 25/4*", "MixGRPO", "MixGRPO-Flash*"):
        assert label in text
    assert "preset smoke" in text
    assert "Flow-GRPO" in (results / "tables/table03.md").read_text()


def test_nothing_is_left_to_do(smoke):
    assert "Nothing to be done" in smoke.snakemake("-n", *asked(smoke)).stdout
    said = smoke.planning("status", "--tables", " ".join([*TABLES, *FIGURES]))
    assert "Everything is up to date." in said


def test_the_report_of_snakemake_is_one_file(smoke):
    smoke.snakemake("--report", "report.html", *asked(smoke))
    report = (smoke.root / "report.html").read_text()
    assert all(name in report for name in (*TABLES, *FIGURES))


def test_killed_in_the_middle_it_goes_on_from_its_checkpoint(smoke):
    """kill -9 of Snakemake and its job; `make status` sees it run, and knows when it is dead."""
    smoke.edit("config/presets/smoke.yaml", "num_iterations: 4", "num_iterations: 100")
    smoke.edit("config/config.yaml", "checkpoint_interval: 20", "checkpoint_interval: 1")
    options = ("--config", PRESET, "--", f"{RUN}/model.safetensors")
    running = start(smoke, *options)
    wait_for_heartbeat(smoke.root / "logs/running", "of 100 iterations")
    said = smoke.planning("status", "--tables", "1")
    assert re.search(r"  Training mixgrpo, seed 0: \d+ of 100 iterations", said), said
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    done = max(map(count_rows, smoke.root.glob("results/smoke/checkpoints/*/metrics.jsonl")))
    assert 0 < done < 100
    assert "Nothing is running." in smoke.planning("status", "--tables", "1")

    smoke.snakemake("--unlock", *options)
    again = start(smoke, *options)
    _, said = again.communicate()
    assert again.returncode == 0, said
    log = (smoke.root / "logs/smoke/train/mixgrpo/seed0.log").read_text()
    first = re.search(r"(\d+)/100 \[", log)
    assert first is not None
    assert int(first[1]) >= done - 1  # a row is written before its checkpoint
    metrics = (smoke.root / RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in metrics] == list(range(100))


def count_rows(metrics: Path) -> int:
    return len(metrics.read_text().splitlines())


def wait_for_heartbeat(folder: Path, words: str) -> None:
    """Until a workflow says so of a job."""
    for _ in range(1200):
        if any(words in path.read_text() for path in folder.glob("*.json")):
            return
        time.sleep(0.1)
    raise AssertionError(f"no job said {words!r}")
