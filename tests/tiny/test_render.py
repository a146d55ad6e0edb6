import pytest
import torch
from torch import Tensor

from mixgrpo.tiny import grammar
from mixgrpo.tiny.render import COLOR_RGB, DISTANCES, GROUND_RGB, SIZE, labels, render


def draw(*captions: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return render([grammar.parse(caption) for caption in captions], generator)


def test_pictures_are_the_same_for_a_seed_and_jitter_with_it():
    captions = grammar.sample_captions("tiny_hpd", "train", 32)
    captions += grammar.sample_captions("tiny_pick", "train", 32)
    images = draw(*captions)
    assert images.shape == (64, 3, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, draw(*captions))
    assert (images != draw(*captions, seed=1)).flatten(1).any(1).all()


@pytest.mark.parametrize("color", grammar.COLORS)
@pytest.mark.parametrize("ground", grammar.GROUNDS)
def test_colour_in_the_middle_ground_in_the_corner(color: str, ground: str):
    image = draw(f"flat large {color} square on {ground}")[0]
    assert image[:, 16, 16] == pytest.approx(torch.tensor(COLOR_RGB[color]), abs=0.041)
    assert image[:, 0, 0] == pytest.approx(torch.tensor(GROUND_RGB[ground]), abs=0.031)


def test_large_covers_more_than_small_and_a_ring_has_a_hole():
    def covered(size: str, shape: str) -> int:
        image = draw(f"flat {size} red {shape} on white", seed=3)[0]
        return int(((image - image[:, :1, :1]).abs().amax(0) > 0.2).sum())

    for shape in grammar.SHAPES:
        assert covered("large", shape) > 2 * covered("small", shape)
    ring = draw("flat large red ring on white")[0]
    assert (ring[:, 16, 16] - ring[:, 0, 0]).abs().max() < 0.05


def test_two_objects_stand_left_and_right_in_the_order_said():
    image = draw("red square and blue square on white")[0]
    assert image[0, 16, 8] > image[2, 16, 8]
    assert image[2, 16, 24] > image[0, 16, 24]


def test_the_four_styles_differ_and_outlined_has_a_dark_rim():
    images = draw(*(f"{style} large yellow circle on white" for style in grammar.STYLES))
    darkest = dict(zip(grammar.STYLES, images.amax(1).flatten(1).amin(1), strict=True))
    assert darkest["outlined"] < 0.2 < darkest["flat"]
    variety = {
        style: image[:, 12:20, 12:20].flatten(1).std(1).mean()
        for style, image in zip(grammar.STYLES, images, strict=True)
    }
    assert variety["flat"] < 1e-6 < variety["shaded"] < variety["striped"]


@pytest.mark.parametrize("shape", grammar.SHAPES)
def test_distances_are_negative_inside_and_grow_outwards(shape: str):
    r = torch.tensor(6.0)
    inside = torch.tensor(4.5 if shape == "ring" else 0.0)
    along = torch.linspace(8.0, 16.0, 20)
    assert DISTANCES[shape](inside, torch.tensor(0.0), r) < 0
    distances = DISTANCES[shape](along, torch.zeros(20), r)
    assert (distances > 0).all()
    assert (distances.diff() > 0).all()


def test_labels_of_no_caption_keep_their_columns():
    assert labels([]).shape == (0, len(grammar.SLOTS))
