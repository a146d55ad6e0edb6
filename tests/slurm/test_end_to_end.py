"""Everything through Slurm, as `make slurm` does it, without accounting: this cluster has no slurmdbd."""

import re
import sys
from collections import Counter

import pytest

from tests.slurm.experiment import ITERATIONS, RESULTS, rows, same_run
from tests.slurm.run import Run
from tests.workflow.checkout import PRESET

pytestmark = pytest.mark.slurm


def submitted(run: Run) -> Counter[str]:
    """How many jobs of each rule."""
    return Counter(re.match(r"rule_([a-z_]+?)_wildcards", job.rule)[1] for job in run.jobs())


def test_the_cluster_is_found_fit(finished):
    """What `make slurm` asks first."""
    profile = ("--profile", "workflow/profiles/slurm/profile.yaml")
    said = finished.experiment.run(
        *(sys.executable, "-m", "mixgrpo", "check-cluster", *profile, "--preset", "smoke")
    )
    assert "partition batch" in said.stdout + said.stderr


def test_everything_is_made(finished):
    results = finished.experiment.root / RESULTS
    table = (results / "tables/table.md").read_text()
    assert all(label in table for label in ("FLUX", "MixGRPO"))
    assert "A table" in (results / "index.html").read_text()
    assert [
        row["iteration"] for row in rows(finished.experiment.folder("mixgrpo") / "metrics.jsonl")
    ] == [*range(ITERATIONS)]
    assert {job.state for job in finished.jobs()} == {"COMPLETED"}


def test_the_end_of_jobs_was_known_without_accounting(finished, cluster):
    assert "= accounting_storage/none" in cluster.run("scontrol", "show", "config")
    assert "sacct' for status" not in finished.said


def test_light_rules_run_on_the_submitting_machine(finished):
    assert submitted(finished) == {
        "pretrain_model": 1,
        "pretrain_reward": 1,
        "embed": 2,
        "train": 1,
        "generate": 2,
        "score": 2,
    }


def test_gpus_and_nodes_are_as_the_preset_asks(finished):
    (train,) = finished.jobs("rule_train")
    assert train.facts["NumNodes"] == "2"
    assert train.facts["TresPerJob"] == "gres:gpu:4"
    assert train.facts["TimeLimit"] == "01:00:00"
    for job in finished.jobs("rule_generate"):
        assert job.facts["NumNodes"] == "1"
        assert job.facts["TresPerJob"] == "gres:gpu:1"


def test_four_processes_of_this_machine_train_the_same(finished, tmp_path):
    """The same launcher outside of Slurm."""
    experiment = finished.experiment
    base = f"{experiment.root}/{RESULTS}"
    experiment.run(
        *("workflow/scripts/launch.sh", "2", "2", "-m", "mixgrpo", "train"),
        *("--settings", f"{base}/runs/mixgrpo/seed0/settings.json"),
        *("--prompts", f"{base}/prompts/tiny_hpd_train.tsv"),
        *("--embeddings", f"{base}/embeddings/flux/tiny_hpd_train.safetensors"),
        *("--checkpoints", str(tmp_path / "checkpoints")),
        *("--model", str(tmp_path / "model.safetensors")),
        *("--metrics", str(tmp_path / "metrics.jsonl")),
    )
    assert same_run(tmp_path, experiment.folder("mixgrpo"))


@pytest.mark.parametrize("profile", ["slurm", "default"])
def test_nothing_is_left_to_do_here_or_there(finished, profile):
    options = ("-n", "--cores", "1", "--workflow-profile", f"workflow/profiles/{profile}")
    said = finished.experiment.snakemake(*options, "--config", PRESET).stdout
    assert "Nothing to be done" in said
