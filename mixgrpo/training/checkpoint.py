"""Checkpoints that are complete and atomic: a run killed anywhere goes on as if it had not been.

One file holds the trained weights, the optimizer, every generator's state and the iteration. The data position
and all noise are functions of the iteration (`randomness.py`), so they need no state of their own.
"""

import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixgrpo.errors import UserError
from mixgrpo.files import write_with


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
        raise UserError(
            f"checkpoint {path} cannot be read: it is corrupt or truncated ({reason}). "
            f"Delete it to start this run over: rm {path}"
        ) from None
    if found != key:
        raise UserError(
            f"checkpoint {path} belongs to another run (key {found}, this run's is {key}): settings, code, base model "
            f"or prompts differ. Delete it to start over: rm {path}"
        )
    _restore(state.network, content["network"])
    if state.reference is not None:
        _restore(state.reference, content["reference"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.iteration = content["iteration"]
    _restore_generators(content["generators"])
    return True


def _trained(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes: all, or the adapters."""
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def _restore(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
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
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
