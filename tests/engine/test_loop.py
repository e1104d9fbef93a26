"""What one step does: accumulation, clipping, averaging, several ranks and mixed precision."""

import json
import sysconfig
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from engine.loop import run_loop
from engine.run import checkpoint
from engine.run.open import open_run
from engine.training.optim import Schedule, parameter_groups
from engine.training.state import LoopSettings, TrainingState
from tests.engine.tiny_task import TinyConfig, train
from tests.forked import run_module
from tests.helpers import final_files

PYTHON_H = Path(sysconfig.get_path("include")) / "Python.h"


def fit(folder, *, accumulation=1, steps=6, **more):
    """Linear regression on fixed batches of 8 through the real loop; returns the weights of each saved step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    groups = parameter_groups(model.named_parameters(), learning_rate=0.1, weight_decay=0.0)
    settings = LoopSettings(
        total_steps=steps,
        steps_per_epoch=3,
        batch_size=8,
        schedule=Schedule(kind="constant", total_steps=steps),
        seed=0,
        checkpoint_every=1000,
        log_every=1,
        **{"precision": "float32", **more},
    )

    def batches(first):
        for step in range(first, steps):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            yield [(part, part.sum(1, keepdim=True)) for part in x.chunk(accumulation)]

    def loss(network, batch):
        x, y = batch
        error = network(x).float() - y
        return {"squared": error.square().mean(), "absolute": 0.1 * error.abs().mean()}

    with open_run(folder, TinyConfig(), package="tiny", recipe="tiny") as run:
        run_loop(run, model, optimizer=torch.optim.SGD(groups), batches=batches, loss=loss, settings=settings)
    return model.state_dict(), [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_accumulated_pieces_make_the_step_of_the_whole_batch(tmp_path):
    whole, rows = fit(tmp_path / "1")
    pieces, other_rows = fit(tmp_path / "4", accumulation=4)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-5, atol=1e-6)
    assert [row["loss"] for row in other_rows] == pytest.approx([row["loss"] for row in rows], rel=1e-5)


def test_the_terms_are_logged_and_sum_to_the_loss(tmp_path):
    _, rows = fit(tmp_path / "run")
    assert all(row["loss"] == pytest.approx(row["squared"] + row["absolute"]) for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_clipping_limits_the_step_and_logs_the_norm_before_it(tmp_path):
    torch.manual_seed(0)
    start_weights = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).state_dict()
    clipped, rows = fit(tmp_path / "run", clip_grad=1e-3, steps=1)
    moved = torch.sqrt(sum((clipped[name] - start_weights[name]).square().sum() for name in clipped))
    assert float(moved) == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert rows[0]["gradient_norm"] > 0.1


def test_the_average_follows_the_weights(tmp_path):
    first, _ = fit(tmp_path / "first", steps=1)  # the average starts as the weights of the first step
    second, _ = fit(tmp_path / "run", ema_decay=0.5, steps=2)
    average = safetensors.torch.load_file(checkpoint.newest(tmp_path / "run") / "ema.safetensors")
    for name in second:
        torch.testing.assert_close(average[name], 0.5 * first[name] + 0.5 * second[name])


def test_float16_skips_the_steps_that_overflow_and_goes_on(tmp_path):
    _, rows = fit(tmp_path / "run", precision="float16", steps=12)
    scales = [row["gradient_scale"] for row in rows]
    assert scales == sorted(scales, reverse=True), "the scale may only shrink in so few steps"
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_mixed_precision_stays_near_float32(tmp_path):
    exact, _ = fit(tmp_path / "exact")
    mixed, _ = fit(tmp_path / "mixed", precision="bfloat16")
    for name in exact:
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], exact[name], rtol=0.1, atol=0.02)
    assert any(not torch.equal(mixed[name], exact[name]) for name in exact), "autocast was not in effect"


def test_two_ranks_make_the_step_of_the_whole_batch(tmp_path):
    done = run_module("tests.engine.tiny_task", "tiny", "--run-dir", tmp_path / "two", "--steps", "3", ranks=2)
    assert done.returncode == 0, done.stderr
    train(TinyConfig(steps=3), tmp_path / "one")
    one = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    two = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    # Batch norm sees half the batch on each rank and dropout draws differ, so only roughly.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.1)
    assert two[0]["learning_rate"] == one[0]["learning_rate"]


def test_the_same_command_twice_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(TinyConfig(steps=4, seed=seed), tmp_path / name)
    first, second, third = (final_files(tmp_path / name) for name in "abc")
    assert first == second
    assert first["00000004/model.safetensors"] != third["00000004/model.safetensors"]


def test_a_finished_run_is_not_run_again(tmp_path):
    metrics = train(TinyConfig(steps=3), tmp_path / "run")
    written = (tmp_path / "run/finished.json").stat().st_mtime_ns
    assert train(TinyConfig(steps=3), tmp_path / "run", resume=True) == metrics
    assert (tmp_path / "run/finished.json").stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON_H.is_file(), reason="torch.compile needs the headers of this Python")
def test_a_compiled_model_trains_and_its_checkpoint_has_the_plain_names(tmp_path):
    plain, _ = fit(tmp_path / "plain")
    compiled, _ = fit(tmp_path / "compiled", compile=True)
    saved, _ = checkpoint.load_model_state(tmp_path / "compiled")
    assert saved.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-4, atol=1e-5)


def test_a_state_that_is_made_has_done_nothing_until_it_begins(tmp_path):
    model = nn.Linear(4, 1)
    groups = parameter_groups(model.named_parameters(), learning_rate=0.1, weight_decay=0.0)
    schedule = Schedule(kind="constant", total_steps=3)
    settings = LoopSettings(
        total_steps=3,
        steps_per_epoch=3,
        batch_size=8,
        schedule=schedule,
        seed=0,
        checkpoint_every=9,
        deterministic=True,
    )
    with open_run(tmp_path / "run", TinyConfig(), package="tiny", recipe="tiny") as run:
        before = sorted(path.name for path in run.dir.rglob("*"))
        state = TrainingState(run, model, torch.optim.SGD(groups), settings)
        assert sorted(path.name for path in run.dir.rglob("*")) == before
        assert not torch.are_deterministic_algorithms_enabled()
        state.begin()
        assert checkpoint.newest(run.dir).name == "00000000"


def test_pictures_are_drawn_at_the_start_as_often_as_asked_and_at_the_end_and_are_no_evaluation(tmp_path):
    drawn = []

    def draw(model, step, check_stop):
        check_stop()
        drawn.append((step, model.training, torch.is_grad_enabled()))

    plain, rows = fit(tmp_path / "plain", steps=5)
    watched, other_rows = fit(tmp_path / "watched", steps=5, draw=draw, draw_every=2)
    assert drawn == [(step, False, False) for step in (0, 2, 4, 5)]
    assert rows == other_rows, "it measures nothing"
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
