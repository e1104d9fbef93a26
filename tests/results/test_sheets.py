"""Measured beside published: what is compared, what is not, what stands in which table."""

import math

import pytest

from results.published import load_published
from results.runs.collect import collect
from results.tables.comparison import compare_with_published
from results.tables.files import all_sheets
from results.tables.sheets import family
from tests.results.runs import IMAGENET, Data, edit, pretrained, tuned

RSB_A2 = {"recipe": "rsb-a2", "epochs": 300, "counts": IMAGENET}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """ResNet-50 by RSB A2 on ImageNet: three seeds from scratch and after A2MIM; a demo, a probe and a detector."""
    root = tmp_path_factory.mktemp("runs")
    pre, short = pretrained(root / "pre"), pretrained(root / "short", epochs=100)
    paper, small = (
        pretrained(root / "paper", recipe="a2mim-r50-300e-paper"),
        pretrained(root / "small", num_images=9, data=Data(root="small")),
    )
    for seed in range(3):
        tuned(root / f"scratch{seed}", metrics={"top1": 79.5 + seed / 10}, seed=seed, **RSB_A2)
        tuned(root / f"a2mim{seed}", metrics={"top1": 80.0 + seed / 5}, seed=seed, init=str(pre), **RSB_A2)
    tuned(root / "short0", metrics={"top1": 79.0}, init=str(short), **RSB_A2)
    tuned(root / "paper0", metrics={"top1": 79.1}, init=str(paper), **RSB_A2)
    tuned(root / "small0", metrics={"top1": 79.2}, init=str(small), seed=9, **RSB_A2)
    tuned(root / "quick", metrics={"top1": 70.0}, **{**RSB_A2, "epochs": 10})
    tuned(root / "demo", metrics={"top1": 30.0}, counts={"num_train": 800, "num_val": 200, "num_classes": 10})
    coco = {"num_train": 117266, "num_val": 5000}
    tuned(root / "coco", task="detection", recipe="mask-rcnn-c4-2x", metrics={"box_AP": 39.0, "mask_AP": 34.0},
          epochs=180_000, init=str(pre), counts=coco)  # fmt: skip
    tuned(root / "ade", task="segmentation", metrics={"mIoU": 38.0}, init=str(pre),
          counts={"num_train": 20210, "num_val": 2000})  # fmt: skip
    return root


@pytest.fixture(scope="module")
def comparison(runs):
    return compare_with_published(collect([runs])[0], load_published())


@pytest.fixture(scope="module")
def sheets(runs):
    return {sheet.name: sheet for sheet in all_sheets(collect([runs])[0])}


def ours(comparison, **wanted):
    found = comparison[comparison["origin"] == "measured"]
    for name, value in wanted.items():
        found = found[found[name] == value]
    return found.squeeze()


def test_the_same_training_on_the_same_data_is_compared(comparison):
    a2mim = ours(comparison, recipe="rsb-a2", method="a2mim", n=3)
    assert (a2mim["published"], a2mim["source"], a2mim["match"]) == (80.4, "a2mim-readme-summary", "stated")
    assert a2mim["to_published"] == pytest.approx(80.2 - 80.4)
    detector = ours(comparison, task="detection", metric="mask_AP")
    assert (detector["published"], detector["match"]) == (34.9, "inferred")


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "demo", "task": "classification"},  # other images and recipe
        {"recipe": "rsb-a2", "epochs": 10},
        {"recipe": "rsb-a2", "pretrain_epochs": 100},
        {"recipe": "rsb-a2", "pretrain_recipe": "a2mim-r50-300e-paper"},
        {"recipe": "rsb-a2", "pretrain_dataset": "9 images"},
        {"task": "segmentation"},  # of which nobody says with what head
    ],
)
def test_other_training_or_data_is_not_compared(comparison, other):
    line = ours(comparison, **other)
    assert not line.empty
    assert math.isnan(line["published"])
    assert math.isnan(line["to_published"])


def test_measured_and_published_stand_in_columns_of_their_own(comparison):
    published = comparison[comparison["origin"] == "published"]
    assert published[["mean", "std", "n", "to_published"]].isna().all().all()
    assert len(published) == len(load_published())
    assert (published["source"] != "").all()


def test_the_summary_has_every_published_architecture_and_ours_beside_it(sheets):
    shown = sheets["summary"].shown
    assert list(shown["architecture"].unique()) == [
        "ResNet-50", "ViT-S", "ViT-B", "ViT-L", "ResNet-101", "ResNet-152", "ResNet-200", "ConvNeXt-S", "ConvNeXt-B",
    ], "measured here first"  # fmt: skip
    r50 = shown[(shown["architecture"] == "ResNet-50") & shown["recipe"].str.contains("epochs=300")].squeeze()
    assert r50["from scratch"] == "79.60 ± 0.10, n = 3"
    assert (r50["from scratch published"], r50["from scratch difference"]) == ("79.8?", "-0.20")
    assert (r50["A2MIM"], r50["A2MIM published"], r50["A2MIM difference"]) == ("80.20 ± 0.20, n = 3", "80.4", "-0.20")
    assert r50["SimMIM published"] == "79.9"
    assert r50["A2MIM to scratch"] == "+0.60 [+0.35, +0.85]"
    assert "SimMIM" not in shown, "nobody measured it, so there is no column for it"


def test_what_cannot_be_compared_stands_alone_in_the_summary(sheets):
    shown = sheets["summary"].shown
    demo = shown[shown["data"] == "800 + 200 images"].squeeze()
    assert demo["from scratch"] == "30.00, n = 1"
    assert (demo[[name for name in shown if "published" in name or "difference" in name]] == "").all()
    vit = shown[shown["architecture"] == "ViT-B"].squeeze()
    assert (vit["from scratch"], vit["from scratch published"], vit["A2MIM published"]) == ("", "81.8", "84.2*")


def test_a_family_shows_intervals_epochs_and_every_source(sheets):
    shown = sheets["classification-resnet"].shown
    mine = shown[shown["source"] == "measured here"]
    a2mim = mine[mine["initialisation"].str.contains("300 epochs") & (mine["n"] == "3")].squeeze()
    assert (a2mim["epochs"], a2mim["n"]) == ("300", "3")
    assert a2mim["top-1 interval"] == "[79.70, 80.70]"
    assert a2mim["top-1 to scratch"] == "+0.60 [+0.35, +0.85]"
    others = set(shown["source"])
    assert {"a2mim-readme-summary", "a2mim-readme-families", "a2mim-issue-2", "timm-results"} <= others
    assert all(any(note.startswith(f"{key}: ") for note in sheets["classification-resnet"].notes)
               for key in others - {"measured here"})  # fmt: skip


def test_coco_and_ade20k_have_ours_and_the_papers(sheets):
    coco = sheets["coco"].shown
    mine = coco[coco["source"] == "measured here"].squeeze()
    assert (mine["box AP (last iteration)"], mine["box AP published"], mine["box AP measured - published"]) == (
        "39.00", "39.8?*", "-0.80",
    )  # fmt: skip
    ade = sheets["ade20k"].shown
    assert list(ade["mIoU published"]) == ["", "38.3", "49.0?"]
    assert list(ade["mIoU (last iteration)"]) == ["38.00", "", ""]


def test_costs_are_device_hours_of_every_kind_of_run(sheets):
    data = sheets["cost"].data
    pre = data[data["task"] == "pretrain"]
    assert sorted(pre["epochs"]) == [100, 300, 300, 300]
    assert (data["device_hours"] == 0.5).all(), "half an hour on one device"
    assert data[data["recipe"] == "rsb-a2"]["n"].sum() == 10


def test_contradictions_stand_side_by_side_with_their_sources(sheets):
    sheet = sheets["contradictions"]
    vit = sheet.data[sheet.data["contradiction"] == "vit_b-a2mim"]
    assert set(vit["value"]) == {84.2, 84.3, 84.18}
    assert (sheet.shown["source"] != "").all()
    assert (sheet.shown["published"] != "").all()


def test_two_data_sets_of_the_same_size_are_told_apart(tmp_path):
    for name, size in (("a", 1), ("b", 2)):
        run = tuned(tmp_path / name, counts={"num_train": 8, "num_val": 4, "num_classes": 2})
        edit(run / "data.json", train={"num_images": 8, "digest": f"{size}"})
    shown = {sheet.name: sheet.shown for sheet in all_sheets(collect([tmp_path])[0])}
    for name in ("summary", "classification-resnet", "cost"):
        data = [text for text in shown[name]["data"] if text.startswith("8 + 4 images (")]
        assert len(set(data)) == 2, name


def test_no_runs_leave_the_published_numbers(tmp_path):
    sheets = {sheet.name: sheet for sheet in all_sheets(collect([tmp_path])[0])}
    assert len(sheets["summary"].shown) == 9
    assert "A2MIM" not in sheets["summary"].shown, "the column of what was measured"
    assert len(sheets["cost"].shown) == 0


@pytest.mark.parametrize(
    ("model", "name"),
    [("r50", "ResNet"), ("resnet50d", "ResNet"), ("convnext_tiny", "ConvNeXt"), ("deit_s", "ViT"), ("swin_t", "Swin"),
     ("efficientnet_b0", "efficientnet"), ("50x", "50x")],
)  # fmt: skip
def test_a_timm_name_has_its_family(model, name):
    assert family(model) == name
