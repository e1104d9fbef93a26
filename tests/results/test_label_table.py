"""Shares of the labels side by side: means, differences with intervals, and the command that prints them."""

from dataclasses import dataclass, field

from PIL import Image

from results.__main__ import main
from results.figures.difference import differences_to_scratch
from results.figures.labels import label_efficiency
from results.runs.collect import collect
from results.tables.headlines import headlines
from results.tables.labels import label_sheet, label_table, split_variant
from results.tables.rows import benchmark_table
from tests.results import runs as made
from tests.results.runs import Data, pretrained, tuned

SHARES = {0.1: ([40.0, 42.0, 44.0], [50.0, 53.0, 56.0]), 1.0: ([90.0, 91.0, 92.0], [90.5, 90.5, 92.5])}


@dataclass(frozen=True, kw_only=True)
class Part(Data):
    train_fraction: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Tuning(made.Tuning):
    data: Part = field(default_factory=Part)


def test_each_share_is_a_column_and_each_start_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(made, "Tuning", Tuning)
    runs = tmp_path / "runs"
    parent = str(pretrained(runs / "a2mim"))
    for share, (scratch, after) in SHARES.items():
        for seed in range(3):
            common = {"seed": seed, "data": Part(train_fraction=share)}
            tuned(runs / f"scratch-{share}-{seed}", metrics={"top1": scratch[seed]}, **common)
            tuned(runs / f"after-{share}-{seed}", metrics={"top1": after[seed]}, init=parent, **common)
    assert main(["labels", str(runs), "--output", str(tmp_path / "out" / "table.md")]) == 0
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert rows[0][1:] == ["start", "10 %", "100 %", "n"]
    assert rows[2][1:] == ["from scratch", "42.0", "91.0", "3"]
    assert rows[3][1].startswith("A2MIM")
    assert rows[3][2] == "53.0 (+11.00 [+8.52, +13.48])", "paired by seed"
    assert rows[3][3].startswith("91.2 (+0.17 [") and rows[3][3].endswith("~)")
    assert (tmp_path / "out" / "table.md").read_text() == said


def test_frozen_encoders_stand_beside_fine_tuning_in_table_and_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "Tuning", Tuning)
    parent = str(pretrained(tmp_path / "a2mim"))
    for share, number in ((0.1, 6.0), (1.0, 60.0)):
        for place, init in enumerate(("none", parent)):
            common = {"init": init, "data": Part(train_fraction=share)}
            tuned(tmp_path / f"tuned-{share}-{place}", metrics={"top1": number}, **common)
            frozen = tmp_path / f"knn-{share}-{place}"
            tuned(frozen, task="evaluation", recipe="knn", metrics={"top1": number + 3}, **common)
    tuned(tmp_path / "detector", task="detection", metrics={"box_AP": 20.0})
    rows = collect([tmp_path])[0]
    sheet = label_sheet(benchmark_table(rows))
    assert sheet.shown["network"].tolist() == ["r50, demo"] * 2 + ["r50, knn"] * 2
    assert sheet.shown["10 %"].tolist() == ["6.0", "6.0 (+0.00~)", "9.0", "9.0 (+0.00~)"]
    assert any("measure the frozen encoder" in note for note in sheet.notes)
    assert sheet.title == "By share of the labels: top-1 (classification: last epoch; evaluation: last epoch), %", (
        "the protocol in the label"
    )
    (drawing,) = label_efficiency(rows)
    beside = drawing.figures[0].axes
    assert [ax.get_title() for ax in beside] == ["r50, demo", "r50, knn, frozen encoder"]
    assert beside[0].get_ylim() == beside[1].get_ylim()
    without = rows[rows["task"] == "detection"]
    assert label_sheet(benchmark_table(without)) is None


def test_a_share_is_told_from_other_settings():
    assert split_variant("") == (1.0, "")
    assert split_variant("epochs=2 data.train_fraction=0.05") == (0.05, "epochs=2")


def test_two_data_sets_have_lines_of_their_own_by_the_names_of_their_folders(tmp_path):
    for place, root in enumerate(("data/birds", "data/my cars", "old/birds", "scenes/imagenet")):
        images = tmp_path / f"images{place}"
        images.mkdir()
        Image.new("RGB", (8, 8)).save(images / f"{place}.png")
        data = Data(root=root)
        parent = tmp_path / f"a2mim{place}"
        pretrained(parent, data=data, num_images=place + 1)
        for init in ("none", str(parent)):
            folder = tmp_path / f"{place}-{init == 'none'}"
            tuned(folder, images=images, data=data, init=init, metrics={"top1": 50.0 + place})
    rows = collect([tmp_path])[0]
    table = benchmark_table(rows)
    found = label_table(table)
    names = dict(zip(found["network"], found["100 %"], strict=True))
    birds = sorted(name for name in names if "birds" in name)
    assert [name.partition("(")[0] for name in birds] == ["r50, on birds"] * 2, "two of one name have a digest too"
    assert names["r50, on my_cars"] == "51.0 (+0.00~)" and names["r50, on scenes/imagenet"] == "53.0 (+0.00~)"
    clear = found[~found["network"].isin(birds)]
    assert clear["start"].nunique() == 2, "that a network was pre-trained on the same images is not told"
    assert {str(said).partition(", r50, ")[2].partition(":")[0] for said in headlines(table)} == {
        name.removeprefix("r50, ") for name in names
    }
    figure = differences_to_scratch(rows)
    assert "r50, on my_cars" in {text.get_text() for drawing in figure for text in drawing.figures[0].axes[0].texts}


def test_pre_training_on_other_images_is_told(tmp_path):
    parents = [
        pretrained(tmp_path / root, data=Data(root=root), num_images=place + 1) for place, root in enumerate("ab")
    ]
    for parent in parents:
        tuned(tmp_path / f"on-b-from-{parent.name}", data=Data(root="b"), init=str(parent))
    found = label_table(benchmark_table(collect([tmp_path])[0]))
    assert found["start"].tolist() == ["A2MIM 300 epochs", "A2MIM 300 epochs on a"]
