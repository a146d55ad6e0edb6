"""Pick Score v1 (Kirstain et al. 2023, "Pick-a-Pic"): a ViT-H-14 CLIP trained on people's choices.

    score = exp(logit scale) * cos(image features, text features) / 100

About 0.2: the authors' number, as MixGRPO reports it, divided by 100. Tokenizer and preprocessing are those of the
CLIP that it was trained from: shorter side to 224, the centre of it.
"""

from pathlib import Path

import torch

from mixgrpo.errors import UserError
from mixgrpo.rewards._checkpoints import HubFile, download
from mixgrpo.rewards._clip import ClipReward, load_clip

NAME = "pick_score"
MODEL = ("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800")
PROCESSOR = ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c")
MODEL_FILES = ("config.json", "model.safetensors")
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
)
SCALE = "exp(logit scale) * cosine / 100; higher is better"


def load(
    path: str | None, device: torch.device, *, processor: str = "", dtype: str = "float32"
) -> ClipReward:
    """Pick Score from `path`, a transformers directory; None: from the hub.

    processor: the directory of tokenizer and preprocessing, where they are not beside the weights.
    """
    if path is None:
        return load_as(
            NAME,
            _download(MODEL, MODEL_FILES),
            device,
            version="Pick Score v1",
            dtype=dtype,
            processor=Path(processor) if processor else _download(PROCESSOR, PROCESSOR_FILES),
            source=f"model.safetensors of {'@'.join(MODEL)}",
        )
    directory = Path(path)
    if directory.name == "model.safetensors":
        directory = directory.parent
    if not directory.is_dir():
        raise UserError(
            f"reward {NAME}: directory {path} does not exist. Wanted a copy of {MODEL[0]}: correct `path`, or set it "
            "to null to have it downloaded."
        )
    beside = Path(processor) if processor else directory
    if not (beside / "preprocessor_config.json").is_file():
        raise UserError(
            f"reward {NAME}: {beside} lacks preprocessor_config.json and the tokenizer. Copy them there from "
            f"{'@'.join(PROCESSOR)}, or give the directory that has them as option `processor`."
        )
    return load_as(
        NAME, directory, device, version="weights given by path", dtype=dtype, processor=beside
    )


def load_as(
    name: str,
    directory: Path,
    device: torch.device,
    *,
    version: str,
    dtype: str = "float32",
    processor: Path | None = None,
    source: str | None = None,
) -> ClipReward:
    """Any CLIP of a transformers directory on the scale of Pick Score, as the reward `name`."""
    return load_clip(
        name,
        directory,
        device,
        version=version,
        dtype=dtype,
        processor=processor,
        source=source,
        scale=lambda model: float(model.logit_scale.detach().exp()) / 100,
        scale_name=SCALE,
    )


def _download(repository: tuple[str, str], names: tuple[str, ...]) -> Path:
    """The directory of these files."""
    files = [download(NAME, HubFile(*repository, name)) for name in names]
    return files[0].parent
