"""F26-F31: a loss or gradient that is not finite stops every rank before the weights move."""

import json

import pytest
import safetensors.torch
import torch

from engine.errors import DivergedError
from tests.engine.test_resume import start
from tests.engine.tiny_task import TinyConfig, train


@pytest.mark.parametrize("gradient", [False, True])
def test_a_bad_step_stops_before_the_weights_move(tmp_path, gradient):
    reference = TinyConfig(steps=4, checkpoint_every=1)
    train(reference, tmp_path / "good")
    bad = TinyConfig(steps=14, checkpoint_every=1, poison_step=5, poison_gradient=gradient)
    with pytest.raises(DivergedError, match="step 5 is not finite on rank 0") as caught:
        train(bad, tmp_path / "bad")
    assert caught.value.exit_code == 4
    assert sorted(p.name for p in (tmp_path / "bad/checkpoints").glob("0*")) == ["00000003", "00000004"]
    report = json.loads((tmp_path / "bad/diverged/report.json").read_text())
    assert report["step"] == 5
    assert len(report["files"]) == 8
    assert report["parameter_groups"][0]["lr"] != "0"
    error = json.loads((tmp_path / "bad/error.json").read_text())
    assert (error["exit_code"], error["type"]) == (4, "DivergedError")


def test_a_poisoned_weight_is_named_by_its_module(tmp_path, monkeypatch):
    from tests.engine import tiny_task

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
