"""A checkpoint is whole or absent, of this run or refused."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.training.checkpoint import TrainingState, load, save


def state(seed: int = 0) -> TrainingState:
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    return TrainingState(network, optimizer)


def step(s: TrainingState) -> None:
    s.optimizer.zero_grad()
    (s.network(torch.randn(4, 3)) * random.random() * np.random.rand()).sum().backward()
    s.optimizer.step()
    s.iteration += 1


def test_a_restored_run_goes_on_bit_for_bit_with_every_generator(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    undisturbed = state()
    for _ in range(3):
        step(undisturbed)
    save(path, undisturbed, key="k")
    for _ in range(3):
        step(undisturbed)

    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    resumed = state(seed=5)
    assert load(path, resumed, key="k")
    assert resumed.iteration == 3
    for _ in range(3):
        step(resumed)
    assert torch.equal(resumed.network.weight, undisturbed.network.weight)


def test_no_checkpoint_is_a_fresh_start(tmp_path: Path):
    assert not load(tmp_path / "checkpoint.pt", state(), key="k")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.pt"
    save(path, state(), key="this")
    with pytest.raises(UserError, match=r"belongs to another run.*rm .*checkpoint\.pt"):
        load(path, state(), key="that")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, kept: float):
    path = tmp_path / "checkpoint.pt"
    save(path, state(), key="k")
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read"):
        load(path, state(), key="k")


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.training.test_checkpoint import state, step
from mixgrpo.training.checkpoint import save
s = state()
save(Path(sys.argv[1]), s, key="k")
step(s)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
save(Path(sys.argv[1]), s, key="k")
"""


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path):
    """A real failed write: the process may not make files over 100 bytes."""
    path = tmp_path / "checkpoint.pt"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "could not be written" in run.stderr
    assert "UserError" in run.stderr
    before = state()
    assert load(path, before, key="k")
    assert before.iteration == 0
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


FULL_DISK_FOR_WEIGHTS = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from mixgrpo.files import write_with
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
write_with(Path(sys.argv[1]), lambda path: save_file({"w": torch.zeros(1000)}, path))
"""


def test_a_full_disk_for_weights_is_told_alike(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-c", FULL_DISK_FOR_WEIGHTS, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "UserError" in run.stderr
    assert "could not be written" in run.stderr
    assert list(tmp_path.iterdir()) == []
