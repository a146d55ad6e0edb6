"""Reading an open_clip checkpoint: sizes off the shapes, names, preprocessing, and only the tokenizer imported."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.rewards import _open_clip as open_clip
from mixgrpo.rewards._clip import Preprocessing
from mixgrpo.rewards._packages import hpsv2_open_clip
from tests.rewards.small_clip_score import make_clip_score
from tests.rewards.small_hps_v2_1 import open_clip_state

CPU = torch.device("cpu")
FILE = Path("weights.pt")
TEXTS = [
    "a cat",
    "",
    "  Don't  STOP, 3.14 &amp;amp; naïve café — 漢字 🙂\n",
    "word " * 500,
    "it's 1234 <end_of_text> after the end",
]


def test_sizes_are_those_of_the_shapes():
    state = open_clip_state(width=192, layers=3, patch=16, grid=5, text_layers=1)
    assert asdict(open_clip.architecture_of("r", FILE, state)) == {
        "embed": 64,
        "image_size": 80,
        "patch": 16,
        "width": 192,
        "layers": 3,
        "heads": 3,
        "mlp": 768,
        "context": 77,
        "vocabulary": 49408,
        "text_width": 64,
        "text_layers": 1,
        "text_heads": 1,
        "text_mlp": 256,
        "quick_gelu": False,
    }


@pytest.mark.parametrize(("width", "heads"), [(1280, 16), (1024, 16), (768, 12), (1664, 16)])
def test_heads_are_as_in_open_clips_table(width: int, heads: int):
    state = open_clip_state(width=width, layers=1, grid=1)
    assert open_clip.architecture_of("r", FILE, state).heads == heads


def test_the_names_are_those_of_open_clips_network():
    vision = {"image_size": 56, "layers": 3, "width": 128, "patch_size": 14}
    text = {"width": 64, "heads": 1, "layers": 2}
    model = hpsv2_open_clip().CLIP(64, vision, text)
    assert sorted(model.state_dict()) == sorted(open_clip.names(3, 2))


def test_an_old_mask_among_the_tensors_is_ignored():
    state = open_clip_state() | {"attn_mask": torch.zeros(77, 77)}
    sizes = open_clip.architecture_of("r", FILE, state)
    open_clip.to_transformers(state, sizes, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("gone", ["visual.ln_pre.bias", "transformer.resblocks.1.ln_2.weight"])
def test_a_missing_tensor_is_named(gone: str):
    state = open_clip_state()
    del state[gone]
    with pytest.raises(UserError, match=rf"1 are missing \({gone}"):
        open_clip.architecture_of("r", FILE, state)


def test_an_unknown_tensor_is_named():
    state = open_clip_state() | {"logit_bias": torch.zeros(())}
    with pytest.raises(UserError, match=r"1 are not known \(logit_bias"):
        open_clip.architecture_of("r", FILE, state)


def test_the_tokenizer_is_that_of_the_authors():
    sizes = open_clip.architecture_of("r", FILE, open_clip_state())
    ours = open_clip.tokenizer("r", sizes)(TEXTS)
    assert ours.shape == (len(TEXTS), 77)
    assert torch.equal(ours, hpsv2_open_clip().tokenize(TEXTS))


def test_neither_open_clip_nor_torchvision_nor_timm_is_imported(tmp_path: Path):
    code = (
        "import sys, torch; from mixgrpo.rewards import load_reward;"
        f"r = load_reward('clip_score', {make_clip_score(tmp_path)!r}, torch.device('cpu'));"
        "r.score(torch.zeros(1, 3, 70, 70), ['a cat']);"
        "print(*(n for n in ('open_clip', 'torchvision', 'timm', 'hpsv2') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("fit", "given", "resized"),
    [
        ("squash", (90, 60), (56, 56)),
        ("crop", (90, 60), (84, 56)),
        ("crop", (56, 98), (56, 98)),
        ("crop", (55, 110), (56, 112)),
        ("pad", (90, 60), (56, 37)),
        ("pad", (3, 2000), (1, 56)),
        ("pad", (1, 5000), (1, 56)),
    ],
)
def test_every_size_of_picture_fits(fit: str, given: tuple[int, int], resized: tuple[int, int]):
    preprocessing = Preprocessing((56, 56), fit, (0, 0, 0), (1, 1, 1))
    assert preprocessing.resized(*given) == resized
    assert preprocessing(torch.rand(2, 3, *given)).shape == (2, 3, 56, 56)


def test_padding_is_black_around_the_middle():
    preprocessing = Preprocessing((8, 8), "pad", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    out = preprocessing(torch.ones(1, 3, 4, 8))
    assert torch.equal(out[..., 2:6, :], torch.ones(1, 3, 4, 8))
    assert torch.equal(out[..., :2, :], -torch.ones(1, 3, 2, 8))
    assert torch.equal(out[..., 6:, :], -torch.ones(1, 3, 2, 8))


def test_cropping_keeps_the_middle():
    images = torch.arange(12.0).view(1, 1, 1, 12).expand(1, 3, 4, 12) / 12
    out = Preprocessing((4, 4), "crop", (0, 0, 0), (1, 1, 1))(images)
    assert torch.equal(out, images[..., 4:8])
