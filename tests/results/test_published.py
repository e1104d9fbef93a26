"""The published numbers: all there, each with a source, contradictions side by side (F59)."""

import shutil

import pandas as pd
import pytest

from engine.errors import DataError
from results.published import FOLDER, load_contradictions, load_published, load_sources

# A2MIM's README, summary table: parameters, supervised, SimMIM, A2MIM.
SUMMARY = {
    "vit_s": (48.8, 79.9, 81.7, 82.1),
    "vit_b": (86.7, 81.8, 83.8, 84.2),
    "vit_l": (304.6, 82.6, 85.6, 86.1),
    "r50": (25.6, 79.8, 79.9, 80.4),
    "r101": (44.5, 81.3, 81.3, 81.9),
    "r152": (60.2, 81.8, 81.9, 82.5),
    "r200": (64.7, 82.1, 82.2, 83.0),
    "convnext_s": (50.2, 83.1, 83.2, 83.7),
    "convnext_b": (88.6, 83.5, 83.6, 84.1),
}
# Its tables of families: architecture, method, epochs of pre-training, top-1.
FAMILIES = [
    ("vit_s", "simmim", 800, 81.7), ("vit_s", "a2mim", 800, 82.1), ("vit_b", "simmim", 800, 83.8),
    ("vit_b", "a2mim", 800, 84.3), ("vit_l", "simmim", 800, 85.6), ("vit_l", "a2mim", 800, 86.1),
    ("r50", "simmim", 300, 79.9), ("r50", "a2mim", 100, 78.8), ("r50", "a2mim", 300, 80.4),
    ("r101", "simmim", 300, 81.3), ("r101", "a2mim", 300, 81.9), ("r152", "simmim", 300, 81.9),
    ("r152", "a2mim", 300, 82.5), ("r200", "simmim", 300, 82.2), ("r200", "a2mim", 300, 83.0),
    ("convnext_s", "simmim", 300, 83.2), ("convnext_s", "a2mim", 300, 83.7), ("convnext_b", "simmim", 300, 83.6),
    ("convnext_b", "a2mim", 300, 84.1),
]  # fmt: skip
TRANSFER = [
    ("detection", "r50", "box_AP", 39.8), ("detection", "r50", "mask_AP", 34.9), ("detection", "vit_b", "box_AP", 49.4),
    ("detection", "vit_b", "mask_AP", 43.5),
    ("segmentation", "r50", "mIoU", 38.3), ("segmentation", "vit_b", "mIoU", 49.0),
]  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return load_published()


def test_every_number_of_the_readmes_summary_is_there(published):
    rows = published[published["source"] == "a2mim-readme-summary"]
    found = {(row.model, row.method): (row.params_m, row.value) for row in rows[rows["metric"] == "top1"].itertuples()}
    expected = {
        (model, method): (size, value)
        for model, (size, *values) in SUMMARY.items()
        for method, value in zip(("scratch", "simmim", "a2mim"), values, strict=True)
    }
    assert found == expected


def test_every_number_of_the_readmes_family_tables_is_there(published):
    rows = published[published["source"] == "a2mim-readme-families"]
    columns = ["model", "method", "pretrain_epochs", "value"]
    assert sorted(map(tuple, rows[columns].to_numpy())) == sorted(FAMILIES)


def test_the_papers_coco_and_ade20k_numbers_are_there(published):
    rows = published[published["source"] == "a2mim-paper-leaderboard"]
    columns = ["task", "model", "metric", "value"]
    found = rows[rows["task"].isin(("detection", "segmentation"))][columns]
    assert sorted(map(tuple, found.to_numpy())) == sorted(TRANSFER)


def test_the_vocabulary_is_consistent(published):
    assert set(published["metric"]) == {"top1", "box_AP", "mask_AP", "mIoU", "mAP", "AP50"}
    assert set(published["protocol"]) == {"fine-tuned", "from scratch", "linear", "knn", "svm"}
    assert set(published["match"]) == {"", "stated", "inferred"}
    assert ((published["match"] == "") == (published["recipe"] == "")).all()
    compared = published[published["recipe"] != ""]
    assert compared["epochs"].notna().all(), "else a shortened run would be compared"
    assert (compared["model"] != "").all()
    assert published["value"].between(0, 100).all()
    assert not published.duplicated([c for c in published.columns if c != "note"]).any()
    one_name = published[published["model"] != ""].groupby("model")["architecture"].nunique()
    assert (one_name == 1).all()


def test_numbers_that_differ_for_the_same_thing_are_marked(published):
    same = ["task", "protocol", "dataset", "architecture", "method", "pretrain_epochs", "printed_recipe", "epochs",
            "test_size", "variant", "metric"]  # fmt: skip
    for key, rows in published.groupby(same, dropna=False):
        if rows["value"].nunique() > 1 and rows["params_m"].fillna(0).round(-1).nunique() == 1:
            assert (rows["contradiction"] != "").all(), key


def test_every_contradiction_and_every_source_is_of_some_number(published):
    assert set(load_contradictions()["id"]) == set(published["contradiction"]) - {""}
    sources = load_sources()
    assert set(sources["key"]) == set(published["source"])
    assert sources["url"].str.startswith("https://").all()
    of_values = load_contradictions().query("kind == 'value'")["id"]
    several = published[published["contradiction"].isin(of_values)].groupby("contradiction")["value"].nunique()
    assert not several[several < 2].index.tolist()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("source", "", "line 3: ViT-S simmim 81.7: no source"),
        ("source", "hearsay", "'hearsay' is not in sources.csv"),
        ("contradiction", "nobody", "'nobody' is not in contradictions.csv"),
        ("value", "", "classification.csv line 3: no value"),
        ("value", "82,1", "line 3: value is '82,1', not a number"),
        ("epochs", "many", "line 3: epochs is 'many', not a number"),
    ],
)
def test_a_number_without_its_facts_is_refused_by_file_and_line(tmp_path, column, value, message):
    folder = shutil.copytree(FOLDER, tmp_path / "published")
    table = pd.read_csv(folder / "classification.csv", dtype=str, keep_default_na=False)
    table.loc[1, column] = value
    table.to_csv(folder / "classification.csv", index=False)
    with pytest.raises(DataError, match=message):
        load_published(folder)


def test_a_file_with_other_columns_is_refused(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "published")
    (folder / "probes.csv").write_text("value,source\n1,me\n")
    with pytest.raises(DataError, match=r"probes\.csv: has the columns value, source"):
        load_published(folder)
