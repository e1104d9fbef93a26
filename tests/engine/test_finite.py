"""Evaluations of networks that compute no numbers."""

import pytest
import torch
from torch import nn

from engine.errors import DivergedError
from engine.loop import run_loop
from engine.run.open import open_run
from engine.training.finite import finite_outputs
from engine.training.optim import parameter_groups
from tests.engine.tiny_task import Task, TinyConfig, build


def test_a_run_whose_statistics_are_nan_stops_at_its_first_evaluation_and_records_no_metric(tmp_path):
    """Training never sees them: batch norm normalises by the batch. It used to end at chance with exit code 0."""
    config = TinyConfig(steps=10)
    task, model = Task(config, tmp_path), build()
    model[1].running_var[2] = float("nan")
    with (
        open_run(tmp_path / "run", config, package="tiny", recipe="tiny") as run,
        pytest.raises(
            DivergedError, match=r"after step 5 is not finite \(first in 6\); 1 of .* 1\.running_var"
        ) as caught,
    ):
        run_loop(
            run,
            model,
            optimizer=torch.optim.SGD(parameter_groups(model.named_parameters(), learning_rate=0.1, weight_decay=0.0)),
            batches=task.batches,
            loss=task.loss,
            settings=task.settings(),
            evaluate=task.evaluate,
        )
    assert caught.value.exit_code == 4
    assert '"val"' not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_values_that_overflow_between_finite_weights_are_called_that():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).half()
    with torch.no_grad():
        model[0].weight.fill_(60_000)
    with (
        pytest.raises(DivergedError, match=r"first in 0\); all weights and statistics are finite"),
        finite_outputs(model, 3, torch.device("cpu")),
    ):
        model(torch.full((1, 2), 10.0).half())
    with finite_outputs(model, 3, torch.device("cpu")):
        model(torch.zeros(1, 2).half())
    assert not model[0]._forward_hooks
