"""Text embeddings of a prompts file, made once; the text encoders are in memory nowhere else."""

from pathlib import Path

import torch

from mixgrpo.models import embed_prompts
from mixgrpo.prompts import read_prompts, write_embeddings


def run(*, model: str, base: Path, prompts: Path, output: Path) -> None:
    """Embed `prompts` by the text encoders in the model directory `base`; write safetensors."""
    rows = read_prompts(prompts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cond = embed_prompts(model, base, [prompt.text for prompt in rows], device)
    write_embeddings(output, cond, rows)
