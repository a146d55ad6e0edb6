"""Which preset `make overhead` can measure here, on stdout; why, on stderr.

    python benchmarks/overhead_preset.py

`overhead`, the paper's size, where a GPU has the memory that it takes with one image at a time and gradient
checkpointing; the run itself then takes as much at a time as fits. Otherwise `overhead_small`.
"""

import shutil
import sys
from dataclasses import replace

import torch

from mixgrpo.config import Settings
from mixgrpo.errors import UserError
from mixgrpo.models import load_outline, load_text_encoder
from mixgrpo.planning.load import load
from mixgrpo.provenance import ROOT
from mixgrpo.training.memory import Load, estimate, refuse_what_cannot_fit, size_of
from mixgrpo.training.together import at_a_time
from mixgrpo.training.trainer import needs_base

LARGE, SMALL = "overhead", "overhead_small"
REWARD_BYTES = 4 * 10**9
"""Of the image towers of preset `overhead`: three of 0.63 B parameters in half precision, and their activations."""


def needed(settings: Settings) -> dict[str, int]:
    """Bytes that the run takes with one image at a time and gradient checkpointing, by what they are for."""
    outline = load_outline(settings.model, settings.training.lora)
    cond = load_text_encoder(settings.model, torch.device("cpu"))([""])
    branches = 2 if cond.shared and settings.model.guidance != 1 else 1
    amount = Load(
        tokens=branches * (outline.image_tokens + cond.tensors["prompt_embeds"].shape[1]),
        pixels=settings.training.group_size * settings.model.resolution**2,
        reward_bytes=REWARD_BYTES,
        num_bases=int(needs_base(settings)),
    )
    least = at_a_time(settings, 1, checkpointing=True).training
    return estimate(size_of(outline.network), amount, least, world_size=1)


def why_not(settings: list[Settings]) -> str | None:
    """What stands against the paper's size on this machine; None when nothing does."""
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            return "there is no NVIDIA GPU (no nvidia-smi)"
        return (
            f"nvidia-smi is there, but PyTorch {torch.__version__} finds no GPU that it can use. If `nvidia-smi` shows "
            "one, its driver is too old for this build, or this is the CPU build: docs/install.md"
        )
    free, _ = torch.cuda.mem_get_info()
    for one in settings:
        try:
            least = at_a_time(one, 1, checkpointing=True).training
            refuse_what_cannot_fit(needed(one), free, least, world_size=1)
        except UserError as error:
            return f"{torch.cuda.get_device_name()}: {error}"
    return None


def main() -> None:
    """Print the preset."""
    experiment = load(ROOT / "config", {"preset": LARGE})
    models = experiment.sheet.models.values()
    cells = [name for model in models for name in experiment.timed_cells(model.name)]
    settings = [
        replace(s, model=replace(s.model, path=str(ROOT / s.model.path)))
        for s in (experiment.cells[cell].settings for cell in cells)
    ]
    reason = why_not(settings)
    if reason is None:
        print(LARGE)
    else:
        print(f"Not the paper's size: {reason}. Measuring preset {SMALL} instead.", file=sys.stderr)
        print(SMALL)


if __name__ == "__main__":
    main()
