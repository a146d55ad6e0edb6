"""Reward models behind one protocol, a file each: the name in the config is the file's name.

A file that starts with _ is what several rewards share. `load` of a reward file takes the path of its weights, the
device, and the reward's options as keyword-only arguments. A reward may also have `facts`, what a score file says
of it: version, checkpoint, sha256, scale, backend. What it remembers of prompts must not change a score, not by a bit:
a training that is resumed begins without it. One with `modules`, the networks that have its weights, can be offloaded.

With models/ and tiny/ the only place that imports transformers. May import tiny, config, errors; never
models.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.imports import import_module
from mixgrpo.rewards._offload import Offloaded
from mixgrpo.rewards._placement import OFFLOAD, device_at, is_url, read_placement, same_device

Options = Mapping[str, str | int | float | bool]


class Reward(Protocol):
    """Scores images on the raw scale its authors report."""

    name: str

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] and their B prompts -> scores (B,), fp32, on the CPU."""


class CheckedReward:
    """A reward that stops the run instead of handing on something that is not a score per image."""

    def __init__(
        self,
        name: str,
        reward: Reward,
        *,
        elsewhere: bool = False,
        options: Options | None = None,
    ):
        self.name = name
        self.reward = reward
        self.elsewhere = elsewhere
        """It runs on another device or in another process, so others can score meanwhile."""
        self.options = dict(options or {})
        """What it was loaded with, defaults included."""

    @property
    def facts(self) -> dict[str, str]:
        """What a score file says of it; empty for a reward that says nothing."""
        return dict(getattr(self.reward, "facts", {}))

    @property
    def visiting_bytes(self) -> int:
        """Memory that it takes of the training device only while it scores."""
        return getattr(self.reward, "visiting_bytes", 0)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Reward.score`. RewardError when the lengths differ or a score is missing or not finite."""
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        if isinstance(prompts, str | Tensor) or len(shape) != 4 or shape[1] != 3:
            raise RewardError(
                f"reward {self.name}: got images {shape} and prompts of type "
                f"{type(prompts).__name__}, wanted a tensor (B, 3, H, W) and a list of B strings."
            )
        if len(images) != len(prompts):
            raise RewardError(
                f"reward {self.name}: got {len(images)} images and {len(prompts)} prompts, "
                "wanted one prompt per image. Repeat each prompt for every image of its group."
            )
        if len(images) == 0:
            return torch.zeros(0)
        scores = self._scores(images, prompts)
        if scores.shape != (len(images),):
            raise RewardError(
                f"reward {self.name} returned scores of shape {tuple(scores.shape)} for "
                f"{len(images)} images ({_excerpt(prompts)}), wanted ({len(images)},). "
                f"Mend `score` in mixgrpo/rewards/{self.name}.py."
            )
        bad = [
            prompt for prompt, score in zip(prompts, scores, strict=True) if not score.isfinite()
        ]
        if bad:
            raise RewardError(
                f"reward {self.name} is not finite for {len(bad)} of {len(images)} images "
                f"({_excerpt(bad)}). Look at these images first: a NaN in them comes from the "
                "policy (lower training.learning_rate), one in the score from the reward's weights."
            )
        return scores

    def probe(self, prompt: str, resolution: int) -> float:
        """Score of one grey image, so that what is wrong shows before training starts. UserError says what is."""
        grey = torch.full((1, 3, resolution, resolution), 0.5)
        try:
            return self.score(grey, [prompt]).item()
        except UserError as error:
            raise type(error)(f"a grey picture, tried before the start: {error}") from None

    def _scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        try:
            return self.reward.score(images, prompts).detach().float().cpu()
        except torch.OutOfMemoryError as error:
            raise RewardError(
                f"reward {self.name}: out of memory for {len(images)} images "
                f"({str(error).splitlines()[0]}). Give it a device or a process of its own: "
                f'MIXGRPO_REWARDS="{self.name}=cuda:1", or the URL of `python -m mixgrpo serve-reward`.'
            ) from None


def _excerpt(prompts: Sequence[str]) -> str:
    shown = ", ".join(repr(prompt) for prompt in prompts[:3])
    return f"prompts {shown}" + (f" and {len(prompts) - 3} more" if len(prompts) > 3 else "")


def reward_names() -> list[str]:
    """Every reward there is."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def module_of(name: str) -> ModuleType:
    """`mixgrpo/rewards/{name}.py`. UserError lists the files there are."""
    names = reward_names()
    if name not in names:
        raise UserError(
            f"reward {name!r} is no file of mixgrpo/rewards/. There are: {', '.join(names)}."
        )
    return import_module(f"mixgrpo.rewards.{name}")


def load_reward(
    name: str,
    path: str | None,
    device: torch.device,
    options: Options | None = None,
    place: str | None = None,
) -> CheckedReward:
    """The reward `name` with its weights from `path`, on `device`, its scores checked.

    options: keyword-only arguments of its `load`; UserError lists those there are. place: another device, the
    URL of the process that scores instead (and has the weights; `path` is not looked at), or OFFLOAD, as `placement`
    says.
    """
    load = module_of(name).load
    takes_url = "url" in inspect.signature(load).parameters
    given = dict(options or {})
    if is_url(place):
        if not takes_url:
            from mixgrpo.rewards._remote import RemoteReward

            check_options(name, load, given)
            return CheckedReward(name, RemoteReward(name, str(place), given), elsewhere=True)
        given["url"] = str(place)
    check_options(name, load, given)
    beside = place in (None, OFFLOAD) or is_url(place)
    own = device if beside else device_at(name, str(place))
    reward = load(path, own, **given)
    return CheckedReward(
        name,
        Offloaded(name, reward, own) if place == OFFLOAD else reward,
        elsewhere=takes_url or not same_device(own, torch.device(device)),
        options=default_options(load) | given,
    )


def placement() -> dict[str, str]:
    """Where the environment variable MIXGRPO_REWARDS places rewards, by name; the others are beside the policy."""
    return read_placement(reward_names())


def option_kinds(load: Any) -> dict[str, Any]:
    """Type of each option that a reward's `load` takes, by name."""
    parameters = inspect.signature(load, eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}


def default_options(load: Any) -> dict[str, Any]:
    """Value of each option that has one by default."""
    parameters = inspect.signature(load).parameters.values()
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    return {p.name: p.default for p in options}


def check_options(name: str, load: Any, options: Mapping[str, Any]) -> None:
    """UserError unless every option is one of `load`, with a value of its type."""
    kinds = option_kinds(load)
    parameters = inspect.signature(load).parameters
    for option in kinds.keys() - options.keys():
        if parameters[option].default is inspect.Parameter.empty:
            raise UserError(f"reward {name}: option {option} is missing, and has no default.")
    for option, value in options.items():
        if option not in kinds:
            there_are = f"There are: {', '.join(kinds)}." if kinds else "It has none."
            raise UserError(f"reward {name}: option {option!r} is not known. {there_are}")
        try:
            TypeAdapter(kinds[option]).validate_python(value, strict=True)
        except ValidationError:
            wanted = getattr(kinds[option], "__name__", kinds[option])
            raise UserError(
                f"reward {name}: option {option} is {value!r}, wanted {wanted}."
            ) from None


def directory_of(name: str, path: str | None) -> Path:
    """`path` as the directory of the weights of reward `name`. UserError when it is not given or not there."""
    if path is None:
        raise UserError(
            f"reward {name} needs its weights: give `path`, a directory, in the preset's rewards."
        )
    if not Path(path).is_dir():
        raise UserError(
            f"reward {name}: directory {path} does not exist. For preset tiny the `pretrain` stage "
            "makes it; with other weights, give the path they are at."
        )
    return Path(path)
