"""Options and places of rewards: what `load` takes, and what MIXGRPO_REWARDS may say."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mixgrpo import rewards
from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards import CheckedReward, load_reward, placement

CPU = torch.device("cpu")


class Constant:
    name = "sharpness"

    def __init__(self, value: float = 1.0, **facts: str):
        self.value, self.facts = value, facts

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.full((len(images),), self.value)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What a reward with options of every kind is loaded with."""
    calls: list[dict] = []

    def load(
        path: str | None,
        device: torch.device,
        *,
        backend: str = "package",
        batch: int = 8,
        scale: float = 1.0,
        strict: bool = True,
    ) -> Constant:
        calls.append({"path": path, "device": device, "backend": backend, "batch": batch})
        calls[-1] |= {"scale": scale, "strict": strict}
        return Constant(version="1")

    monkeypatch.setattr(rewards, "module_of", lambda name: SimpleNamespace(load=load))
    return calls


def test_options_are_the_keyword_arguments_of_load(loaded):
    options = {"backend": "native", "scale": 2, "strict": False}
    reward = load_reward("sharpness", "somewhere", CPU, options)
    expected = {"path": "somewhere", "device": CPU, "backend": "native", "batch": 8}
    assert loaded == [expected | {"scale": 2, "strict": False}]
    assert reward.facts == {"version": "1"}
    assert not reward.elsewhere


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bakcend": "native"}, "option 'bakcend' is not known. There are: backend, batch, scale"),
        ({"backend": 3}, "option backend is 3, wanted str"),
        ({"batch": "8"}, "option batch is '8', wanted int"),
        ({"batch": True}, "option batch is True, wanted int"),
        ({"batch": 8.5}, r"option batch is 8\.5, wanted int"),
        ({"strict": "yes"}, "option strict is 'yes', wanted bool"),
        ({"path": "x"}, "option 'path' is not known"),
    ],
)
def test_other_options_are_refused_before_anything_is_loaded(loaded, options, message):
    with pytest.raises(UserError, match=f"reward sharpness: {message}"):
        load_reward("sharpness", None, CPU, options)
    assert loaded == []


def test_a_reward_without_options_says_so():
    with pytest.raises(UserError, match=r"option .backend. is not known\. It has none"):
        load_reward("sharpness", None, CPU, {"backend": "native"})


def test_an_option_without_a_default_must_be_given(monkeypatch):
    def load(path: str | None, device: torch.device, *, model: str) -> Constant:
        return Constant()

    monkeypatch.setattr(rewards, "module_of", lambda name: SimpleNamespace(load=load))
    with pytest.raises(UserError, match="option model is missing"):
        load_reward("sharpness", None, CPU)


def test_the_environment_places_rewards(monkeypatch):
    monkeypatch.delenv("MIXGRPO_REWARDS", raising=False)
    assert placement() == {}
    text = "sharpness=cuda:1, colorfulness=http://127.0.0.1:8801/"
    monkeypatch.setenv("MIXGRPO_REWARDS", text)
    assert placement() == {"sharpness": "cuda:1", "colorfulness": "http://127.0.0.1:8801"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpnes=cpu", "'sharpnes' in 'sharpnes=cpu' is no reward. There are: .*sharpness"),
        ("sharpness", "sharpness is placed at '', wanted a device, offload or a URL"),
        ("sharpness=gpu1", "sharpness is placed at 'gpu1'"),
        ("sharpness=https://", "sharpness is placed at 'https://'"),
        ("sharpness=cpu sharpness=cuda:1", "sharpness stands there twice"),
    ],
)
def test_what_is_no_place_is_named(monkeypatch, text, message):
    monkeypatch.setenv("MIXGRPO_REWARDS", text)
    with pytest.raises(UserError, match=f"MIXGRPO_REWARDS: {message}"):
        placement()


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"sharpness is placed at cuda:77, but this process sees"):
        load_reward("sharpness", None, CPU, {}, "cuda:77")


def test_another_device_is_elsewhere(loaded):
    beside = load_reward("sharpness", None, CPU, {}, "cpu")
    apart = load_reward("sharpness", None, torch.device("cuda:0"), {}, "cpu")
    assert (beside.elsewhere, apart.elsewhere) == (False, True)
    assert [call["device"] for call in loaded] == [CPU, CPU]


def test_a_client_of_a_server_gets_the_url(monkeypatch):
    urls = []

    def load(path: str | None, device: torch.device, *, url: str = "http://default") -> Constant:
        urls.append(url)
        return Constant()

    monkeypatch.setattr(rewards, "module_of", lambda name: SimpleNamespace(load=load))
    assert load_reward("sharpness", None, CPU, {"url": "http://a"}).elsewhere
    assert load_reward("sharpness", None, CPU, {"url": "http://a"}, "http://b").elsewhere
    assert load_reward("sharpness", None, CPU).elsewhere
    assert urls == ["http://a", "http://b", "http://default"]


def test_a_probe_says_what_is_wrong_before_the_start():
    assert CheckedReward("sharpness", Constant(0.25)).probe("a cat", 16) == 0.25
    with pytest.raises(
        RewardError, match="a grey picture, tried before the start: reward x is not"
    ):
        CheckedReward("x", Constant(float("inf"))).probe("a cat", 16)


def test_no_memory_is_a_message_with_a_remedy():
    class Hungry(Constant):
        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    with pytest.raises(RewardError, match=r"out of memory for 1 images .*MIXGRPO_REWARDS=\"big="):
        CheckedReward("big", Hungry()).probe("a cat", 8)
