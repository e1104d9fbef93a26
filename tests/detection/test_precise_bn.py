"""Averaged BatchNorm statistics: the right numbers, in place when asked for, and never in a saved state."""

import pytest
import torch
from torch import nn

from detection.precise_bn import PreciseStatistics
from tests.detection.folders import needs_detectron2


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    network.register_buffer("counter", torch.zeros(()))
    network.register_forward_pre_hook(count)
    return network.eval()


def count(module, _):
    module.counter.add_(module.training)


def batches(num_batches, side=0):
    """Batches of different brightness and, like a detector's, of different sizes, unless `side` is given."""
    source = torch.Generator().manual_seed(1)
    sides = [side or 8 + 2 * number for number in range(num_batches)]
    return [torch.randn(2, 3, side, side, generator=source) + number for number, side in enumerate(sides)]


def copy_of(state):
    return {name: value.clone() for name, value in state.items()}


def test_the_statistics_are_those_of_all_batches_together(model):
    parts = batches(5)
    precise = PreciseStatistics(model)
    with torch.no_grad():
        precise.measure(parts, model, lambda: None)
        values = torch.cat([model[0](part).movedim(1, 0).flatten(1) for part in parts], dim=1)
    found = precise.statistics()
    assert found.keys() == {f"{i}.running_{part}" for i in (1, 4) for part in ("mean", "var")}
    assert torch.allclose(found["1.running_mean"], values.mean(1), atol=1e-5)
    assert torch.allclose(found["1.running_var"], values.var(1, correction=0), rtol=1e-5)


@pytest.mark.parametrize("size", [pytest.param(0, marks=needs_detectron2)])
def test_the_statistics_are_fvcores(model, size):
    from fvcore.nn.precise_bn import update_bn_stats

    precise = PreciseStatistics(model)
    with torch.no_grad():
        precise.measure(batches(4, size), model, lambda: None)
    update_bn_stats(model.train(), batches(4, size), num_iters=4)
    for name, value in precise.statistics().items():
        assert torch.allclose(value, model.get_buffer(name), rtol=1e-5, atol=1e-6)


def test_a_norm_that_saw_nothing_keeps_its_running_statistics(model):
    model[4].running_mean.fill_(0.25)
    precise = PreciseStatistics(model)
    with torch.no_grad():
        precise.measure(batches(2, 8), model[:3], lambda: None)
    assert precise.statistics()["4.running_mean"].tolist() == [0.25, 0.25]
    assert torch.equal(precise.statistics()["4.running_var"], model[4].running_var)


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
