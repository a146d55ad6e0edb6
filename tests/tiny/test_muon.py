import pytest
import torch
from torch import nn

from mixgrpo.tiny.muon import ADAM_SCALE, Muon, orthogonal


@pytest.mark.parametrize("shape", [(5, 8, 8), (3, 8, 40), (2, 40, 8)])
def test_orthogonal_is_near_the_polar_factor(shape: tuple[int, ...]):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonal(matrices)
    cosine = (result * (u @ vh)).sum((1, 2)) / (result.norm(dim=(1, 2)) * (u @ vh).norm(dim=(1, 2)))
    assert cosine.min() > 0.9
    assert torch.linalg.svdvals(result).max() < 1.3


def test_a_step_has_the_size_of_adams_and_goes_downhill():
    torch.manual_seed(0)
    layer = nn.Linear(16, 64, bias=False)
    before = layer.weight.detach().clone()
    target = torch.randn(64, 16)
    optimizer = Muon(layer)
    (layer.weight * target).sum().backward()
    optimizer.step(0.1)
    moved = layer.weight.detach() - before
    assert moved.pow(2).mean().sqrt().item() == pytest.approx(0.1 * ADAM_SCALE, rel=0.3)
    assert (moved * target).sum() < 0


def test_kernels_count_as_matrices_and_the_rest_goes_to_adam():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Conv2d(8, 3, 3))
    optimizer = Muon(module)
    assert list(optimizer.by_shape) == [(8, 27)]
    left = {id(p) for p in optimizer.adam.param_groups[0]["params"]}
    assert left == {id(p) for p in module.parameters()} - {id(module[0].weight)}


def test_a_weight_without_a_gradient_stays():
    module = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    before = module[1].weight.detach().clone()
    module[0].weight.sum().backward()
    Muon(module).step(0.1)
    assert torch.equal(module[1].weight, before)
