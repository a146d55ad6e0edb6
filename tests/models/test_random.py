"""Models of a published shape with random weights: their size, their cost, their embeddings."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.models import forward_flops, load_outline, load_policy, load_text_encoder
from mixgrpo.provenance import ROOT

OUTLINES = ROOT / "config/outlines"
CPU = torch.device("cpu")
NAMES = {
    "flux_dev": "flux_random",
    "flux_dev_small": "flux_random",
    "sd3_medium": "sd3_random",
    "sd3_medium_small": "sd3_random",
}
LORA = LoraConfig(rank=4, alpha=8)


def config_of(outline: str, resolution: int) -> ModelConfig:
    return ModelConfig(
        name=NAMES[outline], path=str(OUTLINES / outline), guidance=4.5, resolution=resolution
    )


@pytest.mark.parametrize("outline", ["flux_dev_small", "sd3_medium_small"])
def test_without_weights_nothing_is_drawn_for_the_network(outline):
    """For processes that are sent their parts."""
    config = config_of(outline, 64)
    whole, hollow = (load_policy(config, CPU, lora=LORA, weights=w) for w in (True, False))
    names = whole.network.state_dict().keys()
    assert hollow.network.state_dict().keys() == names
    assert all(tensor.is_meta for tensor in hollow.network.state_dict().values())
    assert not any(tensor.is_meta for tensor in hollow.vae.state_dict().values())


def test_the_published_sizes():
    """Of the files on the hub: 11.9 and 2.24 billion parameters (SD3.5-M without its 226 M of positions)."""
    flux = load_outline(config_of("flux_dev", 720))
    assert sum(p.numel() for p in flux.network.parameters()) == 11_901_408_320
    assert flux.image_tokens == 45**2
    sd3 = load_outline(config_of("sd3_medium", 512))
    assert sum(p.numel() for p in sd3.network.parameters()) == pytest.approx(2.24e9, rel=0.01)
    assert sd3.image_tokens == 32**2


@pytest.mark.parametrize("outline", NAMES)
def test_counted_flops_are_those_that_torch_counts(outline):
    """On the meta device the real sizes cost nothing."""
    resolution = 96 if outline.endswith("small") else 512
    found = load_outline(config_of(outline, resolution))
    config, image, text = dict(found.network.config), found.image_tokens, 77
    config["_class_name"] = type(found.network).__name__
    batch = {
        "encoder_hidden_states": torch.zeros(1, text, config["joint_attention_dim"]),
        "pooled_projections": torch.zeros(1, config["pooled_projection_dim"]),
        "timestep": torch.zeros(1),
    }
    if outline.startswith("flux"):
        batch |= {
            "hidden_states": torch.zeros(1, image, config["in_channels"]),
            "img_ids": torch.zeros(image, 3),
            "txt_ids": torch.zeros(text, 3),
            "guidance": torch.zeros(1),
        }
    else:
        side = resolution // 8
        batch["hidden_states"] = torch.zeros(1, config["in_channels"], side, side)
    batch = {name: tensor.to("meta") for name, tensor in batch.items()}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        found.network(**batch)
    assert forward_flops(config, image_tokens=image, text_tokens=text) == counter.get_total_flops()


@pytest.mark.parametrize("outline", ["flux_dev_small", "sd3_medium_small"])
@pytest.mark.parametrize("lora", [None, LORA])
def test_it_is_a_policy(outline, lora):
    config = config_of(outline, 64)
    dtype = torch.float32 if lora is None else torch.bfloat16
    policies = [load_policy(config, CPU, lora=lora, dtype=dtype) for _ in range(2)]
    cond = load_text_encoder(config, CPU)(["a fox", "a cat"])
    x = torch.randn(2, *policies[0].latent_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=lora is not None):
        first, second = (policy.velocity(x, torch.tensor(0.5), cond) for policy in policies)
    assert torch.equal(first, second), "the same weights in every run"
    assert first.isfinite().all()
    assert (first[0] - first[1]).abs().max() > 0
    images = policies[0].decode(x)
    assert images.shape == (2, 3, 64, 64)
    trained = [p for p in policies[0].network.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in trained)
    assert lora is None or next(policies[0].network.parameters()).dtype == torch.bfloat16


def test_embeddings_are_a_function_of_the_text():
    encode = load_text_encoder(config_of("flux_dev", 720), CPU)
    fox, cat, again = (encode([text]).tensors["prompt_embeds"] for text in ("fox", "cat", "fox"))
    assert fox.shape == (1, 512, 4096)
    assert torch.equal(fox, again)
    assert not torch.equal(fox, cat)
    shared = load_text_encoder(config_of("sd3_medium", 512), CPU)(["fox"]).shared
    assert shared["prompt_embeds"].shape == (1, 333, 4096)


def test_what_is_no_outline(tmp_path: Path):
    config = ModelConfig(name="flux_random", path=str(tmp_path))
    with pytest.raises(UserError, match=r"lacks .*transformer/config\.json"):
        load_policy(config, CPU)
