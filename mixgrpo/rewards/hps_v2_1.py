"""HPS v2.1 (Wu et al. 2023, "Human Preference Score v2"): a ViT-H-14 of open_clip trained on preferences.

    score = cos(image features, text features)

About 0.2 to 0.37; the authors' benchmark prints it times 100. Their preprocessing keeps the whole picture: longest
side to 224, black around it. Two backends over the same file: `package` runs the CLIP class of the authors' hpsv2,
`native` transformers' CLIPModel. hpsv2's own default is the older v2.0, which is refused here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixgrpo.errors import UserError
from mixgrpo.rewards import _open_clip as open_clip
from mixgrpo.rewards._checkpoints import (
    Checkpoint,
    HubFile,
    check_sha256,
    dtype_of,
    load_state_dict,
    locate,
)
from mixgrpo.rewards._clip import (
    COSINE,
    ClipReward,
    Preprocessing,
    Towers,
    TransformersTowers,
    check_vit_h_14,
)
from mixgrpo.rewards._packages import hpsv2_open_clip

NAME = "hps_v2_1"
HUB = HubFile(
    "xswu/HPSv2",
    "697403c78157020a1ae59d23f111aa58ced35b0a",
    "HPS_v2.1_compressed.pt",
    "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
)
OLDER = "HPS_v2_compressed.pt"


class PackageTowers:
    """The CLIP class and the tokenizer of hpsv2."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        sizes: open_clip.Architecture,
        device: torch.device,
        dtype: torch.dtype,
    ):
        model = package_model(state, sizes, device=device, dtype=dtype)
        self.model: Any = model.eval().requires_grad_(False)
        self.context = sizes.context
        self.device, self.dtype = device, dtype

    def image(self, pixels: Tensor) -> Tensor:
        """As `Towers.image`."""
        return self.model.encode_image(pixels)

    def text(self, prompts: list[str]) -> Tensor:
        """As `Towers.text`."""
        ids = hpsv2_open_clip().tokenize(prompts, self.context)
        return self.model.encode_text(ids.to(self.device))


def native_towers(
    state: Mapping[str, Tensor],
    sizes: open_clip.Architecture,
    device: torch.device,
    dtype: torch.dtype,
) -> TransformersTowers:
    """transformers' CLIPModel with the same weights and open_clip's tokenizer."""
    model = open_clip.to_transformers(state, sizes, device=device, dtype=dtype)
    return TransformersTowers(model, open_clip.tokenizer(NAME, sizes))


BACKENDS: dict[str, Callable[..., Towers]] = {"package": PackageTowers, "native": native_towers}


def load(
    path: str | None, device: torch.device, *, backend: str = "package", dtype: str = "float32"
) -> ClipReward:
    """HPS v2.1 from `path`, the file or its directory; None: from the hub.

    UserError for v2.0, for a damaged file under the authors' name, for another network.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"reward {NAME}: option backend is {backend!r}, wanted {' or '.join(BACKENDS)}."
        )
    number = dtype_of(NAME, dtype)
    checkpoint = _checkpoint(path)
    (file,) = checkpoint.files
    state = load_state_dict(NAME, file)
    sizes = open_clip.architecture_of(NAME, file, state)
    open_clip.tokenizer(NAME, sizes)  # refuses another vocabulary
    check_vit_h_14(NAME, str(file), width=sizes.width, layers=sizes.layers, patch=sizes.patch)
    towers = BACKENDS[backend](state, sizes, device, number)
    known = checkpoint.sha256 == HUB.sha256
    return ClipReward(
        NAME,
        towers=towers,
        preprocessing=Preprocessing(
            (sizes.image_size, sizes.image_size), "pad", open_clip.MEAN, open_clip.STD
        ),
        checkpoint=checkpoint,
        facts={
            "version": "HPS v2.1" if known else "not HPS v2.1: other weights in its format",
            "scale": COSINE,
            "backend": backend,
        },
    )


def _checkpoint(path: str | None) -> Checkpoint:
    if path is not None:
        given = Path(path)
        older = given.name == OLDER or (
            not (given / HUB.name).exists() and (given / OLDER).exists()
        )
        if older:
            raise UserError(
                f"reward {NAME}: {path} is HPS v2.0 ({OLDER}), wanted v2.1, {HUB.name}: their scores are on different "
                "scales. Set `path` to null to have it downloaded, or give the path of that file."
            )
    checkpoint = locate(NAME, path, HUB)
    if checkpoint.files[0].name == HUB.name:
        check_sha256(NAME, checkpoint.files[0], HUB)
    return checkpoint


def package_model(
    state: Mapping[str, Tensor],
    sizes: open_clip.Architecture,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """hpsv2's CLIP with exactly these weights."""
    vision = {
        "image_size": sizes.image_size,
        "patch_size": sizes.patch,
        "width": sizes.width,
        "layers": sizes.layers,
        "head_width": sizes.width // sizes.heads,
        "mlp_ratio": sizes.mlp / sizes.width,
    }
    text = {
        "context_length": sizes.context,
        "vocab_size": sizes.vocabulary,
        "width": sizes.text_width,
        "heads": sizes.text_heads,
        "layers": sizes.text_layers,
    }
    clip = hpsv2_open_clip().CLIP
    with torch.device("meta"):
        model = clip(sizes.embed, vision, text, quick_gelu=sizes.quick_gelu).to(dtype)
    model.to_empty(device=device)
    mask = torch.full((sizes.context, sizes.context), -torch.inf, device=device).triu(1)
    model.register_buffer("attn_mask", mask, persistent=False)
    model.load_state_dict({name: v for name, v in state.items() if name != "attn_mask"})
    return model
