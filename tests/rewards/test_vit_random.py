"""The stand-in of reward models whose weights are not at hand."""

import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.rewards import load_reward

CPU = torch.device("cpu")


def test_scores_depend_on_picture_and_prompt_and_repeat():
    options = {"towers": 2, "width": 80, "layers": 1}
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    first, again = (load_reward("vit_random", None, CPU, options) for _ in range(2))
    scores = first.score(images, ["fox", "fox"])
    assert torch.equal(scores, again.score(images, ["fox", "fox"]))
    assert scores[0] != scores[1]
    assert scores[0] != first.score(images[:1], ["cat"])[0]


@pytest.mark.parametrize("options", [{"width": 100}, {"towers": 0}, {"layers": 0}])
def test_sizes_that_are_none(options):
    with pytest.raises(UserError, match="vit_random"):
        load_reward("vit_random", None, CPU, options)


def test_it_has_no_weights():
    with pytest.raises(UserError, match="no weights"):
        load_reward("vit_random", "somewhere", CPU, {})
