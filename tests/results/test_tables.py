"""Means, spreads and differences of the benchmark table (F57), and the files it is written to."""

import io
import math
import statistics

import pandas as pd
import pytest
from rich.console import Console

from results.__main__ import main
from results.figures.data import with_labels
from results.figures.style import looks
from results.published import load_published
from results.runs.collect import collect
from results.tables.comparison import compare_with_published
from results.tables.files import all_sheets
from results.tables.headlines import headlines
from results.tables.rows import benchmark_table, print_headlines, print_table, readable, write_table
from tests.results.copies import copy_pretraining, copy_run
from tests.results.runs import edit, pretrained, tuned

SCRATCH, A2MIM = [60.0, 61.0, 64.0], [66.5, 67.5]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds from scratch, two of three after A2MIM, one after SimMIM, and a detector."""
    root = tmp_path_factory.mktemp("runs")
    a2mim, simmim = pretrained(root / "a2mim"), pretrained(root / "simmim", method="simmim", epochs=100)
    for seed, top1 in enumerate(SCRATCH):
        tuned(root / f"scratch{seed}", metrics={"top1": top1}, seed=seed)
    for seed, top1 in enumerate(A2MIM):
        tuned(root / f"a2mim{seed}", metrics={"top1": top1}, seed=seed, init=str(a2mim))
    (tuned(root / "a2mim2", seed=2, init=str(a2mim)) / "finished.json").unlink()
    tuned(root / "simmim0", metrics={"top1": 62.0}, init=str(simmim))
    tuned(root / "detector", task="detection", metrics={"box_AP": 20.0}, init=str(a2mim))
    return root


@pytest.fixture(scope="module")
def table(runs):
    return benchmark_table(collect([runs])[0])


def line(table, method, metric="top1_last"):
    return table[(table["method"] == method) & (table["metric"] == metric)].squeeze()


def test_mean_and_sample_standard_deviation_are_over_the_seeds(table):
    scratch = line(table, "scratch")
    assert scratch["mean"] == pytest.approx(statistics.mean(SCRATCH))
    assert scratch["std"] == pytest.approx(statistics.stdev(SCRATCH))
    assert scratch["n"] == 3


def test_fewer_seeds_show_in_n_and_one_seed_has_no_spread(table):
    assert line(table, "a2mim")["n"] == 2
    assert line(table, "simmim")["n"] == 1
    assert math.isnan(line(table, "simmim")["std"])


def test_the_difference_is_to_scratch_of_the_same_experiment_only(table):
    assert line(table, "a2mim")["difference"] == pytest.approx(67.0 - statistics.mean(SCRATCH))
    assert math.isnan(line(table, "scratch")["difference"])
    assert math.isnan(line(table, "a2mim", "box_AP_last")["difference"]), "no detector was trained from scratch"


def test_a_control_with_another_setting_is_no_control(tmp_path):
    tuned(tmp_path / "scratch", epochs=6)
    tuned(tmp_path / "a2mim", init=str(pretrained(tmp_path / "pre")))
    table = benchmark_table(collect([tmp_path])[0])
    assert table["difference"].isna().all()
    assert len(readable(table)) == 2


def test_intervals_need_three_runs_and_differences_the_same_seeds_to_be_paired(runs, table, tmp_path):
    scratch, a2mim = line(table, "scratch"), line(table, "a2mim")
    half = 4.3026527 * statistics.stdev(SCRATCH) / math.sqrt(3)
    assert (scratch["low"], scratch["high"]) == pytest.approx((scratch["mean"] - half, scratch["mean"] + half))
    assert math.isnan(a2mim["low"])
    assert a2mim["pairs"] == 0, "one of its seeds did not finish"
    assert math.isnan(a2mim["difference_low"])
    pre = pretrained(tmp_path / "pre")
    for seed, top1 in enumerate(SCRATCH):
        tuned(tmp_path / f"scratch{seed}", metrics={"top1": top1}, seed=seed)
        tuned(tmp_path / f"a2mim{seed}", metrics={"top1": top1 + 1 + seed / 2}, seed=seed, init=str(pre))
    paired = line(benchmark_table(collect([tmp_path])[0]), "a2mim")
    half = 4.3026527 * 0.5 / math.sqrt(3)
    assert (paired["pairs"], paired["difference"]) == (3, pytest.approx(1.5))
    assert (paired["difference_low"], paired["difference_high"]) == pytest.approx((1.5 - half, 1.5 + half))


def test_runs_that_share_a_seed_after_several_pre_trainings_pair_with_nothing(tmp_path):
    for seed in range(2):
        tuned(tmp_path / f"scratch{seed}", metrics={"top1": 60.0 + seed}, seed=seed)
        pre = pretrained(tmp_path / f"pre{seed}", seed=seed)
        tuned(tmp_path / f"a2mim{seed}", metrics={"top1": 62.0 + seed}, seed=0, init=str(pre))
    a2mim = line(benchmark_table(collect([tmp_path])[0]), "a2mim")
    assert (a2mim["n"], a2mim["pairs"], a2mim["difference"]) == (2, 0, 2.0)


def test_seeds_on_a_fraction_of_the_labels_are_one_line(tmp_path):
    """Each seed draws a part of its own, so the digest of what it trained on tells nothing."""
    for method in ("scratch", "a2mim"):
        for seed in range(3):
            name = f"demo-test_resnet-{method}-classification-s{seed}"
            copy_run(name, tmp_path / f"whole-{method}{seed}")
            part = copy_run(name, tmp_path / f"part-{method}{seed}", data={"train_fraction": 0.1})
            edit(part / "data.json", train={"num_images": 10, "digest": f"part {seed}"})
            edit(part / "finished.json", num_train=10)
    copy_pretraining(tmp_path)
    for folders in ([tmp_path], sorted(tmp_path.glob("part*")) + sorted(tmp_path.glob("*pretrain*"))):
        table = benchmark_table(collect(folders)[0])
        parts = table[(table["metric"] == "top1_last") & (table["variant"] == "data.train_fraction=0.1")]
        assert parts["n"].tolist() == [3, 3], "told even where all have the same fraction"
        assert parts["pairs"].tolist() == [0, 3]
        assert table["data"].nunique() == 1
    for part in tmp_path.glob("part*"):  # as runs record it now
        whole = {"num_images": 64 + ("a2mim" in part.name), "digest": "whole"}
        edit(part / "data.json", **{"train before train_fraction": whole})
    table = benchmark_table(collect([tmp_path])[0])
    assert table[table["metric"] == "top1_last"]["n"].tolist() == [3, 3, 3, 3]
    assert table["data"].nunique() == 3, "two different sets, each used in part"


def test_a_detector_on_a_frozen_encoder_is_told_and_compared_with_no_published_number(tmp_path):
    copy_run("demo-test_resnet-scratch-detection-s0", tmp_path / "frozen", freeze="all")
    for number in (0, 1):
        if number:
            copy_run("demo-test_resnet-scratch-detection-s0", tmp_path / "whole")
        table = benchmark_table(collect([tmp_path])[0])
        told = table[table["probe"]]
        assert set(told["variant"]) == {'freeze="all"'}, "told even where all are frozen"
        assert (table["n"] == 1).all()
    rows = collect([tmp_path])[0]
    published = load_published()
    measured = compare_with_published(rows, published)
    lines = measured[(measured["origin"] == "measured") & (measured["task"] == "detection")]
    assert sorted(set(lines["protocol"])) == ["fine-tuned", "frozen encoder"]


def test_a_method_that_nobody_here_knows_has_its_title_column_colour_and_row(tmp_path):
    pre = pretrained(tmp_path / "pre", method="colourful", recipe="colourful-r50")
    edit(pre / "finished.json", method={"name": "colourful", "title": "Colourful MIM", "order": 0})
    tuned(tmp_path / "colourful0", metrics={"top1": 66.0}, init=str(pre))
    tuned(tmp_path / "other0", metrics={"top1": 61.0}, init=str(pretrained(tmp_path / "other", method="another")))
    tuned(tmp_path / "scratch0", metrics={"top1": 60.0})
    rows, _ = collect([tmp_path])
    assert dict(zip(rows["method"], rows["method_place"], strict=True)) == {"scratch": 0, "colourful": 1, "another": 2}
    sheets = {sheet.name: sheet for sheet in all_sheets(rows)}
    summary = sheets["summary"].shown.iloc[0]
    assert (summary["Colourful MIM"], summary["Colourful MIM to scratch"]) == ("66.00, n = 1", "+6.00~")
    assert summary["another"] == "61.00, n = 1"
    assert "Colourful MIM 300 epochs" in set(sheets["classification-resnet"].shown["initialisation"])
    (_, lines), *_ = readable(benchmark_table(rows))
    assert lines["method"].tolist() == ["from scratch", "Colourful MIM 300 epochs", "another 300 epochs"]
    seen = looks(with_labels(rows))
    assert len({look.color for label, look in seen.items() if "300" in label or label == "from scratch"}) == 3
    assert "Colourful MIM 300 epochs" in seen


def test_time_and_throughput_are_of_the_run_and_of_its_pre_training(table):
    a2mim = line(table, "a2mim")
    assert (a2mim["hours"], a2mim["pretrain_hours"], a2mim["images_per_second"]) == (0.5, 0.5, 40.0)
    assert a2mim["unreadable"] == 2, "skipped in pre-training"
    assert line(table, "scratch")["pretrain_hours"] == 0


def test_methods_stand_in_order_with_scratch_first(table):
    methods = table[table["task"] == "classification"]["method"]
    assert methods.tolist() == ["scratch", "simmim", "a2mim"]


def test_people_read_one_line_per_method(table):
    found = dict(readable(table))
    assert list(found) == ["classification: r50, demo", "detection: r50, demo"]
    lines = found["classification: r50, demo"].set_index("method")
    assert lines["top-1 (last epoch)"].to_dict() == {
        "from scratch": "61.67 ± 2.08",
        "SimMIM 100 epochs": "62.00",
        "A2MIM 300 epochs": "67.00 ± 0.71",
    }
    assert lines["to scratch"].to_dict() == {
        "from scratch": "", "SimMIM 100 epochs": "+0.33~", "A2MIM 300 epochs": "+5.33~",
    }  # fmt: skip
    assert lines["n"].to_dict() == {"from scratch": "3", "SimMIM 100 epochs": "1", "A2MIM 300 epochs": "2"}


def test_people_read_the_headline_metrics_and_the_csv_has_all(tmp_path):
    tuned(tmp_path / "a", task="segmentation", metrics={"mIoU": 30.0, "mAcc": 40.0})
    with_names = collect([tmp_path])[0].replace({"metric": {"mIoU_last": "mIoU", "mAcc_last": "mAcc"}})
    table = benchmark_table(with_names)
    assert table["metric"].tolist() == ["mIoU", "mAcc"]
    (_, lines), *_ = readable(table)
    assert "mIoU (last iteration)" in lines
    assert not [name for name in lines if "mAcc" in name]


def test_written_numbers_are_exact_and_writing_again_gives_the_same_bytes(runs, table, tmp_path):
    _, rejected = collect([runs])
    paths = write_table(table, tmp_path / "new" / "demo-net.v1", rejected)
    assert [path.name for path in paths] == ["demo-net.v1.md", "demo-net.v1.csv"]
    before = [path.read_bytes() for path in paths]
    read = pd.read_csv(paths[1], float_precision="round_trip")  # pandas 3.0 rounds by default
    assert read["mean"].tolist() == table["mean"].tolist()
    text = paths[0].read_text()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    assert ["A2MIM 300 epochs", "67.00 ± 0.71", "+5.33~", "2", "0.50", "0.50", "40", "2"] in cells
    assert f"- {runs / 'a2mim2'}: not finished" in text
    write_table(benchmark_table(collect([runs])[0]), tmp_path / "new" / "demo-net.v1", rejected)
    assert [path.read_bytes() for path in paths] == before


def test_the_printed_table_names_the_runs_left_out(runs, table):
    console = Console(file=io.StringIO(), width=160)
    print_table(table, collect([runs])[1], console)
    text = console.file.getvalue()
    assert "67.00 ± 0.71       │ +5.33~" in text
    assert f"not in the table: {runs / 'a2mim2'}: not finished" in text


def test_no_runs_give_an_empty_table_that_can_be_written(tmp_path):
    table = benchmark_table(collect([tmp_path])[0])
    assert table.empty
    paths = write_table(table, tmp_path / "table")
    assert "No finished run" in paths[0].read_text()


def test_the_command_writes_rows_and_tables(runs, tmp_path, capsys):
    assert main(["collect", str(runs), "--output", str(tmp_path / "rows.csv")]) == 0
    printed = capsys.readouterr().out
    assert "9 measurements of 9 runs written" in printed
    assert f"left out: {runs / 'a2mim2'}: not finished" in printed
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 9

    assert main(["tables", str(runs), "-o", str(tmp_path / "tables")]) == 0
    assert "67.00 ± 0.71       │ +5.33~" in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / "tables").glob("summary.*")} == {".md", ".csv", ".tex", ".html"}


@pytest.mark.parametrize("command", ["collect", "tables", "figures", "report", "all"])
@pytest.mark.parametrize(("runs", "code"), [(["nothing"], 3), ([], 2)])
def test_a_command_says_what_is_wrong_with_its_runs(command, runs, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([command, *runs])
    assert stopped.value.code == code
    assert "error" in capsys.readouterr().err.lower()
    assert not list(tmp_path.iterdir())


def test_a_sentence_for_each_task_says_what_is_evidence_and_what_is_not(tmp_path):
    pre, other = pretrained(tmp_path / "pre"), pretrained(tmp_path / "other", method="x")
    for seed, top1 in enumerate(SCRATCH):
        tuned(tmp_path / f"scratch{seed}", metrics={"top1": top1}, seed=seed)
        tuned(tmp_path / f"a2mim{seed}", metrics={"top1": top1 + 1 + seed / 2}, seed=seed, init=str(pre))
        tuned(tmp_path / f"x{seed}", metrics={"top1": 61.0}, seed=seed, init=str(other))
    tuned(tmp_path / "detector0", task="detection", metrics={"box_AP": 19.0})
    tuned(tmp_path / "detector1", task="detection", metrics={"box_AP": 20.0}, init=str(pre))
    tuned(tmp_path / "segmentor", task="segmentation", metrics={"mIoU": 20.0}, init=str(pre))
    table = benchmark_table(collect([tmp_path])[0])
    found = headlines(table)
    assert [str(headline) for headline in found] == [
        "classification, top-1 (last epoch), r50: A2MIM 300 epochs +1.5 [0.3, 2.7] over scratch, 3 seeds; "
        "x 300 epochs -0.7 [-5.8, 4.5] over scratch, 3 seeds: not significant",
        "detection, box AP (last iteration), r50: A2MIM 300 epochs +1.0 over scratch, one seed: no evidence",
        "segmentation, mIoU (last iteration), r50: no finished run from scratch, so nothing to compare",
    ]
    assert [headline.verdict for headline in found] == ["unclear", "unclear", "unclear"]
    assert headlines(table[table["method"] != "x"])[0].verdict == "better"
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    print_headlines(table, console)
    assert console.file.getvalue().count("\n") == 3
    assert write_table(table, tmp_path / "table")[0].read_text().startswith(f"- {found[0]}\n")
    zero = table.assign(difference=table["difference"] * 0 - 0.01)
    assert "A2MIM 300 epochs 0.0 over scratch, one seed" in str(headlines(zero)[1])
    many = pd.concat([table.assign(model=f"net{number}") for number in range(5)])
    assert str(headlines(many)[0]).endswith(
        "of 10 comparisons with scratch better by an interval without zero: 5 (A2MIM 300 epochs of net0, +1.5; "
        "A2MIM 300 epochs of net1, +1.5; "
        "A2MIM 300 epochs of net2, +1.5; A2MIM 300 epochs of net3, +1.5; ...); worse: none; not significant: 5"
    )


def test_the_table_has_intervals_and_marks_what_is_not_significant(tmp_path):
    pre = pretrained(tmp_path / "pre")
    for seed, top1 in enumerate(SCRATCH):
        tuned(tmp_path / f"scratch{seed}", metrics={"top1": top1, "top5": 90.0}, seed=seed)
        better = {"top1": top1 + 1 + seed / 2, "top5": 90.0 + seed}
        tuned(tmp_path / f"a2mim{seed}", metrics=better, seed=seed, init=str(pre))
    (_, lines), *_ = readable(benchmark_table(collect([tmp_path])[0]))
    a2mim = lines.iloc[1]
    assert a2mim["to scratch"] == "+1.50 [+0.26, +2.74]"
    assert a2mim["top-5 (last epoch)"] == "91.00 ± 1.00 (+1.00~)"


@pytest.mark.parametrize("command", ["collect", "tables", "figures", "report"])
def test_a_place_that_cannot_be_written_is_named(runs, command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main([command, str(runs), "--output", str(tmp_path / "file" / "x")])
    assert stopped.value.code == 5
    assert f"{tmp_path / 'file' / 'x'}: cannot be written (" in " ".join(capsys.readouterr().err.split())
