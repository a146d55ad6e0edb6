"""Every file of mixgrpo/rewards/ keeps the protocol, and `load_reward` holds it to that."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixgrpo import rewards
from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward, load_reward, module_of, option_kinds
from mixgrpo.rewards._command import Asked
from mixgrpo.tiny.grammar import parse, sample_captions
from mixgrpo.tiny.render import render
from tests.rewards.small import MAKERS, real_rewards

CPU = torch.device("cpu")
FOLDER = Path(rewards.__file__).parent
NAMES = sorted({f.stem for f in FOLDER.glob("[!_]*.py")})
PROMPTS = sample_captions("tiny_hpd", "test", 5) + sample_captions("tiny_pick", "test", 4)
JUDGES = ("tiny_image_reward", "tiny_unified")
"""They know the tiny world alone: its captions, its 32 x 32 pixels."""
MEASURES = ("colorfulness", "sharpness")
WITHOUT_WEIGHTS = (*MEASURES, "unified_reward", "vit_random")
LONG = " ".join(f"word{i}" for i in range(500))


@pytest.fixture(scope="module")
def asked(
    weights: dict[str, str | None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Asked]]:
    with real_rewards(tmp_path_factory.mktemp("real")) as real:
        small = Asked(None, {"towers": 1, "width": 80, "layers": 1})
        yield {name: Asked(path) for name, path in weights.items()} | real | {"vit_random": small}


def load(name: str, asked: dict[str, Asked], **options) -> CheckedReward:
    return load_reward(name, asked[name].path, CPU, asked[name].options | options)


@pytest.fixture(params=NAMES)
def reward(request: pytest.FixtureRequest, asked: dict[str, Asked]) -> CheckedReward:
    return load(request.param, asked)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return render([parse(prompt) for prompt in PROMPTS], generator)


def test_every_reward_file_is_tried_here(asked: dict[str, Asked]):
    assert set(asked) == set(NAMES)


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


def test_more_images_than_fit_in_one_forward_pass(reward: CheckedReward, images: Tensor):
    rows = [i % len(PROMPTS) for i in range(100)]
    scores = reward.score(images[rows], [PROMPTS[i] for i in rows])
    alone = reward.score(images, PROMPTS)
    assert scores == pytest.approx(alone[rows], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(5, 3), (32, 33), (300, 40), (1024, 1024)])
def test_pictures_of_any_size_have_a_score(reward: CheckedReward, height: int, width: int):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, height, width, generator=generator)
    if reward.name in JUDGES:
        with pytest.raises(UserError, match=rf"32 x 32 pixels, got {height} x {width}"):
            reward.score(pictures, PROMPTS[:2])
        return
    together = reward.score(pictures, PROMPTS[:2])
    alone = [reward.score(pictures[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)]
    assert together == pytest.approx(torch.cat(alone), rel=1e-4, abs=1e-5)


def test_black_white_and_grey_pictures_have_a_score(reward: CheckedReward):
    levels = torch.tensor([0.0, 0.5, 1.0])
    pictures = levels[:, None, None, None].expand(-1, 3, 32, 32)
    assert reward.score(pictures, PROMPTS[:3]).shape == (3,)
    assert isinstance(reward.probe(PROMPTS[0], 32), float)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_than_three_are_refused(reward: CheckedReward, channels: int):
    """Files with one or four are turned into three when they are read, see `imagesets.read_pixels`."""
    with pytest.raises(RewardError, match=rf"got images \(1, {channels}, 32, 32\)"):
        reward.score(torch.zeros(1, channels, 32, 32), [""])


@pytest.mark.parametrize("prompt", ["", LONG, "Üñï ☃ \n\t 汉字", "<|endoftext|> [SEP] <s>"])
def test_any_prompt_has_a_score(reward: CheckedReward, images: Tensor, prompt: str):
    if reward.name in JUDGES:
        with pytest.raises(UserError, match="outside the grammar"):
            reward.score(images[:1], [prompt])
        return
    mixed = reward.score(images[:3], [PROMPTS[0], prompt, PROMPTS[2]])
    assert mixed[1:2] == pytest.approx(reward.score(images[1:2], [prompt]), rel=1e-4, abs=1e-5)
    assert mixed[:1] == pytest.approx(reward.score(images[:1], PROMPTS[:1]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", [*MAKERS, "unified_reward"])
def test_a_real_reward_says_what_a_score_file_must_name(name: str, asked: dict[str, Asked]):
    facts = load(name, asked).facts
    assert {"version", "checkpoint", "scale", "backend"} <= facts.keys()
    assert all(isinstance(value, str) and value for value in facts.values())
    if name in MAKERS:
        assert re.fullmatch(r"[0-9a-f]{64}( [0-9a-f]{64})*", facts["sha256"])


WITH_DTYPE = [n for n in NAMES if "dtype" in option_kinds(module_of(n).load)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", WITH_DTYPE)
def test_half_precision_is_near_and_ends_in_fp32(
    name: str, dtype: str, asked: dict[str, Asked], images: Tensor
):
    exact = load(name, asked).score(images, PROMPTS)
    scores = load(name, asked, dtype=dtype).score(images, PROMPTS)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, exact)
    assert scores == pytest.approx(exact, abs=0.1 * float(exact.std()) + 0.02)


def test_the_four_real_networks_take_a_dtype():
    assert set(MAKERS) <= set(WITH_DTYPE)


@pytest.mark.gpu
@pytest.mark.parametrize("name", WITH_DTYPE)
def test_a_gpu_gives_the_scores_of_the_cpu(name: str, asked: dict[str, Asked], images: Tensor):
    there = load_reward(name, asked[name].path, torch.device("cuda"), asked[name].options)
    expected = load(name, asked).score(images, PROMPTS)
    assert there.score(images.cuda(), PROMPTS) == pytest.approx(expected, rel=1e-3, abs=1e-3)


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
    if reward.name in WITHOUT_WEIGHTS:
        with pytest.raises(UserError, match="has no weights"):
            load_reward(reward.name, str(tmp_path), CPU)
        return
    missing = str(tmp_path / "nothing")
    with pytest.raises(UserError, match=rf"reward {reward.name}.*{re.escape(missing)}"):
        load_reward(reward.name, missing, CPU)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        load_reward(reward.name, str(tmp_path), CPU)
    if reward.name not in MAKERS:  # those fetch their own
        with pytest.raises(UserError, match="needs its weights"):
            load_reward(reward.name, None, CPU)
