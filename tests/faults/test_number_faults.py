"""F26-F31: a loss or gradient that is not finite stops every rank before the weights move."""

import copy
import json

import pytest
import safetensors.torch
import timm.optim
import torch

from engine.errors import DivergedError
from engine.loop import run_loop
from engine.run.open import open_run
from engine.training.optim import parameter_groups
from tests.engine import tiny_task
from tests.engine.test_resume import start
from tests.engine.tiny_task import TinyConfig, train


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_bad_step_stops_before_the_weights_move(tmp_path, gradient, fused):
    reference = TinyConfig(steps=4, checkpoint_every=1)
    train(reference, tmp_path / "good")
    bad = TinyConfig(steps=14, checkpoint_every=1, poison_step=5, poison_gradient=gradient, fused=fused)
    with pytest.raises(DivergedError, match="step 5 is not finite on rank 0") as caught:
        train(bad, tmp_path / "bad")
    assert caught.value.exit_code == 4
    assert sorted(p.name for p in (tmp_path / "bad/checkpoints").glob("0*")) == ["00000003", "00000004"]
    report = json.loads((tmp_path / "bad/diverged/report.json").read_text())
    assert report["step"] == 5
    assert len(report["files"]) == 8
    assert report["parameter_groups"][0]["lr"] != "0"
    assert report["ranks"][0]["num_bad_gradients"] > 0
    error = json.loads((tmp_path / "bad/error.json").read_text())
    assert (error["exit_code"], error["type"]) == (4, "DivergedError")


OPTIMIZERS = {
    "AdamW": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, fused=True),
    "SGD": lambda groups: torch.optim.SGD(groups, weight_decay=0.1, momentum=0.9, fused=True),
    "AdamW without": lambda groups: torch.optim.AdamW(groups, weight_decay=0.1),
    "LAMB": lambda groups: timm.optim.Lamb(groups, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_weight_or_moment_moves_in_a_bad_step_whoever_skips_it(tmp_path, name):
    model, settings = tiny_task.build(), tiny_task.Task(TinyConfig(), tmp_path).settings()
    groups = parameter_groups(model.named_parameters(), learning_rate=0.05, weight_decay=0.1)
    optimizer = OPTIMIZERS[name](groups)
    before: list[object] = []

    def state():
        parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
        return parameters, copy.deepcopy(optimizer.state_dict()["state"])

    def loss(network, batch):
        if len(before) < 3:
            before.append(state())
        return {"squared": network(batch).square().mean() * (float("nan") if len(before) == 3 else 1.0)}

    def batches(first):
        yield from ([torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i))] for i in range(9))

    with (
        open_run(tmp_path / "run", TinyConfig(), package="tiny", recipe="tiny") as run,
        pytest.raises(DivergedError, match=r"step 3 is not finite.*weights are those of step 2"),
    ):
        run_loop(run, model, optimizer=optimizer, batches=batches, loss=loss, settings=settings)
    torch.testing.assert_close(state(), before[2], rtol=0, atol=0)
    assert any(not torch.equal(before[1][0][name], before[2][0][name]) for name in before[1][0])


def test_a_poisoned_weight_is_named_by_its_module(tmp_path, monkeypatch):
    build = tiny_task.build

    def poisoned():
        model = build()
        with torch.no_grad():
            model[6].weight[0, 0] = float("nan")
        return model

    monkeypatch.setattr(tiny_task, "build", poisoned)
    with pytest.raises(DivergedError, match=r"first in 6; "):
        train(TinyConfig(), tmp_path / "run")
    report = json.loads((tmp_path / "run/diverged/report.json").read_text())
    assert report["ranks"][0]["bad_parameters"] == ["6.weight"]


def test_a_diverged_run_does_not_loop_when_it_is_requeued(tmp_path):
    bad = TinyConfig(steps=8, poison_step=5)
    with pytest.raises(DivergedError):
        train(bad, tmp_path / "run")
    before = (tmp_path / "run/timing.jsonl").read_bytes()
    with pytest.raises(DivergedError, match="resuming would repeat it"):
        train(bad, tmp_path / "run", resume=True)
    assert (tmp_path / "run/timing.jsonl").read_bytes() == before
    with pytest.raises(DivergedError, match="step 5 is not finite"):
        train(bad, tmp_path / "run", resume=True, accept_divergence=True)


def test_a_bad_loss_on_one_rank_stops_both_at_the_same_step(tmp_path):
    process = start("tiny", "--run-dir", tmp_path / "run", "--poison-step", "5", "--poison-rank", "1", ranks=2)
    assert process.wait(60) != 0
    errors = process.stderr.read()
    assert errors.count("error: step 5 is not finite on rank 1") == 2, errors
    report = json.loads((tmp_path / "run/diverged/report.json").read_text())
    assert [row["rank"] for row in report["ranks"]] == [0, 1]


def test_the_state_written_is_finite_and_that_of_the_step(tmp_path):
    train(TinyConfig(steps=5, ema=True), tmp_path / "run")
    folder = tmp_path / "run/checkpoints/00000005"
    for name in ("model.safetensors", "ema.safetensors"):
        assert all(t.isfinite().all() for t in safetensors.torch.load_file(folder / name).values())
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    assert {int(s["step"]) for s in state["optimizer"]["state"].values()} == {5}
