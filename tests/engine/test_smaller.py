"""A step that does not fit: the error names pieces that were tried and fit, and claims nothing it has not tried."""

import pytest
import torch
from torch import nn

from engine.errors import MemoryExhaustedError
from engine.loop import run_loop
from engine.run.open import open_run
from engine.training.optim import parameter_groups
from tests.engine.tiny_task import Task, TinyConfig


def run_on_a_device_for(images, folder, network, accumulation=1):
    """Two steps of 8 images, of which no more than `images` fit at once from the second step on."""
    config = TinyConfig(accumulation=accumulation)
    task, taken = Task(config, folder), []

    def loss(model, batch):
        taken.append(len(batch["label"]))
        if len(taken) > accumulation and taken[-1] > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has less.")
        return {"cross_entropy": nn.functional.cross_entropy(model(batch["image"]), batch["label"])}

    with open_run(folder / "run", config, package="tiny", recipe="tiny") as run:
        optimizer = torch.optim.AdamW(parameter_groups(network.named_parameters(), learning_rate=0.1, weight_decay=0.0))
        run_loop(run, network, optimizer=optimizer, batches=task.batches, loss=loss, settings=task.settings())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_full_memory_names_pieces_that_were_tried_and_fit(tmp_path, accumulation):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(MemoryExhaustedError, match=r"--accumulation 4 or more \(a piece of 2 fitted") as caught:
        run_on_a_device_for(2, tmp_path, network, accumulation)
    assert caught.value.exit_code == 6


def test_full_memory_claims_nothing_where_no_piece_fits(tmp_path):
    normalised = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 4))  # needs two images
    with pytest.raises(MemoryExhaustedError, match="--accumulation 2 or more, which"):
        run_on_a_device_for(1, tmp_path, normalised)
