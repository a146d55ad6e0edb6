"""A trained model as a folder that plain diffusers loads: `FluxPipeline.from_pretrained(folder)`.

The transformer is written; the parts that training leaves alone are links to the base model's.
"""

import shutil
from pathlib import Path

from mixgrpo.config import read_settings
from mixgrpo.errors import UserError
from mixgrpo.locks import locked
from mixgrpo.models import export


def run(*, settings: Path, model: Path, output: Path) -> None:
    """Write the folder `output`, whole or not at all, from the settings and the `model.safetensors` of a run.

    Weights that were trained with bf16 compute are written in bf16. UserError for a LoRA file, which diffusers
    takes as it is, and when `output` exists.
    """
    config = read_settings(settings)
    if output.exists():
        raise UserError(f"{output} exists. Delete it or name another folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.parent / f".{output.name}.lock"):
        temporary = output.parent / f".{output.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            export(config.model, model, temporary, precision=config.training.precision)
            temporary.rename(output)
        except OSError as error:
            raise UserError(
                f"{output}: could not be written ({error}). Free some space or fix the permissions, and rerun."
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
