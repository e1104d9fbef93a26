"""Every command and block of Python of README and docs, carried out: in the order of the pages, on small data, short.

How each kind is made short is a table (shortened.py), and so is which data and runs the pages speak of (places.py). A
new command is found and run by itself, or fails here by name until the tables say how; what cannot be run where tests
run is listed there with the reason, and as much of it is run as can be.
"""

import json
from pathlib import Path

import pytest

from tests import forked
from tests.backbones.file_server import serving
from tests.docs.pages import PAGES, by_make, said
from tests.docs.reader import Reader
from tests.docs.shortened import UNABLE, unable
from tests.helpers import ROOT

ELSEWHERE = {
    "docs/adding-a-method.md": "tests/test_adding.py",
    "docs/adding-a-task.md": "tests/test_adding.py",
    "docs/own-segmentation.md": "tests/segmentation/test_use.py",
}
"""Worked examples -> the test that does all that the page says and looks at what comes out."""
PYTHON_ELSEWHERE = {
    "docs/backbones.md": "tests/backbones/test_any_backbone.py",
    "docs/export.md": "tests/backbones/test_export_docs.py",
    "docs/notebook.md": "tests/analysis/test_notebook.py",
}
"""Likewise of their Python alone."""

ALL = [one for page in PAGES if page not in ELSEWHERE for one in said(page)]
HERE = {(one.words, one.code): one for one in reversed(ALL) if not (one.page in PYTHON_ELSEWHERE and one.code)}
"""Each once, on the first page that has it."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    forked.prepare()
    reader = Reader(tmp_path_factory.mktemp("reader"))
    with serving(reader.places["server"]) as server:
        reader.url = server.url
        yield reader


@pytest.mark.parametrize("one", sorted(HERE.values(), key=ALL.index), ids=str)
def test_it_runs(one, reader):
    cannot = unable(one.words)
    if cannot and cannot.instead is None:
        pytest.skip(cannot.reason)
    code, printed = reader.outcome(one)
    if cannot and cannot.says:
        assert (code, cannot.says in printed) == (cannot.code, True), printed
    else:
        assert code == 0, printed[-3000:]


def test_pre_training_goes_on_from_published_weights(reader):
    one = next(one for one in said("docs/weights.md") if one.words[2:4] == ("pretrain", "own"))
    assert reader.do(one)[0] == 0
    run = reader.folder / "weights" / "runs" / "mine"
    record = json.loads((run / "initialisation.json").read_text())
    assert (record["source"], record["kept"]) == ("released:a2mim-r50-300e", ["token", "decoder"])
    assert record["description"]["epochs"] == 300
    assert json.loads((run / "finished.json").read_text())["method"]["title"] == "A2MIM from A2MIM (released)"


def test_nothing_is_listed_that_no_page_says():
    made = [inner for one in ALL if one.words[:2] == ("make", "benchmark") for inner in by_make(one.words)]
    texts = [" ".join(words) for words in (*(one.words for one in ALL), *made)]
    assert [entry.start for entry in UNABLE if not any(text.startswith(entry.start) for text in texts)] == []


@pytest.mark.parametrize(("page", "test"), [*ELSEWHERE.items(), *PYTHON_ELSEWHERE.items()])
def test_the_test_of_an_example_reads_its_page(page, test):
    assert Path(page).stem in (ROOT / test).read_text()
