"""Checkpoints that are complete and atomic: a run killed anywhere goes on as if it had not been.

One file holds the trained weights, the optimizer, every generator's state and the iteration; where weights are
sharded, one directory does, in parts (`sharding.py`), which any number of processes reads. The data position and all
noise are functions of the iteration (`randomness.py`), so they need no state of their own.
"""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.files import write_text, write_with
from mixgrpo.training.sharding import read_parts, write_parts

FACTS = "checkpoint.json"


@dataclass
class TrainingState:
    """What training changes as it goes."""

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    iteration: int = 0
    """Iterations completed."""
    reference: torch.nn.Module | None = None
    """Online Flow-DPO: the network whose weights the policy's replace now and then."""


def save(path: Path, state: TrainingState, *, key: str) -> None:
    """Write `state` to `path`, replacing what stood there only when the new file is whole.

    key: identifies the run (settings, code, base model, data); `load` refuses any other.
    """
    weights = _trained(state.network)
    content: dict[str, Any] = {
        "key": key,
        "iteration": state.iteration,
        "network": weights,
        "optimizer": state.optimizer.state_dict(),
        "generators": _generator_states(),
    }
    if state.reference is not None:
        places = dict(state.reference.named_parameters())
        content["reference"] = {name: places[name].detach() for name in weights}
    write_with(path, lambda temporary: torch.save(content, temporary))


def load(path: Path, state: TrainingState, *, key: str) -> bool:
    """Restore `state` in place from `path`; False when there is no checkpoint yet.

    UserError for a corrupt or truncated file and for a checkpoint of another run.
    """
    if not path.exists():
        return False
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["key"]
    except (
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unreadable(path, reason, remove="rm") from None
    _refuse_other_run(path, found, key, remove="rm")
    _restore(state.network, content["network"])
    if state.reference is not None:
        _restore(state.reference, content["reference"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.iteration = content["iteration"]
    _restore_generators(content["generators"])
    return True


def save_sharded(
    directory: Path,
    state: TrainingState,
    *,
    key: str,
    is_main: bool,
    wait: Callable[[], None],
) -> None:
    """Every process writes its parts of `state`; together they replace what stood at `directory` when all are there.

    is_main: the one process that names things. wait: returns when every process is there. Of the generators
    nothing is kept: all that a run draws is a function of the iteration.
    """
    temporary = directory.with_name(f".{directory.name}.tmp")
    if is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    wait()
    try:
        write_parts(temporary, _tensors(state))
    except OSError as error:
        raise UserError(
            f"{directory}: could not be written ({error}). The version before it is untouched. "
            "Free some space or fix the permissions, and rerun: work goes on from there."
        ) from None
    wait()
    if is_main:
        sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
        facts = {"key": key, "iteration": state.iteration, "files": sizes}
        write_text(temporary / FACTS, json.dumps(facts, indent=1) + "\n")
        old = directory.with_name(f".{directory.name}.old")
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)
            directory.rename(old)
        temporary.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    wait()


def load_sharded(directory: Path, state: TrainingState, *, key: str) -> bool:
    """Restore this process's parts of `state` from a directory, whatever number of processes wrote it.

    False when there is no checkpoint yet. UserError when files are missing, cut short or unreadable, and for
    a checkpoint of another run.
    """
    old = directory.with_name(f".{directory.name}.old")
    found = directory if directory.exists() else old  # killed between the two renames
    if not found.exists():
        return False
    try:
        facts = json.loads((found / FACTS).read_text())
        _refuse_other_run(found, facts["key"], key, remove="rm -r")
        for name, size in facts["files"].items():
            if (found / name).stat().st_size != size:
                raise ValueError(f"{name} is cut short")
        read_parts(found, _tensors(state))
        state.iteration = facts["iteration"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(found, str(error), remove="rm -r") from None
    return True


def _unreadable(path: Path, reason: str, *, remove: str) -> UserError:
    return UserError(
        f"checkpoint {path} cannot be read: it is corrupt or truncated ({reason}). "
        f"Delete it to start this run over: {remove} {path}"
    )


def _refuse_other_run(path: Path, found: str, key: str, *, remove: str) -> None:
    if found != key:
        raise UserError(
            f"checkpoint {path} belongs to another run (key {found}, this run's is {key}): settings, code, base model "
            f"or prompts differ. Delete it to start over: {remove} {path}"
        )


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """All that training changes, by name, as it stands in memory: writing to these tensors restores."""
    trained = {name: p for name, p in state.network.named_parameters() if p.requires_grad}
    found = {f"network.{name}": p.detach() for name, p in trained.items()}
    if state.reference is not None:
        places = dict(state.reference.named_parameters())
        found |= {f"reference.{name}": places[name].detach() for name in trained}
    for name, parameter in trained.items():
        moments = state.optimizer.state[parameter]
        if not moments:  # as AdamW begins, before its first step
            moments["step"] = torch.tensor(0.0)
            moments["exp_avg"] = torch.zeros_like(parameter)
            moments["exp_avg_sq"] = torch.zeros_like(parameter)
        found |= {f"optimizer.{kind}.{name}": tensor for kind, tensor in moments.items()}
    return found


def _trained(network: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that training changes: all, or the adapters."""
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def _restore(network: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    places = dict(network.named_parameters())
    for name, value in weights.items():
        places[name].copy_(value)


def _generator_states() -> dict[str, Any]:
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(algorithm),
            torch.from_numpy(np.array(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def _restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    for device, generator in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(generator, device)  # the machine may have had more or fewer
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
