import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.tiny.fit import fit, seeded


def regression(average: float) -> tuple[torch.nn.Module, float]:
    with seeded(0, "test"):
        module = torch.nn.Linear(3, 1, bias=False)
        truth = torch.tensor([[1.0, -2.0, 0.5]])

        def loss() -> torch.Tensor:
            x = torch.randn(32, 3)
            return (module(x) - x @ truth.T).pow(2).mean()

        final = fit(module, loss, name="line", num_steps=300, learning_rate=0.05, average=average)
    assert module.weight.detach() == pytest.approx(truth, abs=0.01)
    return module, final


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_fit_finds_the_line_twice_the_same_and_freezes_it(average: float):
    (first, loss), (second, _) = regression(average), regression(average)
    assert torch.equal(first.weight, second.weight)
    assert loss < 1e-3
    assert not first.weight.requires_grad
    assert not first.training


def test_a_loss_that_is_not_finite_stops():
    module = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"bad: the loss is nan at step 0 of 5"):
        fit(
            module,
            lambda: module.weight.sum() * torch.nan,
            name="bad",
            num_steps=5,
            learning_rate=0.1,
        )


def test_seeded_leaves_the_global_stream_and_the_threads_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with seeded(1, "a"):
        a = torch.rand(3)
    with seeded(1, "b"):
        b = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.equal(a, b)
