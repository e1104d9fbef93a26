"""Normalisation over several ranks: known layers are converted with all they do, others say what becomes of them."""

import pytest
import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.multiprocessing.spawn import spawn

from engine.errors import ConfigError
from engine.loop import run_loop
from engine.run.open import open_run
from engine.training.optim import Schedule, parameter_groups
from engine.training.ranks import prepare_for_ranks
from engine.training.state import LoopSettings
from tests.engine.tiny_task import TinyConfig

GPU = torch.device("cuda")  # only named: converting needs none


class OverRanks(nn.BatchNorm1d):
    """A method's own normalisation: by the mean over all ranks, without a variance."""

    def forward(self, x):
        mean = x.detach().mean(0)
        if self.training and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        return (x - mean) * self.weight + self.bias

    def prepare_for_ranks(self):
        return self


def test_plain_layers_are_converted_and_timms_keeps_its_activation():
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4)), nn.LayerNorm(4), nn.BatchNorm1d(2))
    parameters = list(net.parameters())
    found = prepare_for_ranks(net, GPU)
    assert [type(found[i]) for i in (0, 2, 3)] == [nn.SyncBatchNorm, nn.LayerNorm, nn.SyncBatchNorm]
    assert type(found[1][0]) is SyncBatchNormAct
    assert isinstance(found[1][0].act, nn.ReLU)
    assert all(a is b for a, b in zip(found.parameters(), parameters, strict=True))


def test_another_batch_norm_is_refused_by_name_unless_it_says_what_becomes_of_it():
    class Mine(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match=r"1\.0 is a Mine, .*prepare_for_ranks"):
        prepare_for_ranks(nn.Sequential(nn.ReLU(), nn.Sequential(Mine(4))), GPU)
    net = nn.Sequential(OverRanks(4), nn.BatchNorm1d(4))
    assert type(prepare_for_ranks(net, GPU)[0]) is OverRanks
    assert type(net[1]) is nn.SyncBatchNorm


def test_parameters_must_stay_the_optimizers():
    class Replaced(nn.BatchNorm2d):
        def prepare_for_ranks(self):
            return nn.SyncBatchNorm(self.num_features)

    with pytest.raises(ConfigError, match="must keep the parameters"):
        prepare_for_ranks(nn.Sequential(Replaced(4)), GPU)


def trained(folder):
    """Weights after two steps of 8 samples over all ranks, through the loop, with a normalisation of its own."""
    torch.manual_seed(0)
    network = nn.Sequential(OverRanks(4), nn.Linear(4, 1))
    settings = LoopSettings(
        total_steps=2,
        steps_per_epoch=2,
        batch_size=8,
        schedule=Schedule(kind="constant", total_steps=2),
        seed=0,
        checkpoint_every=10,
        precision="float32",
    )
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)

    def batches(first):
        for step in range(first, 2):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)) + torch.arange(8.0)[:, None]
            yield [x.chunk(ranks)[rank]]

    with open_run(folder, TinyConfig(), package="tiny", recipe="tiny") as run:
        optimizer = torch.optim.SGD(parameter_groups(network.named_parameters(), learning_rate=0.1, weight_decay=0.0))
        loss = lambda model, x: {"squared": (model(x) - 1).square().mean()}  # noqa: E731
        run_loop(run, network, optimizer=optimizer, batches=batches, loss=loss, settings=settings)
    return network.state_dict()


def on_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weights = trained(folder / "two")
    if rank == 0:
        torch.save(weights, folder / "weights.pt")
    dist.destroy_process_group()


def test_a_methods_own_normalisation_is_still_there_on_two_ranks(tmp_path):
    one = trained(tmp_path / "one")
    spawn(on_rank, args=(tmp_path,), nprocs=2)
    two = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
