"""Averaged BatchNorm statistics: the right numbers, in place when asked for, and never in a saved state."""

import pytest
import torch
from torch import nn

from detection.precise_bn import PreciseStatistics


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    network.register_buffer("counter", torch.zeros(()))
    network.register_forward_pre_hook(count)
    return network.eval()


def count(module, _):
    module.counter.add_(module.training)


def batches(num_batches, size=64):
    source = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 8, 8, generator=source) + 0.5 for _ in range(num_batches)]


def copy_of(state):
    return {name: value.clone() for name, value in state.items()}


def test_the_statistics_are_those_of_all_batches_together(model):
    parts = batches(5)
    precise = PreciseStatistics(model)
    with torch.no_grad():
        precise.measure(parts, model, lambda: None)
        features = model[0](torch.cat(parts))
    found = precise.statistics()
    assert found.keys() == {f"{i}.running_{part}" for i in (1, 4) for part in ("mean", "var")}
    assert torch.allclose(found["1.running_mean"], features.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(found["1.running_var"], features.var((0, 2, 3)), rtol=1e-3)


def test_the_model_has_them_inside_the_block_only_and_keeps_every_buffer_otherwise(model):
    before = copy_of(model.state_dict())
    momentum = model[1].momentum
    precise = PreciseStatistics(model)
    with torch.no_grad():
        precise.measure(batches(3), model, lambda: None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model[1].momentum, model.training) == (momentum, False)
    with precise.in_place():
        assert torch.equal(model[1].running_mean, precise.statistics()["1.running_mean"])
        assert torch.equal(model.counter, before["counter"])
        with precise.as_trained():
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model[1].running_mean, precise.statistics()["1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_stop_while_measuring_sees_the_model_as_it_is_trained_and_leaves_it_so(model):
    before = copy_of(model.state_dict())
    seen = []

    def check_stop():
        seen.append(copy_of(model.state_dict()))
        if len(seen) == 3:
            raise KeyboardInterrupt

    precise = PreciseStatistics(model)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        precise.measure(batches(5), model, check_stop)
    for state in (*seen, model.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert not model.training


def test_a_model_without_batch_norm_reads_no_batch():
    precise = PreciseStatistics(nn.Linear(2, 2))
    precise.measure(iter([]), pytest.fail, pytest.fail)
    assert precise.statistics() == {}
