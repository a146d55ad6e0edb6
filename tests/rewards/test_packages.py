"""hpsv2 and image-reward are imported on transformers 5, and nothing else is any different afterwards."""

import importlib.util
import subprocess
import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import modeling_utils

from mixgrpo.errors import UserError
from mixgrpo.rewards import _packages, _torchvision
from mixgrpo.rewards._modules import modules_in_place
from mixgrpo.rewards._packages import MOVED, hpsv2_open_clip, image_reward_package

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
CHECKS = """
import os, sys, warnings
import transformers
from transformers import modeling_utils
from mixgrpo.rewards._packages import MOVED, hpsv2_open_clip, image_reward_package

before = [transformers.logging.get_verbosity(), list(warnings.filters), dict(vars(modeling_utils))]
{first}()
{second}()
left = [name for name in sys.modules if name.split(".")[0] in ("torchvision", "clip", "turtle")]
assert {has_torchvision} or not left, left
assert "ImageReward.ReFL" not in sys.modules
after = [transformers.logging.get_verbosity(), list(warnings.filters), dict(vars(modeling_utils))]
assert before == after
assert not transformers.utils.is_torchvision_available() or {has_torchvision}
from diffusers import FluxPipeline
from transformers import AutoImageProcessor, CLIPModel, CLIPProcessor
"""


@pytest.mark.parametrize("first", ["hpsv2_open_clip", "image_reward_package"])
def test_importing_leaves_no_trace(first: str):
    """In a process of its own: both packages, and afterwards the classes of transformers and diffusers."""
    (second,) = {"hpsv2_open_clip", "image_reward_package"} - {first}
    code = CHECKS.format(first=first, second=second, has_torchvision=HAS_TORCHVISION)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_import_is_the_first():
    assert hpsv2_open_clip() is hpsv2_open_clip()
    assert image_reward_package() is image_reward_package()


def test_hpsv2_has_its_own_tokenizer_with_the_whole_vocabulary():
    tokenizer = sys.modules[f"{hpsv2_open_clip().__name__}.tokenizer"]
    assert tokenizer.__spec__.origin.endswith("hpsv2/src/open_clip/tokenizer.py")
    tokens = hpsv2_open_clip().get_tokenizer("ViT-H-14")(
        ["A Photo of  a cat &amp; dog!", "x " * 500]
    )
    start, end = 49406, 49407
    assert tokens.shape == (2, 77)
    known = [start, 320, 1125, 539, 320, 2368, 261, 1929, 256, end]
    assert tokens[0, : len(known)].tolist() == known
    assert tokens[1, 0] == start
    assert tokens[1, -1] == end
    assert len(tokenizer._tokenizer.encoder) == 49408


def test_image_reward_is_the_package_s_own_class():
    package = image_reward_package()
    assert package.ImageReward is sys.modules["ImageReward.ImageReward"].ImageReward
    assert callable(package.ImageReward.score_gard)


@pytest.mark.parametrize(
    ("missing", "call", "said"),
    [
        ("hpsv2", hpsv2_open_clip, "package hpsv2 is not installed"),
        ("open_clip", hpsv2_open_clip, "package open_clip_torch is not installed"),
        ("ImageReward", image_reward_package, "package image-reward is not installed"),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    missing: str, call, said: str, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    for name in ("hpsv2.src.open_clip", "ImageReward"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(UserError, match=f"{said}.*--no-deps -r requirements-nodeps.lock.*native"):
        call()


def test_modules_come_and_go():
    stand_in, before = ModuleType("json"), sys.modules["json"]
    with modules_in_place({"json": stand_in, "no_such_module": ModuleType("no_such_module")}):
        import json

        import no_such_module

        assert json is stand_in
        assert no_such_module.__name__ == "no_such_module"
    assert sys.modules["json"] is before
    assert "no_such_module" not in sys.modules


def test_modules_go_when_the_import_fails():
    with (
        pytest.raises(ZeroDivisionError),
        modules_in_place({"no_such_module": ModuleType("no_such_module")}),
    ):
        raise ZeroDivisionError
    assert "no_such_module" not in sys.modules


def test_moved_functions_come_and_go():
    with _packages._moved_functions():
        assert all(hasattr(modeling_utils, name) for name in MOVED)
    assert not any(hasattr(modeling_utils, name) for name in MOVED)


def test_verbosity_and_warnings_are_as_before():
    verbosity, filters = transformers.logging.get_verbosity(), list(warnings.filters)
    with _packages._as_before():
        transformers.logging.set_verbosity_error()
        warnings.filterwarnings("ignore", message="of one package")
    assert transformers.logging.get_verbosity() == verbosity
    assert list(warnings.filters) == filters


def test_a_mask_hides_what_is_zero():
    mask = _packages._inverted(torch.nn.Linear(1, 1).half(), torch.tensor([[1, 0]]))
    assert mask.shape == (1, 1, 1, 2)
    assert mask.dtype == torch.float16
    assert mask.flatten().tolist() == [0.0, torch.finfo(torch.float16).min]


# The stand-in


def picture(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([3 * x, 2 * y, x + y], -1).clip(0, 255).astype("uint8"))


@pytest.mark.parametrize(
    ("width", "height", "size", "wanted"),
    [
        (30, 60, 20, (20, 40)),
        (61, 30, 20, (40, 20)),
        (20, 45, 20, (20, 45)),
        (9, 9, (4, 5), (5, 4)),
    ],
)
def test_resize_of_pictures_and_tensors(width: int, height: int, size, wanted: tuple[int, int]):
    bicubic = _torchvision.InterpolationMode.BICUBIC
    image = picture(width, height)
    resized = _torchvision.Resize(size, bicubic)(image)
    assert resized.size == wanted
    tensor = _torchvision.resize(_torchvision.ToTensor()(image), size, bicubic)
    assert tensor.shape == (3, wanted[1], wanted[0])
    assert _torchvision.ToTensor()(resized) == pytest.approx(tensor, abs=0.02)


def test_crop_pad_and_normalize():
    image = picture(9, 6)
    cropped = _torchvision.CenterCrop(4)(image)
    assert np.array_equal(np.array(cropped), np.array(image)[1:5, 2:6])
    tensor = _torchvision.ToTensor()(image)
    assert tensor[0, 0, 8].item() == pytest.approx(24 / 255)
    padded = _torchvision.pad(tensor, (1, 2, 3, 4), 0.5)
    assert padded.shape == (3, 12, 13)
    assert torch.equal(padded[:, 2:8, 1:10], tensor)
    assert padded[:, :2].unique().tolist() == [0.5]
    normalize = _torchvision.Normalize((0.5, 0.0, 0.0), (0.5, 1.0, 2.0))
    whole = _torchvision.Compose([_torchvision.ToTensor(), normalize])(image)
    expected = torch.stack([tensor[0] * 2 - 1, tensor[1], tensor[2] / 2])
    assert whole == pytest.approx(expected)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (97, 64), (64, 99), (131, 80), (30, 40)])
def test_the_stand_in_is_torchvision_to_the_last_bit(width: int, height: int):
    """Where there is one: beside a torch for CUDA."""
    theirs = pytest.importorskip("torchvision.transforms")
    image, results = picture(width, height), []
    for kit in (theirs, _torchvision):
        resized = kit.Resize(32, interpolation=kit.InterpolationMode.BICUBIC)
        normalize = kit.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
        whole = kit.Compose([resized, kit.CenterCrop(32), kit.ToTensor(), normalize])
        results.append((whole(image), resized(kit.ToTensor()(image))))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_what_is_not_there_says_so_when_it_is_used():
    modules = _torchvision.stand_in()
    images = modules["torchvision.datasets"].ImageFolder
    with pytest.raises(UserError, match="ImageFolder is torchvision's, which is not installed"):
        images("folder")
    with pytest.raises(AttributeError):
        _ = modules["torchvision"].__file__


def test_a_torchvision_of_another_build_is_named(monkeypatch: pytest.MonkeyPatch):
    """A CUDA build beside a torch for the CPU: found, but its import fails."""
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with (
        pytest.raises(UserError, match=r"does not fit torch .*pip uninstall torchvision"),
        _torchvision.torchvision_or_stand_in(),
    ):
        pass
