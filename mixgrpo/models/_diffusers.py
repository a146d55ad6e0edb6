"""What base models in diffusers layout have in common: loading, decoding, LoRA, and files of tuned weights."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mixgrpo.config import LoraConfig, ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.files import write_with
from mixgrpo.models._directory import read_config

DECODE_BATCH = 48
"""Images decoded at a time, where they are small."""
DECODE_PIXELS = 2**20
"""Pixels decoded at a time, where images are large: at 1024 x 1024 one takes about 4 GB."""
TEXT_BATCH = 64
TEXT_BATCH_TOKENS = 8192
"""Prompts encoded at a time, and T5 tokens at most."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
LORA_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""The attention's projections, of image and of text tokens."""
PREFIX = "transformer"
"""Of the names in a LoRA file, as `pipe.load_lora_weights` wants them."""
BASE = "mixgrpo.base"
"""In the metadata of a file of weights: identity of the base model that they were trained from."""

Part = TypeVar("Part")


def load_part(path: Path, load: Callable[[Path], Part]) -> Part:
    """`load(path)`, a part of a model directory; UserError when it is damaged."""
    try:
        return load(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"model directory {path.parent} cannot be loaded: {error}. Delete it and make it again."
        ) from None


def load_network(kind: type[Any], part: Path, dtype: torch.dtype) -> Any:
    """The transformer at `part`, of diffusers' class `kind`, on the CPU."""
    return load_part(part, lambda found: kind.from_pretrained(found, torch_dtype=dtype))


def hollow_network(kind: type[Any], part: Path, dtype: torch.dtype) -> Any:
    """The same on the meta device: no weights are read."""
    with torch.device("meta"):
        network = kind.from_config(read_config(part / "config.json"))
    return torch.nn.Module.to(network, dtype).eval()  # diffusers' own warns of dtypes


def load_vae(path: Path) -> AutoencoderKL:
    """The frozen fp32 autoencoder of a model directory, channels last: decoding takes a third less time so."""
    vae = load_part(
        path / "vae", lambda part: AutoencoderKL.from_pretrained(part, torch_dtype=torch.float32)
    )
    return frozen_vae(vae)


def frozen_vae(vae: AutoencoderKL) -> AutoencoderKL:
    """The autoencoder as it decodes: it never trains."""
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def batches_of(texts: Sequence[str], length: int) -> Iterator[list[str]]:
    """`texts` in parts that fit in memory. length: T5 tokens of each."""
    size = min(TEXT_BATCH, max(1, TEXT_BATCH_TOKENS // length))
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def latent_side(vae: AutoencoderKL, config: ModelConfig) -> int:
    """Height and width of the latents of the configured resolution; UserError when it is no multiple of a token."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if config.resolution % (2 * factor):
        raise UserError(
            f"model.resolution={config.resolution} is not a multiple of {2 * factor}, the size of one token of "
            f"{config.path}. Choose a multiple."
        )
    return config.resolution // factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] of scaled latents (B, C, h, w), in fp32."""
    z = (latents / vae.config.scaling_factor + vae.config.shift_factor).to(
        vae.dtype, memory_format=torch.channels_last
    )
    pixels = z.shape[-2] * z.shape[-1] * 4 ** (len(vae.config.block_out_channels) - 1)
    size = min(DECODE_BATCH, max(1, DECODE_PIXELS // pixels))
    images = [vae.decode(part).sample.float() / 2 + 0.5 for part in z.split(size)]
    return torch.cat(images).clamp(0, 1)


def add_lora(network: Any, config: LoraConfig) -> None:
    """Freeze a diffusers transformer and add fp32 adapters, which alone train; at first they change nothing.

    Their initial weights are the same in every run and process.
    """
    import peft

    network.requires_grad_(False)
    adapter = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        init_lora_weights="gaussian",
        target_modules=list(LORA_LAYERS),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.add_adapter(adapter)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_weights(
    network: Any, path: Path, *, base: str, state: Mapping[str, Tensor] | None = None
) -> None:
    """What training changed: the adapters, loadable by `pipe.load_lora_weights`, or all weights.

    base: identity of the base model. state: the network's `state_dict` where it was gathered from several
    processes; None takes the network's own.
    """
    weights = dict(network.state_dict() if state is None else state)
    if getattr(network, "peft_config", None):
        content = _lora_file(network, weights, base)
        write_with(path, lambda temporary: temporary.write_bytes(content))
    else:
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        write_with(path, lambda temporary: save_file(weights, temporary, metadata={BASE: base}))


def _lora_file(network: Any, weights: dict[str, Tensor], base: str) -> bytes:
    """What diffusers writes for every pipeline, and the base; the same bytes for the same adapters."""
    from diffusers.loaders import SD3LoraLoaderMixin
    from peft.utils import get_peft_model_state_dict

    config = next(iter(network.peft_config.values())).to_dict()
    config = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        SD3LoraLoaderMixin.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(network, weights),
            transformer_lora_adapter_metadata=config,
            weight_name="lora.safetensors",
        )
        content = (Path(folder) / "lora.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header["__metadata__"] = dict(sorted({**header["__metadata__"], BASE: base}.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def load_weights(network: Any, path: Path, *, base: str) -> None:
    """Take up what `save_weights` wrote; names, shapes and, where it is known, the base must be this network's."""
    try:
        _check_weights(network, path, base)
        if is_lora(path):
            network.load_lora_adapter(str(path.parent), weight_name=path.name, prefix=PREFIX)
        else:
            network.load_state_dict(load_file(path))
    except Exception as error:
        raise UserError(
            f"{path}: not the weights of this transformer ({str(error).splitlines()[0]}). It may be truncated or "
            "come from another base model: delete it and rerun, or name the base model it was trained from."
        ) from None


def _check_weights(network: Any, path: Path, base: str) -> None:
    """ValueError for weights of another network or base: diffusers would leave some out with a warning."""
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        trained_from = (file.metadata() or {}).get(BASE)
    check = _check_adapters if any(".lora_" in name for name in found) else _check_shapes
    check(found, wanted)
    if trained_from is not None and trained_from != base:
        raise ValueError(f"it was trained from the base model {trained_from}, this one is {base}")


def _check_shapes(found: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> None:
    """ValueError unless all weights are there, in their shapes."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            here = wanted.get(name, "none")
            raise ValueError(f"its {name} is {found.get(name, 'missing')}, here it is {here}")


def _check_adapters(found: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> None:
    """ValueError unless every adapter is of a layer of its width."""
    for name, shape in found.items():
        layer, _, factor = name.removeprefix(f"{PREFIX}.").partition(".lora_")
        weight = wanted.get(f"{layer}.weight", wanted.get(f"{layer}.base_layer.weight"))
        if not factor or not name.startswith(f"{PREFIX}.") or weight is None:
            raise ValueError(f"it has {name}, but no such layer is here")
        side, axis = ("in", 1) if factor.startswith("A") else ("out", 0)
        if shape[axis] != weight[axis]:
            raise ValueError(
                f"it has adapters of {layer} with {shape[axis]} features {side}, here there are {weight[axis]}"
            )


def is_lora(path: Path) -> bool:
    """Whether a file of weights holds adapters; otherwise it holds all weights. UserError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return any(".lora_" in name for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}). Delete it and make it again.") from None
