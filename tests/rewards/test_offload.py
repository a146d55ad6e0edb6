"""A reward that is placed at `offload`: its weights are on the device only while it scores."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mixgrpo import rewards
from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward, load_reward
from mixgrpo.rewards._offload import Offloaded
from mixgrpo.training.scoring import score_all

CPU = torch.device("cpu")
IMAGES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a cat"] * 5


class Judge:
    """Notes, whenever any of them scores, which judges have their weights on the device."""

    def __init__(self, name: str, seen: list[tuple[str, ...]], all_judges: list["Judge"]):
        self.name, self.seen, self.all = name, seen, all_judges
        self.network = torch.nn.BatchNorm1d(4).eval()  # parameters and buffers
        self.network.bias.data.uniform_()
        self.modules = [self.network]
        self.host = self.addresses()
        all_judges.append(self)

    def addresses(self) -> list[int]:
        return [t.data_ptr() for t in (*self.network.parameters(), *self.network.buffers())]

    @property
    def is_on_device(self) -> bool:
        """The device of this test is the CPU: a copy of the weights is what is on it."""
        return not set(self.addresses()) & set(self.host)

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.seen.append(tuple(judge.name for judge in self.all if judge.is_on_device))
        return self.network(images.flatten(1)[:, :4]).sum(1)


def test_each_is_on_the_device_while_it_scores_and_alone():
    seen: list[tuple[str, ...]] = []
    judges: list[Judge] = []
    checked = []
    for name in ("a", "b", "c"):
        judge = Judge(name, seen, judges)
        placed = judge if name == "b" else Offloaded(name, judge, CPU)
        checked.append(CheckedReward(name, placed))
    plain = {judge.name: judge.score(IMAGES, PROMPTS) for judge in judges}
    assert seen == [()] * 3
    for _ in range(2):
        seen.clear()
        scored = score_all(checked, IMAGES, PROMPTS)
        assert seen == [("a",), (), ("c",)]
        assert not any(judge.is_on_device for judge in judges)
        for name, one in scored.items():
            assert torch.equal(one.scores, plain[name])


def test_the_weights_go_back_when_scoring_fails():
    judge = Judge("a", [], [])
    judge.network.forward = lambda _: torch.full((5, 1), torch.nan)
    offloaded = CheckedReward("a", Offloaded("a", judge, CPU))
    with pytest.raises(RewardError, match="not finite"):
        offloaded.score(IMAGES, PROMPTS)
    judge.network.forward = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        offloaded.score(IMAGES, PROMPTS)
    assert judge.addresses() == judge.host


@pytest.mark.parametrize("name", ["tiny_hps", "tiny_image_reward", "tiny_unified"])
def test_a_real_one_gives_the_same_scores_and_facts(weights, name):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prompts = ["flat small red circle on white"] * 3
    here = load_reward(name, weights[name], CPU)
    away = load_reward(name, weights[name], CPU, {}, "offload")
    assert not away.elsewhere
    for _ in range(2):
        assert torch.equal(away.score(images, prompts), here.score(images, prompts))
    assert away.facts == here.facts
    network = torch.nn.ModuleList(here.reward.modules)
    assert away.visiting_bytes == sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    assert here.visiting_bytes == 0


def test_one_without_weights_here_says_so(monkeypatch):
    with pytest.raises(UserError, match=r"sharpness has no weights .* Take sharpness=offload out"):
        load_reward("sharpness", None, CPU, {}, "offload")

    def load(path: str | None, device: torch.device, *, url: str = "http://default") -> object:
        return SimpleNamespace(name="sharpness")

    monkeypatch.setattr(rewards, "module_of", lambda name: SimpleNamespace(load=load))
    with pytest.raises(UserError, match="sharpness has no weights"):
        load_reward("sharpness", None, CPU, {}, "offload")
