"""A small CLIPModel with random weights, its tokenizer and preprocessing in transformers' layout."""

import gzip
import importlib.util
import json
from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, CLIPModel

from mixgrpo.rewards import _open_clip as open_clip
from tests.rewards.small_hps_v2_1 import open_clip_state

END = "<|endoftext|>"


def make_pick_score(directory: Path) -> str:
    """The directory, as a copy of PickScore_v1 with the processor of its ViT-H-14 in it."""
    directory.mkdir(parents=True, exist_ok=True)
    state = open_clip_state()
    sizes = open_clip.architecture_of("pick_score", directory, state)
    model = open_clip.to_transformers(state, sizes, device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(model, CLIPModel)
    model.save_pretrained(directory)
    make_processor(directory, sizes.image_size)
    return str(directory)


def make_processor(directory: Path, size: int) -> None:
    """Tokenizer of CLIP from open_clip's own list of merges, and preprocessing to `size`."""
    directory.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip._tokenizer_module().bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["".join(merge.split()) for merge in merges] + ["<|startoftext|>", END]
    (directory / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "do_lower_case": True,
        "model_max_length": 77,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(open_clip.MEAN),
        image_std=list(open_clip.STD),
    ).save_pretrained(directory)
