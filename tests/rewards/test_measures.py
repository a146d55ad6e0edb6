"""Rewards without weights, against hand arithmetic."""

import math

import pytest
import torch

from mixgrpo.rewards import load_reward

CPU = torch.device("cpu")


def score(name: str, images: torch.Tensor) -> torch.Tensor:
    return load_reward(name, None, CPU).score(images, [""] * len(images))


def test_grey_has_no_colour():
    grey = torch.rand(3, 1, 8, 8).expand(3, 3, 8, 8)
    assert score("colorfulness", grey) == pytest.approx(torch.zeros(3), abs=1e-3)


def test_colourfulness_of_one_colour_is_its_distance_from_grey():
    # rg = 255, yb = 127.5, no spread: 0.3 sqrt(255^2 + 127.5^2) = 85.53
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    assert score("colorfulness", red).item() == pytest.approx(0.3 * math.hypot(255, 127.5))


def test_colourfulness_of_half_red_half_blue():
    # rg: 255 and 0, mean 127.5, deviation 127.5; yb: 127.5 and -255, mean -63.75, deviation 191.25
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0, 0], image[:, 2, 1] = 1, 1
    by_hand = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, 63.75)
    assert score("colorfulness", image).item() == pytest.approx(by_hand)


def test_sharpness_of_a_step_and_of_nothing():
    step = torch.zeros(2, 3, 4, 4)
    step[0, :, :, 2:] = 1  # one of three horizontal differences is 255 in every row
    assert score("sharpness", step).tolist() == pytest.approx([255 / 3, 0.0])


def test_sharpness_sees_green_brighter_than_blue():
    images = torch.zeros(2, 3, 4, 4)
    images[0, 1, 2:], images[1, 2, 2:] = 1, 1
    green, blue = score("sharpness", images)
    assert green / blue == pytest.approx(0.587 / 0.114)
