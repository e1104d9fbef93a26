"""What `python -m results compare` says of two runs."""

import io
import json

import pytest
from rich.console import Console

from engine.errors import DataError
from results.__main__ import main
from results.runs.compare import compare_runs, curves, draw, measurements
from tests.results.runs import edit, tuned
from tests.results.test_table_files import FIXTURE

SCRATCH, A2MIM = (
    FIXTURE / "demo-test_resnet-scratch-classification-s0",
    FIXTURE / "demo-test_resnet-a2mim-classification-s0",
)


def said(one, other):
    console = Console(file=io.StringIO(), width=160)
    compare_runs(one, other, console)
    return console.file.getvalue()


def test_it_says_which_settings_measurements_and_curves_differ():
    text = said(SCRATCH, A2MIM)
    assert f"1: {SCRATCH} (finished)" in text
    settings = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert "init" in settings
    assert "epochs" not in settings, "the same in both"
    assert {"top1_last", "train loss", "val top1"} <= set(settings)


def test_measurements_are_subtracted():
    final = [json.loads((run / "finished.json").read_text())["metrics"]["top1_last"] for run in (SCRATCH, A2MIM)]
    line = next(line for line in measurements(SCRATCH, A2MIM) if line[0] == "top1_last")
    assert line[1:3] == [f"{value:g}" for value in final]
    assert float(line[3]) == pytest.approx(final[1] - final[0])


def two_runs(folder, more_metrics):
    """Ending at 10 and 20 % top-1, the second with more lines in its metrics."""
    one, other = tuned(folder / "a", metrics={"top1": 10.0}), tuned(folder / "b", metrics={"top1": 20.0})
    with (other / "metrics.jsonl").open("a") as file:
        file.write(more_metrics)
    return one, other


def top1_line(one, other):
    return next(line for line in curves(one, other) if line[0] == "val top1")


def test_curves_stand_on_one_scale_and_meet_at_the_last_common_step(tmp_path):
    one, other = two_runs(
        tmp_path, '{"step": 15, "epoch": 4.5, "split": "val", "top1": 40.0}\n{"step": 20, "epoch": 6, "spl'
    )
    assert top1_line(one, other) == ["val top1", "▁▂", "▂▄█", "10", "10", "20", "+10"]


def test_steps_without_a_finite_value_are_left_out_of_a_curve(tmp_path):
    strange = '{"step": 15, "split": "val", "top1": NaN}\n{"step": 16, "split": "val", "top1": true}\n'
    one, other = two_runs(tmp_path, strange)
    assert top1_line(one, other) == ["val top1", "▁▃", "▃█", "10", "10", "20", "+10"]
    (other / "metrics.jsonl").write_text('{"split": "val", "top1": 1}\n')
    with pytest.raises(DataError, match=r"line 1: step is None, not a number"):
        curves(one, other)


def test_an_unfinished_run_is_compared_by_its_curves(tmp_path):
    one, other = tuned(tmp_path / "a"), tuned(tmp_path / "b", epochs=6, seed=1)
    (other / "finished.json").unlink()
    text = said(one, other)
    assert "(not finished)" in text
    assert "epochs" in text
    (other / "metrics.jsonl").unlink()
    assert "val top1" in said(one, other)


def test_the_same_run_differs_in_nothing_but_numbers(tmp_path):
    run = tuned(tmp_path / "a")
    text = said(run, run)
    assert "configuration: the same" in text
    assert "environment: the same" in text


def test_another_machine_is_a_difference(tmp_path):
    one, other = tuned(tmp_path / "a"), tuned(tmp_path / "b")
    edit(other / "environment.json", device="cuda: [bold]H200")
    assert "cuda: [bold]H200" in said(one, other)


@pytest.mark.parametrize(
    ("values", "drawn"), [([0, 8], "▁█"), ([3, 3], "▁▁"), ([], ""), (list(range(48)), None)]
)  # fmt: skip
def test_a_curve_is_drawn_between_the_bounds(values, drawn):
    line = draw(values, min(values, default=0), max(values, default=0))
    assert line == (drawn if drawn is not None else "".join(sorted(line)))
    assert len(line) == min(len(values), 24)


@pytest.mark.parametrize("file", ["config.json", "metrics.jsonl", "finished.json", "environment.json"])
@pytest.mark.parametrize("content", [b"\xff\x00", b"[" * 100_000 + b"\n", b'{"config": "x", "metrics": [1]}\n', b"3\n"])
def test_garbage_in_a_file_is_an_error_that_names_it_or_says_nothing(tmp_path, file, content):
    run = tuned(tmp_path / "a")
    (run / file).write_bytes(content)
    try:
        said(run, run)
    except DataError as error:
        assert str(run / file) in str(error)


def test_values_beyond_reckoning_leave_a_gap(tmp_path):
    one, other = two_runs(tmp_path, '{"step": 15, "split": "val", "top1": 1e308}\n')
    assert top1_line(one, other)[2] == "▃█"


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        said(tuned(tmp_path / "a"), tmp_path)
    (tmp_path / "a" / "metrics.jsonl").write_text("loss 3\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl line 1: no JSON object"):
        said(tmp_path / "a", tmp_path / "a")
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(tmp_path / "a"), str(tmp_path / "nothing")])
    assert stopped.value.code == 3
