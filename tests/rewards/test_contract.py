"""Every file of mixgrpo/rewards/ keeps the protocol, and `load_reward` holds it to that."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixgrpo import rewards
from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward, load_reward
from mixgrpo.tiny.grammar import parse, sample_captions
from mixgrpo.tiny.render import render

CPU = torch.device("cpu")
FOLDER = Path(rewards.__file__).parent
NAMES = sorted({f.stem for f in FOLDER.glob("[!_]*.py")})
PROMPTS = sample_captions("tiny_hpd", "test", 5) + sample_captions("tiny_pick", "test", 4)


@pytest.fixture(params=NAMES)
def reward(request: pytest.FixtureRequest, weights: dict[str, str | None]) -> CheckedReward:
    return load_reward(request.param, weights[request.param], CPU)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return render([parse(prompt) for prompt in PROMPTS], generator)


def test_every_reward_file_is_tried_here(weights: dict[str, str | None]):
    assert set(weights) == set(NAMES)


def test_one_finite_fp32_score_per_image_on_the_cpu(reward: CheckedReward, images: Tensor):
    scores = reward.score(images, PROMPTS)
    assert scores.shape == (len(PROMPTS),)
    assert scores.dtype == torch.float32
    assert scores.device == CPU
    assert scores.isfinite().all()
    assert not scores.requires_grad
    assert len(set(scores.tolist())) > 1


def test_the_name_is_the_file(reward: CheckedReward):
    assert reward.name == reward.reward.name
    assert (FOLDER / f"{reward.name}.py").is_file()


def test_the_same_input_gives_the_same_bits_and_is_left_alone(
    reward: CheckedReward, images: Tensor
):
    before = images.clone()
    first = reward.score(images, PROMPTS)
    torch.manual_seed(123)
    assert torch.equal(first, reward.score(images, tuple(PROMPTS)))
    assert torch.equal(images, before)


def test_a_batch_is_its_images_one_by_one_in_any_order(reward: CheckedReward, images: Tensor):
    together = reward.score(images, PROMPTS)
    alone = [reward.score(images[i : i + 1], [PROMPTS[i]]) for i in range(len(PROMPTS))]
    assert together == pytest.approx(torch.cat(alone), rel=1e-4, abs=1e-5)
    backwards = reward.score(images.flip(0), PROMPTS[::-1])
    assert together == pytest.approx(backwards.flip(0), rel=1e-4, abs=1e-5)


def test_repeated_prompts_score_like_single_ones(reward: CheckedReward, images: Tensor):
    repeated = reward.score(images[:1].expand(6, -1, -1, -1), PROMPTS[:1] * 6)
    assert repeated == pytest.approx(reward.score(images[:1], PROMPTS[:1]).expand(6), rel=1e-4)


def test_no_images_have_no_scores(reward: CheckedReward):
    assert reward.score(torch.zeros(0, 3, 32, 32), []).shape == (0,)


@pytest.mark.parametrize("num_prompts", [0, 1, len(PROMPTS) - 1])
def test_other_counts_are_refused(reward: CheckedReward, images: Tensor, num_prompts: int):
    with pytest.raises(RewardError, match=f"got {len(PROMPTS)} images and {num_prompts} prompts"):
        reward.score(images, PROMPTS[:num_prompts])


def test_swapped_arguments_and_a_bare_string_are_refused(reward: CheckedReward, images: Tensor):
    for arguments in ((PROMPTS, images), (images, PROMPTS[0]), (images[0], PROMPTS)):
        with pytest.raises(RewardError, match=rf"reward {reward.name}: got images"):
            reward.score(*arguments)


def test_a_broken_image_is_no_score(reward: CheckedReward, images: Tensor):
    images[2] = torch.nan
    with pytest.raises(RewardError, match=f"{reward.name} is not finite for 1 of 9") as caught:
        reward.score(images, PROMPTS)
    assert PROMPTS[2] in str(caught.value)
    assert PROMPTS[3] not in str(caught.value)


class Broken:
    """A reward that forgets an image."""

    name = "broken"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(images) - 1)


def test_a_missing_score_names_reward_and_prompts(images: Tensor):
    with pytest.raises(
        RewardError, match=r"broken returned scores of shape \(8,\) for 9"
    ) as caught:
        CheckedReward("broken", Broken()).score(images, PROMPTS)
    assert PROMPTS[0] in str(caught.value)
    assert "6 more" in str(caught.value)


@pytest.mark.parametrize("name", ["hps", "clip", "__init__", "../errors", ""])
def test_an_unknown_name_lists_the_files(name: str):
    with pytest.raises(UserError, match=f"There are: {', '.join(NAMES)}"):
        load_reward(name, None, CPU)


def test_a_missing_directory_is_named(reward: CheckedReward, tmp_path: Path):
    if reward.name in ("colorfulness", "sharpness"):
        with pytest.raises(UserError, match="has no weights"):
            load_reward(reward.name, str(tmp_path), CPU)
        return
    with pytest.raises(UserError, match="does not exist"):
        load_reward(reward.name, str(tmp_path / "nothing"), CPU)
    with pytest.raises(UserError, match="needs its weights"):
        load_reward(reward.name, None, CPU)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_reward(reward.name, str(tmp_path), CPU)


@pytest.mark.parametrize("name", ["tiny_image_reward", "tiny_unified"])
def test_a_judge_of_attributes_refuses_other_captions(
    name: str, weights: dict[str, str | None], images: Tensor
):
    with pytest.raises(UserError, match="outside the grammar"):
        load_reward(name, weights[name], CPU).score(images[:1], ["a photo of a cat"])
