"""What clusters and people do to trainings: each goes on from its checkpoint and ends as if nothing had happened.

Slowed down until all that shall happen has happened. Most are of one process.
"""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import wait_for
from tests.slurm.experiment import RESULTS, Experiment, rows, same_run
from tests.slurm.job import Job
from tests.slurm.run import Run
from tests.workflow.checkout import PRESET

pytestmark = pytest.mark.slurm

ITERATIONS = 20
CELLS = ("requeued", "expired", "robbed", "interrupted", "abandoned")
"""Named by what happens to them; they differ by their learning rates."""
TRAIN = """
import sys
from pathlib import Path
from mixgrpo.stages import train
run, output = Path(sys.argv[1]), Path(sys.argv[2])
for cell in sys.argv[3:]:
    train.run(
        settings=run / "runs" / cell / "seed0/settings.json",
        prompts=run / "prompts/tiny_hpd_train.tsv",
        embeddings=run / "embeddings/flux/tiny_hpd_train.safetensors",
        checkpoints=output / "checkpoints",
        model=output / cell / "model.safetensors",
        metrics=output / cell / "metrics.jsonl",
    )
"""


def many_short_iterations(preset: Any) -> Any:
    """Of one process."""
    training = {**preset["training"], "num_iterations": ITERATIONS, "num_prompts": 1}
    whole_node = {"gpu": 2, "mem_mb": 1500, "runtime": 60}
    return {
        **preset,
        "training": training,
        "sampling": {"num_steps": 8},
        "jobs": {**preset["jobs"], "train": whole_node},
    }


def add_cells(cells: Any) -> Any:
    rates = {cell: 1e-4 * (2 + number) for number, cell in enumerate(CELLS)}
    return cells | {
        cell: {"method": "mixgrpo", "training": {"learning_rate": rate}}
        for cell, rate in rates.items()
    }


@pytest.fixture(scope="module")
def trainings(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Prompts, embeddings and weights are there, and a cell for each thing that can happen."""
    experiment = finished.experiment.copy(tmp_path_factory.mktemp("trainings") / "checkout")
    experiment.rewrite("config/presets/smoke.yaml", many_short_iterations)
    experiment.rewrite("config/cells.yaml", add_cells)
    return experiment


@pytest.fixture(scope="module")
def undisturbed(trainings: Experiment) -> Path:
    """The same trainings, one after the other and without Slurm."""
    settings = [f"{RESULTS}/runs/{cell}/seed0/settings.json" for cell in CELLS]
    trainings.snakemake("--cores", "1", "--config", PRESET, "--", *settings)
    trainings.run(sys.executable, "-c", TRAIN, RESULTS, "undisturbed", *CELLS)
    return trainings.root / "undisturbed"


def models(*cells: str) -> list[str]:
    """Snakemake's targets."""
    return [f"{RESULTS}/runs/{cell}/seed0/model.safetensors" for cell in cells]


def job_of(run: Run, cell: str) -> Job | None:
    """The last Slurm job that trains a cell."""
    return next(reversed(run.jobs(f"rule_train_wildcards_{cell}_")), None)


def has_checkpoint(experiment: Experiment, job: Job) -> bool:
    """Which stands beside the lock that the job holds."""
    return any(
        re.search(rf"\bjob {job.id}\b", lock.read_text())
        and (lock.with_suffix("") / "checkpoint.pt").exists()
        for lock in (experiment.root / RESULTS / "checkpoints").glob("*.lock")
    )


def wait_for_checkpoint(run: Run, cell: str) -> Job:
    """Until an iteration or more of it is done."""

    def trains() -> Job | None:
        job = job_of(run, cell)
        return job if job and has_checkpoint(run.experiment, job) else None

    job = run.wait_for(trains, f"{cell} has a checkpoint")
    assert job is not None
    return job


def resumed_at(experiment: Experiment, cell: str) -> int:
    """The number of iterations that its last job found done."""
    found = re.search(r"(\d+)/\d+ \[[^]]*iteration", experiment.log(cell))
    assert found, experiment.log(cell)
    return int(found[1])


def test_what_a_cluster_does_to_jobs(trainings, undisturbed, experiment, finished, cluster):
    """A requeue, a time limit and the end of a node; beside them, of two nodes, the warning before a time limit."""
    cells = CELLS[:3]
    trainings.pause(3)
    run = Run(trainings, "--", *models(*cells))
    experiment.pause(5)
    experiment.folder("mixgrpo").joinpath("model.safetensors").unlink()
    of_two_nodes = Run(experiment, "--", *models("mixgrpo"))
    requeued, expired, robbed = jobs = [wait_for_checkpoint(run, cell) for cell in cells]
    cluster.requeue(requeued.id)
    cluster.expire(expired.id)
    cluster.kill_node(robbed.node)
    warned = wait_for_checkpoint(of_two_nodes, "mixgrpo")
    cluster.expire(warned.id, minutes=3)

    run.wait_for(lambda: cluster.job(expired.id).ended, "the time is over")
    run.wait_for(lambda: cluster.job(requeued.id).restarts, "the job was requeued")
    run.wait_for(lambda: cluster.job(robbed.id).restarts, "the job is on another node")
    of_two_nodes.wait_for(lambda: cluster.job(warned.id).ended, "the warning has come")
    for root in (trainings.root, experiment.root):
        (root / "pause").unlink()
    run.end()
    said = of_two_nodes.end()

    assert cluster.job(expired.id).state == "TIMEOUT"
    for cell, first in zip(cells, jobs, strict=True):
        last = job_of(run, cell)
        assert last.state == "COMPLETED"
        assert (last.id == first.id) == (cell != "expired")
        assert resumed_at(trainings, cell) >= 1
        assert same_run(trainings.folder(cell), undisturbed / cell)
    assert cluster.job(warned.id).state == "FAILED"
    assert re.search(r"stopped by SIGTERM after iteration \d of 10", said)
    assert resumed_at(experiment, "mixgrpo") >= 1
    assert same_run(experiment.folder("mixgrpo"), finished.experiment.folder("mixgrpo"))


def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(trainings, undisturbed, cluster):
    trainings.pause(3)
    run = Run(trainings, "--", *models("interrupted"))
    job = wait_for_checkpoint(run, "interrupted")
    run.ctrl_c()
    run.end(1)
    wait_for(lambda: cluster.job(job.id).state == "CANCELLED", "the job is cancelled")
    words = "stopped by SIGTERM after iteration"
    wait_for(lambda: words in trainings.log("interrupted"), "it has written a checkpoint")
    (trainings.root / "pause").unlink()

    run = Run(trainings, "--", *models("interrupted"))
    run.end()
    assert resumed_at(trainings, "interrupted") >= 1
    assert same_run(trainings.folder("interrupted"), undisturbed / "interrupted")


def test_after_kill_9_nothing_is_trained_twice(trainings, undisturbed, cluster):
    """Nor is what the first job writes deleted by the second, which the next run submits for it knows of none."""
    trainings.pause(3)
    run = Run(trainings, "--", *models("abandoned"))
    first = wait_for_checkpoint(run, "abandoned")
    run.kill()
    trainings.snakemake("--unlock", "--config", PRESET)

    run = Run(trainings, "--", *models("abandoned"))
    words = f"Waiting for job {first.id}"
    run.wait_for(lambda: words in trainings.log("abandoned"), "the second job waits for the first")
    assert cluster.job(first.id).state == "RUNNING"
    (trainings.root / "pause").unlink()
    run.end()
    second = job_of(run, "abandoned")
    assert second.id != first.id
    assert [cluster.job(job.id).state for job in (first, second)] == ["COMPLETED"] * 2
    assert "another job has trained this run" in trainings.log("abandoned")
    trained = [row["iteration"] for row in rows(trainings.folder("abandoned") / "metrics.jsonl")]
    assert trained == [*range(ITERATIONS)]
    assert same_run(trainings.folder("abandoned"), undisturbed / "abandoned")


def test_only_the_jobs_of_an_edited_cell_are_submitted(trainings):
    """Of those that have been trained above. Here the profile's own pauses between polls are waited for."""
    cells = [
        cell for cell in CELLS if trainings.folder(cell).joinpath("model.safetensors").exists()
    ]
    assert len(cells) > 1
    trainings.edit("config/cells.yaml", "^requeued:", "requeued:\n  window: {size: 2}")
    run = Run(trainings, "--", *models(*cells), fast=False)
    run.end()
    assert [job.rule for job in run.jobs()] == ["rule_train_wildcards_requeued_0"]
