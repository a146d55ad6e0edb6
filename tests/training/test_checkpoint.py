"""A checkpoint is whole or absent, of this run or refused."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.training.checkpoint import (
    FACTS,
    TrainingState,
    load,
    load_sharded,
    save,
    save_sharded,
)


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


# In parts (test_distributed.py has those of several processes)


def save_parts(directory: Path, s: TrainingState, *, key: str = "k") -> None:
    save_sharded(directory, s, key=key, is_main=True, wait=lambda: None)


def plain_step(s: TrainingState) -> None:
    """A step without draws: a sharded checkpoint keeps no generator, because a run needs none."""
    s.optimizer.zero_grad()
    s.network(torch.ones(4, 3) * (s.iteration + 1)).square().sum().backward()
    s.optimizer.step()
    s.iteration += 1


def test_a_run_restored_from_parts_goes_on_bit_for_bit(tmp_path: Path):
    undisturbed = state()
    for _ in range(3):
        plain_step(undisturbed)
    save_parts(tmp_path / "checkpoint", undisturbed)
    for _ in range(3):
        plain_step(undisturbed)
    resumed = state(seed=5)
    assert load_sharded(tmp_path / "checkpoint", resumed, key="k")
    assert resumed.iteration == 3
    for _ in range(3):
        plain_step(resumed)
    assert torch.equal(resumed.network.weight, undisturbed.network.weight)


def test_parts_hold_the_reference_of_online_dpo(tmp_path: Path):
    saved, loaded = state(), state(seed=1)
    saved.reference, loaded.reference = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_parts(tmp_path / "checkpoint", saved)
    assert load_sharded(tmp_path / "checkpoint", loaded, key="k")
    assert torch.equal(loaded.reference.weight, saved.reference.weight)


def test_no_parts_are_a_fresh_start(tmp_path: Path):
    assert not load_sharded(tmp_path / "checkpoint", state(), key="k")


def test_parts_of_another_run_are_refused(tmp_path: Path):
    save_parts(tmp_path / "checkpoint", state(), key="this")
    with pytest.raises(UserError, match=r"belongs to another run.*rm -r .*checkpoint"):
        load_sharded(tmp_path / "checkpoint", state(), key="that")


def test_parts_of_another_network_are_refused(tmp_path: Path):
    save_parts(tmp_path / "checkpoint", state())
    other = torch.nn.Linear(3, 4)
    with pytest.raises(UserError, match="cannot be read"):
        load_sharded(
            tmp_path / "checkpoint",
            TrainingState(other, torch.optim.AdamW(other.parameters())),
            key="k",
        )


@pytest.mark.parametrize("damage", ["cut", "gone", "no facts", "half of the facts", "bits"])
def test_damaged_parts_are_named(tmp_path: Path, damage: str):
    directory = tmp_path / "checkpoint"
    save_parts(directory, state())
    (part,) = directory.glob("*.safetensors")
    content, facts = part.read_bytes(), (directory / FACTS).read_text()
    {
        "cut": lambda: part.write_bytes(content[: len(content) // 2]),
        "gone": part.unlink,
        "no facts": (directory / FACTS).unlink,
        "half of the facts": lambda: (directory / FACTS).write_text(facts[: len(facts) // 2]),
        "bits": lambda: part.write_bytes(b"x" * len(content)),
    }[damage]()
    with pytest.raises(UserError, match=r"checkpoint .*cannot be read.*rm -r"):
        load_sharded(directory, state(), key="k")


@pytest.mark.parametrize("moment", ["while it writes", "between the renames"])
def test_a_kill_while_parts_are_replaced_leaves_one_whole_checkpoint(tmp_path: Path, moment: str):
    """Whatever stands there is what a kill -9 leaves; the next checkpoint is written over it."""
    directory = tmp_path / "checkpoint"
    s = state()
    save_parts(directory, s)
    if moment == "while it writes":
        (tmp_path / ".checkpoint.tmp").mkdir()
        (tmp_path / ".checkpoint.tmp" / "shard-00001.safetensors").write_bytes(b"half")
    else:
        directory.rename(tmp_path / ".checkpoint.old")
    found = state(seed=3)
    assert load_sharded(directory, found, key="k")
    assert torch.equal(found.network.weight, s.network.weight)
    plain_step(s)
    save_parts(directory, s)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    assert load_sharded(directory, found, key="k")
    assert found.iteration == 1


FULL_DISK_FOR_PARTS = """
import resource, sys
from pathlib import Path
from tests.training.test_checkpoint import save_parts, state
save_parts(Path(sys.argv[1]), state())
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
save_parts(Path(sys.argv[1]), state(seed=1))
"""


def test_a_full_disk_leaves_the_parts_before(tmp_path: Path):
    directory = tmp_path / "checkpoint"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK_FOR_PARTS, str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError" in run.stderr
    assert "could not be written" in run.stderr
    before = state(seed=3)
    assert load_sharded(directory, before, key="k")
    assert torch.equal(before.network.weight, state().network.weight)
