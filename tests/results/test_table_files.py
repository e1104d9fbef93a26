"""The files of tables: from real run folders, the same bytes every time, and text from run folders harmless in all."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from results.runs.collect import COLUMNS, collect
from results.tables.files import html, latex, markdown
from results.tables.sheets import Sheet
from tests.helpers import ROOT

FIXTURE = ROOT / "tests" / "data" / "runs"
SHEETS = {"summary", "classification-resnet", "classification-convnext", "classification-vit", "classification-swin",
"coco", "ade20k", "cost", "probes", "contradictions"}  # fmt: skip
HOSTILE = '<script>alert("1")</script> & | 50% $x_1$ ~^{} \\input{x} `code`'


@pytest.fixture
def written(everything):
    return everything / "tables"


def test_every_table_is_there_in_every_format(written):
    found = {path.name for path in written.iterdir()}
    assert found == {f"{name}.{kind}" for name in SHEETS for kind in ("md", "csv", "tex", "html")} | {
        "results.csv", "tables.md",
    }  # fmt: skip


def test_the_rows_of_real_runs_have_every_column(written):
    rows = pd.read_csv(written / "results.csv")
    assert tuple(rows.columns) == COLUMNS
    assert set(rows["task"]) == {"pretrain", "classification", "detection", "segmentation"}
    tuned = rows[rows["task"] != "pretrain"]
    assert set(tuned["method"]) == {"scratch", "simmim", "a2mim"}
    always = ["dataset", "data", "model", "recipe", "epochs", "seed", "value", "seconds", "devices", "device",
              "images_per_second", "peak_memory_bytes", "config_hash", "commit"]  # fmt: skip
    assert rows[always].notna().all().all()
    assert (tuned.loc[tuned["method"] != "scratch", "pretrain_epochs"] == 4).all()
    assert set(rows.loc[rows["task"] == "detection", "framework"]) == {"torchvision"}
    of_networks = rows[(rows["task"] == "classification") & ~rows["probe"]]
    assert set(rows.loc[rows["probe"], "recipe"]) == {"linear-probe"}
    assert (of_networks["parameters"] > 100_000).all()
    assert rows.loc[rows["probe"], "parameters"].isna().all()
    assert set(of_networks["seed"]) == {0, 1, 2}


def test_the_numbers_of_real_runs_reach_their_tables(written):
    finals = [
        json.loads((run / "finished.json").read_text())["metrics"]["box_AP"]
        for run in sorted(FIXTURE.glob("*-scratch-detection-s*"))
    ]
    coco = pd.read_csv(written / "coco.csv")
    mine = coco[(coco["origin"] == "measured") & (coco["method"] == "scratch") & (coco["metric"] == "box_AP")]
    assert mine["mean"].tolist() == finals
    probes = pd.read_csv(written / "probes.csv")
    assert (probes["origin"] == "measured").sum() == 3
    summary = pd.read_csv(written / "summary.csv")
    assert summary[summary["origin"] == "measured"]["n"].tolist() == [3, 3, 3]
    assert summary[summary["origin"] == "measured"]["to_published"].isna().all(), "no demo is set beside ImageNet"


def test_the_run_that_never_started_is_named_below(written):
    text = (written / "tables.md").read_text()
    assert f"- {written.parent / 'demo-test_resnet-late'}: not finished" in text


def test_the_fixture_names_no_place_of_the_machine_it_was_made_on():
    for path in FIXTURE.rglob("*.json*"):
        text = path.read_text()
        assert not any(place in text for place in ("/tmp/", "/home/", "/root/", str(ROOT))), path
    assert sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()) < 1e6


def test_the_readers_of_every_format_take_the_page(written):
    for path in written.glob("*.html"):
        tags = Tags()
        tags.feed(path.read_text())
        assert tags.count.get("table") == 1
        assert not tags.links, "no network"
    for path in written.glob("*.csv"):
        assert len(pd.read_csv(path).columns) > 5
    for path in written.glob("*.tex"):
        text = path.read_text()
        assert text.count("\\begin{") == text.count("\\end{")
        rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
        assert len({line.replace("\\&", "").count("&") for line in rows if " & " in line}) == 1, path.name


class Tags(HTMLParser):
    """Counts tags and collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.count: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value for name, value in attributes if name in ("src", "href") and value]


@pytest.fixture
def hostile():
    shown = pd.DataFrame({"name": [HOSTILE], HOSTILE: ["1.0 ± 2.0"]})
    return Sheet("hostile", HOSTILE, shown, shown, (HOSTILE,))


def test_text_is_harmless_in_html(hostile):
    page = html(hostile)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5, "title, heading of the page, head of the column, cell, note"
    assert "&amp;lt;" not in page


def test_text_stays_in_its_cell_in_markdown(hostile):
    text = markdown(hostile)
    assert "<script" not in text
    header, _, row = text.splitlines()[2:5]
    assert header.replace("\\|", "").count("|") == row.replace("\\|", "").count("|") == 3


def test_text_is_no_command_in_latex(hostile):
    table = latex(hostile)
    row = next(line for line in table.splitlines() if "alert" in line and line.endswith("\\\\") and "1.0" in line)
    assert r"\textbackslash{}input\{x\}" in row
    assert r"\& | 50\% \$x\_1\$ \textasciitilde{}\textasciicircum{}\{\}" in row
    assert r"1.0 $\pm$ 2.0" in row
    notes = [line for line in table.splitlines() if line.startswith("%")]
    assert len(notes) == 2


def test_a_long_table_may_break_over_pages():
    shown = pd.DataFrame({"a": ["x"] * 100})
    assert "\\begin{longtable}" in latex(Sheet("long", "Long", shown, shown))


def test_tables_of_another_place_say_that_place(tmp_path):
    moved = Path(shutil.copytree(FIXTURE, tmp_path / "moved"))
    rows, _ = collect([moved])
    assert rows["run"].str.startswith(str(moved)).all()
    assert rows[rows["method"] == "a2mim"]["pretrain_recipe"].notna().all(), "runs find the runs they started from"
