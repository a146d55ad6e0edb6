"""What two packages need of torchvision while they are imported, for machines that have none.

On PyPI torchvision is a CUDA build: beside a torch for the CPU it breaks transformers and diffusers. hpsv2 and
image-reward take from it only the preprocessing below, written here on torch and Pillow; whatever else they
and timm name (data sets, augmentations) is a class that says so when it is used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mixgrpo.errors import UserError
from mixgrpo.rewards._modules import modules_in_place


class InterpolationMode(Enum):
    """The ways of resizing, by torchvision's names."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def resize(
    image: Any, size: int | Sequence[int], interpolation: InterpolationMode, **_: object
) -> Any:
    """A Pillow image or a tensor (C, H, W), antialiased. An int is the shorter edge's length."""
    is_pillow = isinstance(image, Image.Image)
    width, height = image.size if is_pillow else (image.shape[-1], image.shape[-2])
    if isinstance(size, int):
        short, long = sorted((width, height))
        longer = int(size * long / short)
        size = (longer, size) if width <= height else (size, longer)
    if tuple(size) == (height, width):
        return image
    if is_pillow:
        return image.resize((size[1], size[0]), Image.Resampling[interpolation.name])
    return functional.interpolate(
        image[None], tuple(size), mode=interpolation.value, align_corners=False, antialias=True
    )[0]


def pad(image: Tensor, padding: Sequence[int], fill: float = 0) -> Tensor:
    """A tensor (C, H, W) with (left, top, right, bottom) more pixels."""
    left, top, right, bottom = padding
    return functional.pad(image, (left, right, top, bottom), value=fill)


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        """Of the first transform's input, the last one's output."""
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """See `resize`."""

    def __init__(self, size: int | Sequence[int], interpolation: InterpolationMode):
        self.size = size
        self.interpolation = interpolation

    def __call__(self, image: Any) -> Any:
        """A Pillow image or a tensor (C, H, W)."""
        return resize(image, self.size, self.interpolation)


class CenterCrop:
    """The middle of a Pillow image that is at least as large."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Offsets are rounded to the nearest, halves to even, as torchvision does."""
        left, top = (round((edge - self.size) / 2) for edge in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


class ToTensor:
    """From a Pillow image to (C, H, W) in [0, 1]."""

    def __call__(self, image: Image.Image) -> Tensor:
        """fp32."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


class Normalize(nn.Module):
    """(image - mean) / std, per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        """(C, H, W) or (B, C, H, W)."""
        mean, std = (image.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (image - mean) / std


class _Module(ModuleType):
    """A module of torchvision that has every name: what is not set is a class that refuses to be made."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__path__ = []
        self.__version__ = "0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(self: object, *args: object, **kwargs: object) -> None:
            raise UserError(
                f"{self.__class__.__name__} is torchvision's, which is not installed. Beside a torch "
                "for CUDA install it: `pip install 'mixgrpo[gpu]'`."
            )

        return type(name, (), {"__init__": refuse})


NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.utils",
)


def stand_in() -> dict[str, ModuleType]:
    """Modules by name."""
    modules: dict[str, ModuleType] = {name: _Module(name) for name in NAMES}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    transforms = modules["torchvision.transforms"]
    for kind in (InterpolationMode, Compose, Resize, CenterCrop, ToTensor, Normalize):
        setattr(transforms, kind.__name__, kind)
    for function in (InterpolationMode, resize, pad):
        setattr(modules["torchvision.transforms.functional"], function.__name__, function)
    return modules


@contextmanager
def torchvision_or_stand_in() -> Iterator[None]:
    """Inside, `import torchvision` works; afterwards nothing believes that it is there if it is not.

    UserError when there is one, but of another build than torch.
    """
    from transformers.utils import is_torchvision_available  # remembers its first answer

    if not is_torchvision_available():
        with modules_in_place(stand_in()):
            yield
        return
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"torchvision does not fit torch {torch.__version__} ({type(error).__name__}: {error}). "
            "Nothing here needs it: `pip uninstall torchvision`."
        ) from None
    yield
