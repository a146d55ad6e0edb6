"""Train one component of the tiny world: the base model, or one of its reward models.

Torch-free until a component is asked for, so that the workflow can read which there are.
"""

import importlib
import json
import shutil
import time
from pathlib import Path

from safetensors import SafetensorError

from mixgrpo.errors import UserError
from mixgrpo.locks import locked
from mixgrpo.tiny.config import PretrainConfig, read_pretrain_config

COMPONENTS = {
    "flux": "mixgrpo.tiny.flux_base",
    "sd3": "mixgrpo.tiny.sd3_base",
    "tiny_hps": "mixgrpo.tiny.preference",
    "tiny_pick_score": "mixgrpo.tiny.preference",
    "tiny_clip_score": "mixgrpo.tiny.preference",
    "tiny_image_reward": "mixgrpo.tiny.judges",
    "tiny_unified": "mixgrpo.tiny.judges",
}
"""The module whose `pretrain(component, config, directory)` trains each component."""


def run(*, settings: Path, component: str, output: Path) -> None:
    """Train `component` by the settings file and save it as the directory `output`, whole or not at all.

    What was in `output` before is replaced. `output`/pretrain.json records the measurements. `sd3` shares the
    autoencoder of the base model `flux`, which has to be there, beside `output`.
    """
    if component not in COMPONENTS:
        raise UserError(
            f"component {component!r} is no part of the tiny world. There are: {', '.join(COMPONENTS)}."
        )
    config = read_pretrain_config(settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.parent / f".{output.name}.lock"):
        temporary = output.parent / f".{output.name}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _train(component, config, temporary)
            _replace(temporary, output)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{output}: could not be written ({error}). Free some space or fix the permissions, and rerun."
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _train(component: str, config: PretrainConfig, directory: Path) -> None:
    from mixgrpo.tiny.fit import seeded  # torch stays out of the workflow's process

    module = importlib.import_module(COMPONENTS[component])
    wall, cpu = time.perf_counter(), time.process_time()
    with seeded(config.seed, component):
        measured = module.pretrain(component, config, directory)
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    record = {"component": component, **measured, **{k: round(v, 1) for k, v in seconds.items()}}
    (directory / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n")


def _replace(new: Path, place: Path) -> None:
    """Move directory `new` to `place`; what stood there goes once the new one is ready."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
