"""What a person sees of a training that fails."""

import re

import pytest

from tests.slurm.run import Run

pytestmark = pytest.mark.slurm


def test_the_failing_rank_is_heard(experiment):
    """One of four processes on two nodes."""
    model = experiment.folder("mixgrpo") / "model.safetensors"
    model.unlink()
    (experiment.root / "broken").write_text("3")
    target = model.relative_to(experiment.root)
    run = Run(experiment, "--retries", "0", "--", str(target))
    said = run.end(1)
    for text in (experiment.log("mixgrpo"), said):
        assert re.search(r"1: \[rank3\]: RuntimeError: the reward is broken", text)
    (job,) = run.jobs()
    assert job.state == "FAILED"
