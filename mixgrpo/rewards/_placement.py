"""Where each reward runs: beside the policy, there with its weights away in between, on another device of this machine,
or in a process of its own.

    MIXGRPO_REWARDS="pick_score=cuda:1 hps_v2_1=http://127.0.0.1:8801" python -m mixgrpo train ...

A URL is that of `python -m mixgrpo serve-reward`, or of the model server, for a reward that is a client of one. With
`pick_score=offload` it is beside the policy while it scores, and its weights wait in host memory.
What a run computes does not depend on it, so it is no part of the settings.
"""

import os
import re
from collections.abc import Collection

import torch

from mixgrpo.errors import UserError

VARIABLE = "MIXGRPO_REWARDS"
EXAMPLE = f'{VARIABLE}="pick_score=cuda:1 hps_v2_1=http://127.0.0.1:8801"'
OFFLOAD = "offload"
DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:[0-9]+)?")


def read_placement(known: Collection[str]) -> dict[str, str]:
    """Device, OFFLOAD or URL of each reward that the environment variable places. known: names of all rewards."""
    return parse_placement(os.environ.get(VARIABLE, ""), known)


def parse_placement(text: str, known: Collection[str]) -> dict[str, str]:
    """Places by the reward's name. UserError for what is no place, or no reward.

    >>> parse_placement("a=cuda:1 b=http://127.0.0.1:8801/", ["a", "b", "c"])
    {'a': 'cuda:1', 'b': 'http://127.0.0.1:8801'}
    """
    places: dict[str, str] = {}
    for entry in text.replace(",", " ").split():
        name, _, place = entry.partition("=")
        if name not in known:
            names = ", ".join(sorted(known))
            raise UserError(f"{VARIABLE}: {name!r} in {entry!r} is no reward. There are: {names}.")
        if name in places:
            raise UserError(f"{VARIABLE}: {name} stands there twice. Keep one of them.")
        if not is_url(place) and place != OFFLOAD and not DEVICE.fullmatch(place):
            raise UserError(
                f"{VARIABLE}: {name} is placed at {place!r}, wanted a device, {OFFLOAD} or a URL, as in {EXAMPLE}."
            )
        places[name] = place.rstrip("/")
    return places


def is_url(place: str | None) -> bool:
    """Whether a place is a server and no device.

    >>> is_url("http://127.0.0.1:8801"), is_url("cuda:1"), is_url(None)
    (True, False, False)
    """
    return place is not None and re.match(r"https?://[^/]", place) is not None


def device_at(name: str, place: str) -> torch.device:
    """The device called `place`, which reward `name` is to run on. UserError when this machine has none."""
    device = torch.device(place)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"{VARIABLE}: {name} is placed at {place}, but this process sees {torch.cuda.device_count()} "
            "CUDA devices. Name one that there is (CUDA_VISIBLE_DEVICES renumbers them), or cpu."
        )
    return device


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both are the same piece of hardware; a device without a number is the first.

    >>> same_device(torch.device("cuda"), torch.device("cuda:0"))
    True
    """
    return (one.type, one.index or 0) == (other.type, other.index or 0)
