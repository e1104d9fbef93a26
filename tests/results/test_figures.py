"""Figures: what is drawn of which runs, and that it is told apart without colour and the same bytes each time."""

import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from results.figures.cost import accuracy_against_cost
from results.figures.curves import finetuning_curves, pretraining_curves
from results.figures.difference import differences_to_scratch
from results.figures.labels import label_efficiency
from results.figures.lengths import pretraining_lengths
from results.figures.panels import split_panel
from results.figures.style import looks, style, svg
from results.runs.collect import collect, read_runs
from results.runs.curves import curves_from
from results.runs.runfiles import read_metrics
from tests.results.copies import FIXTURE, copy_pretraining, copy_run
from tests.results.runs import IMAGENET, edit, pretrained, tuned
from tests.results.written import figures_of, page_of


def texts(path):
    """Every text in an SVG file."""
    return ["".join(node.itertext()).strip() for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture
def written(everything):
    return {path.name: path for path in (everything / "figures").iterdir()}


def test_everything_the_runs_have_data_for_is_drawn_as_svg_and_png(written):
    names = [
        "differences", "cost-classification", "cost-detection", "cost-segmentation", "curves-classification-demo",
        "curves-classification-linear-probe", "curves-detection-demo", "curves-segmentation-demo",
        "curves-pretraining", "reconstructions-test_resnet",
    ]  # fmt: skip
    assert set(written) == {f"{name}{ending}" for name in names for ending in (".svg", ".png")}
    for name in names:
        with Image.open(written[f"{name}.png"]) as image:
            assert min(image.size) > 300
            darkest, lightest = image.convert("L").getextrema()
            assert (darkest < 80, lightest) == (True, 255)
        assert len(texts(written[f"{name}.svg"])) > 5


def lightness(color):
    """Relative luminance of "#rrggbb", 0 to 1: what remains of it in black and white."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_lines_are_told_apart_without_colour():
    lines = pd.DataFrame({"method_place": [0, 1, 2, 2, 4, 2, 6, 7], "label": list("abcdefgh")})
    found = looks(lines)
    assert len({look.marker for look in found.values()}) == 8
    assert len({str(look.dashes) for look in found.values()}) == 8
    shades = sorted(lightness(found[label].color) for label in "abc")
    assert min(np.diff(shades)) > 0.1
    assert looks(lines[2:5])["c"] == found["c"], "a method looks the same in every figure"
    assert found["d"].color == found["f"].color == found["c"].color, "and has its colour, however long it ran"
    assert lightness(looks(lines[2:5])["d"].color) > 0, "black is the control's alone"


def test_a_difference_has_an_interval_from_three_seeds_on(written):
    found = texts(written["differences.svg"])
    assert [text for text in found if "n = 3, paired" in text] == ["−2.50~ (n = 3, paired)"] * 2
    assert len([text for text in found if "(n = 2)" in text]) == 2, "segmentation has two seeds"
    (drawing,) = differences_to_scratch(collect([FIXTURE])[0])
    bars = [sum(len(lines.get_segments()) for lines in ax.collections) for ax in drawing.figures[0].axes]
    assert bars == [2, 0, 0], "intervals in classification, detection and segmentation"


def test_accuracy_stands_against_all_the_time_it_took(tmp_path):
    tuned(tmp_path / "scratch")
    tuned(tmp_path / "a2mim", init=str(pretrained(tmp_path / "pre")), metrics={"top1": 70.0})
    (drawing,) = accuracy_against_cost(collect([tmp_path])[0])
    points = {c.get_label(): c.lines[0].get_xydata().tolist() for c in drawing.figures[0].axes[0].containers}
    assert points == {"from scratch": [[0.5, 60.0]], "A2MIM 300 epochs": [[1.0, 70.0]]}, "hours, pre-training too"


def test_costs_far_apart_are_written_as_plain_numbers_in_order(tmp_path):
    for number, hours in enumerate((0.2, 1.0, 40.0)):
        edit(tuned(tmp_path / f"run{number}", model=f"net{number}") / "finished.json", seconds=hours * 3600)
    found = read_runs([tmp_path])
    with style():
        (drawing,) = accuracy_against_cost(found.rows)
        drawn = ET.fromstring(svg(drawing.figures[0], drawing.title)).iter("{http://www.w3.org/2000/svg}text")
    shown = ["".join(node.itertext()).strip() for node in drawn]
    assert not [text for text in shown if "$" in text or "\\" in text]
    numbers = [float(text) for text in shown[: shown.index("device-hours, pre-training included")]]
    assert numbers == sorted(numbers)
    assert 4 <= len(numbers) <= 9, "room for each of them"


def test_one_seed_has_no_bars_and_one_evaluation_no_curve(tmp_path):
    for model in ("r50", "r101"):
        tuned(tmp_path / model, model=model)
    (tmp_path / "r101" / "metrics.jsonl").write_text('{"step": 10, "epoch": 3.0, "split": "val", "top1": 60.0}\n')
    found = read_runs([tmp_path])
    assert found.rejected == []
    for drawing in (*accuracy_against_cost(found.rows), *finetuning_curves(found.rows, found.curves)):
        assert "ean" not in drawing.caption
        assert "One seed of each" in drawing.caption
        for ax in drawing.figures[0].axes:
            assert not ax.collections, "neither bars nor shades"
            assert ax.get_title() != "r101", "a dot is no curve"


def test_every_panel_can_have_a_figure_of_its_own():
    rows, _ = collect([FIXTURE])
    (drawing, *_) = accuracy_against_cost(rows, apart=True)
    assert [len(figure.axes) for figure in drawing.figures] == [1, 1]
    assert all(len(figure.legends) == 1 for figure in drawing.figures)
    (differences,) = differences_to_scratch(rows, apart=True)
    assert differences.figures[0].get_figwidth() < 5, "a telephone's width without small print"


def test_the_published_number_is_drawn_only_for_the_same_data_recipe_and_lengths(tmp_path):
    pre = pretrained(tmp_path / "pre")
    common = {"recipe": "rsb-a2", "epochs": 300, "metrics": {"top1": 80.0}}
    tuned(tmp_path / "same", init=str(pre), counts=IMAGENET, **common)
    assert expected_lines(tmp_path) == ["80.4"]
    shutil.rmtree(tmp_path / "same")
    tuned(tmp_path / "other", init=str(pre), **common)
    assert expected_lines(tmp_path) == []


def test_published_numbers_close_together_can_both_be_read(tmp_path):
    common = {"recipe": "rsb-a2", "epochs": 300, "counts": IMAGENET}
    tuned(tmp_path / "scratch", metrics={"top1": 70.0}, **common)
    pre = pretrained(tmp_path / "pre", recipe="simmim-r50-300e", method="simmim")
    tuned(tmp_path / "simmim", init=str(pre), metrics={"top1": 75.0}, **common)
    found = read_runs([tmp_path])
    (drawing,) = finetuning_curves(found.rows, found.curves)
    drawing.figures[0].draw_without_rendering()
    scratch, simmim = drawing.figures[0].axes[0].texts
    assert (scratch.get_text(), simmim.get_text()) == ("79.8", "79.9")
    assert not scratch.get_window_extent().overlaps(simmim.get_window_extent())


def test_a_legend_stays_inside_its_figure_and_a_difference_names_its_method(tmp_path):
    for length in (4, 300):
        for method in ("a2mim", "simmim"):
            pre = pretrained(tmp_path / f"pre-{method}-{length}", epochs=length, method=method, model=f"net{length}")
            tuned(tmp_path / f"{method}-{length}", model=f"net{length}", recipe="m" * 60, init=str(pre))
        tuned(tmp_path / f"scratch-{length}", model=f"net{length}", recipe="m" * 60)
    found = read_runs([tmp_path])
    rows = found.rows
    (drawing,) = pretraining_curves(rows, found.curves)
    drawing.figures[0].draw_without_rendering()
    (legend,) = drawing.figures[0].legends
    assert len(legend.get_texts()) == 4
    assert legend.get_window_extent().width <= drawing.figures[0].bbox.width
    rows["recipe"] = rows["recipe"].mask(rows["model"] == "net4", "n" * 120)
    (drawing,) = differences_to_scratch(rows)
    names = [text.get_text() for text in drawing.figures[0].axes[0].texts]
    assert names[0].startswith("net4, nnnn")
    assert names[0].endswith("n…"), "the experiment, once for all its starts"
    assert [name for name in names if "epochs" in name] == [
        "SimMIM 4 epochs", "A2MIM 4 epochs", "SimMIM 300 epochs", "A2MIM 300 epochs",
    ]  # fmt: skip


def expected_lines(runs):
    found = read_runs([runs])
    (drawing,) = finetuning_curves(found.rows, found.curves)
    return [text.get_text() for text in drawing.figures[0].axes[0].texts]


def test_of_a_long_training_the_later_half_is_shown_with_the_published_number_in_view(tmp_path):
    run = tuned(tmp_path / "run", recipe="rsb-a2", epochs=300, counts=IMAGENET, metrics={"top1": 79.0})
    values = [10, 40, 60, 70, 75, 77, 78, 78.5, 78.8, 79.0]
    lines = [f'{{"step": {i}, "epoch": {i * 30}, "split": "val", "top1": {v}}}' for i, v in enumerate(values, start=1)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = read_runs([tmp_path])
    (drawing,) = finetuning_curves(found.rows, found.curves)
    (ax,) = drawing.figures[0].axes
    bottom, top = ax.get_ylim()
    assert 74 < bottom < 75, "reached half way"
    assert 79.8 < top < 81, "published"
    assert 140 < ax.get_xlim()[0] < 150


def test_runs_with_several_shares_of_the_labels_give_the_label_efficiency(tmp_path):
    copy_pretraining(tmp_path)
    for method in ("scratch", "a2mim"):
        for seed in (0, 1):
            for share in (0.1, 1.0):
                name = f"demo-test_resnet-{method}-classification-s{seed}"
                copy_run(name, tmp_path / f"{method}-{seed}-{share}", data={"train_fraction": share})
    (drawing,) = label_efficiency(collect([tmp_path])[0])
    (ax,) = drawing.figures[0].axes
    assert [line.get_xdata().tolist() for line in ax.containers[0].lines[:1]] == [[10.0, 100.0]]
    assert [container.get_label() for container in ax.containers] == ["from scratch", "A2MIM 4 epochs"]


def test_a_method_with_several_lengths_gives_what_each_changed(tmp_path):
    for seed in range(3):
        tuned(tmp_path / f"scratch-{seed}", seed=seed, metrics={"top1": 50.0 + seed})
        for epochs in (2, 32, 8):
            before = str(pretrained(tmp_path / f"pre-{epochs}-{seed}", epochs=epochs, seed=seed))
            reached = {"top1": 50.0 + seed * (2 if epochs == 8 else 1) + epochs}
            tuned(tmp_path / f"a2mim-{epochs}-{seed}", init=before, seed=seed, metrics=reached)
    rows, _ = collect([tmp_path])
    (drawing,) = pretraining_lengths(rows)
    (ax,) = drawing.figures[0].axes
    (line,) = ax.containers
    assert line.get_label() == "A2MIM"
    assert line.lines[0].get_xydata().tolist() == [[2, 2], [8, 9], [32, 32]], "the shortest first"
    (bars,) = line.lines[2]
    half = [(end[1] - start[1]) / 2 for start, end in bars.get_segments()]
    assert half == pytest.approx([0, 2.484, 0], abs=1e-3), "paired: 4.303 standard errors of differences 8, 9, 10"
    assert not list(pretraining_lengths(rows[~rows["pretrain_epochs"].isin([8, 32])]))
    other = rows[~rows["pretrain_epochs"].isin([8, 32])].assign(variant="epochs=9")
    (drawing,) = pretraining_lengths(pd.concat([rows, other]))
    assert len(drawing.figures[0].axes) == 1, "and a setting with one length has no panel: a dot is no curve"


def test_a_panel_of_pre_training_is_cut_into_its_pictures():
    with Image.open(sorted(FIXTURE.glob("*a2mim-pretrain*/panels/epoch_0004.png"))[0]) as image:
        panel = np.asarray(image.convert("RGB"))
    pictures = split_panel(panel)
    original, masked, prediction, composite = pictures.transpose(1, 0, 2, 3, 4)
    assert pictures.shape == (8, 4, 64, 64, 3)
    hidden = (original != composite).any(-1)
    assert 0.3 < hidden.mean() < 0.7
    assert (composite[hidden] == prediction[hidden]).all()
    assert (masked == original).all(-1)[~hidden].all()
    assert split_panel(panel[:, :-1]) is None


def test_curves_keep_their_ends():
    lines = [{"step": i, "epoch": i / 100, "split": "train", "loss": i} for i in range(1000)]
    lines += [{"step": i, "epoch": i, "split": "val", "top1": i / 10} for i in range(1000)]
    curves = curves_from(lines, points=10)
    assert curves["val"]["epoch"] == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert curves["val"]["top1"][-1] == 99.9, "an evaluation is shown as it was"
    assert curves["train"]["loss"][0] == np.mean(range(100)), "training is averaged"


def test_a_training_value_that_is_not_finite_leaves_a_gap(tmp_path):
    for seed, number in enumerate(("NaN", "1e999", "-Infinity", "9" * 400)):
        run = tuned(tmp_path / f"run{seed}", seed=seed)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(f'{{"step": 11, "epoch": 3.1, "split": "train", "loss": {number}}}\n')
        assert curves_from(read_metrics(run))["train"]["loss"] == [0.25, None]
    page_of(tmp_path, tmp_path / "report.html")


def test_without_runs_there_are_no_figures(tmp_path):
    assert figures_of(tmp_path, tmp_path / "figures") == []


def test_the_last_bit_of_a_place_does_not_name_what_is_there():
    def drawn(left):
        with style():
            figure = Figure(figsize=(3, 2))
            figure.add_axes((left, 0.1, 0.8, 0.8)).plot([1, 2, 3], [1, 2, 1], "o-")
        return svg(figure, "title")

    assert drawn(0.1) == drawn(0.1 + 1e-15)
    assert drawn(0.1) != drawn(0.15)
