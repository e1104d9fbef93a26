"""The page: complete, the same bytes each time, and harmless whatever a run folder says."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from results.page.pictures import by_method
from results.page.runs import called, command, without_folders
from results.published import load_sources
from results.runs.collect import collect
from tests.helpers import run_module
from tests.results.copies import FIXTURE, copy_run
from tests.results.runs import edit, pretrained, tuned
from tests.results.written import page_of

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """What a browser finds in a page: elements with their attributes, in order, and the text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open, self.misnested = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.misnested.append((tag, self.getpos()))

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag, name):
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


@pytest.fixture(scope="module")
def page(everything):
    return everything / "report.html"


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page.read_text())


def test_the_page_holds_every_run_with_configuration_environment_curves_and_pictures(page, parsed):
    rows, rejected = collect([FIXTURE])
    text = "".join(parsed.text)
    assert parsed.misnested == []
    assert len([1 for tag, found in parsed.elements if (tag, found.get("class")) == ("details", "run")]) == 23
    for run in rows["run"].unique():
        stored = json.loads((Path(run) / "config.json").read_text())
        assert Path(run).name in text
        assert f"batch_size = {stored['config']['batch_size']}" in text
        assert json.loads((Path(run) / "environment.json").read_text())["git_commit"] in text
    assert "demo-test_resnet-late" in text
    assert rejected[0].reason in text
    curves = json.loads(re.search(r'id="curves">(.*?)</script>', page.read_text())[1])
    assert len(curves) == 23
    assert all(len(columns["epoch"]) == len(values) for run in curves for columns in run["splits"].values()
               for values in columns.values())  # fmt: skip
    assert {run["label"] for run in curves if run["experiment"] == "detection: test_resnet, demo"} == {
        "from scratch, seed 0", "SimMIM 4 epochs, seed 0", "A2MIM 4 epochs, seed 0",
    }  # fmt: skip
    assert len([source for source in parsed.all("img", "src") if source.startswith("data:image/webp;base64,")]) >= 4


def test_the_page_needs_nothing_else_and_its_links_lead_to_the_run_folders(page, parsed):
    assert all(source.startswith("data:") for source in parsed.all("img", "src"))
    assert parsed.all("link", "href") == ["data:,"]
    assert [found for tag, found in parsed.elements if tag == "script" and "src" in found] == []
    assert "url(http" not in page.read_text()
    links = [link for link in parsed.all("a", "href") if not link.startswith("#")]
    assert len(links) > 23
    sources = {link for link in links if link.startswith("https://")}
    assert sources == set(filter(None, load_sources()["url"])) & sources
    assert len(sources) > 5, "where published numbers stand"
    assert all((page.parent / unquote(link)).exists() for link in set(links) - sources)
    ids = [found["id"] for _, found in parsed.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in parsed.all("a", "href") if link.startswith("#")} <= set(ids)


def test_the_same_runs_elsewhere_give_the_same_bytes(tmp_path, everything):
    """Tables, figures and page, by another process with other ideas of order and time."""
    second = tmp_path / "runs"
    shutil.copytree(FIXTURE, second)
    done = run_module("results", "all", str(second), timeout=300, PYTHONHASHSEED="1", TZ="Asia/Tokyo")
    assert done.returncode == 0, done.stderr
    assert "two seeds: no evidence" in done.stdout.splitlines()[-1], "the sentences come last"
    written = [path for path in everything.rglob("*") if path.is_file()]
    assert len(written) > 80
    for path in written:
        again = (second / path.relative_to(everything)).read_bytes()
        assert again.replace(str(second).encode(), str(everything).encode()) == path.read_bytes(), path
    assert str(everything) not in (everything / "report.html").read_text(), "nothing of this machine"


HOSTILE = "<script>alert(1)</script>\"'&</style>{{ 7 * 7 }}"


def test_text_from_run_folders_stays_text(tmp_path):
    runs = tmp_path / "<img src=x onerror=alert(1)>"
    tuned(runs / "javascript:alert(1)", model=HOSTILE, recipe=HOSTILE, metrics={HOSTILE: 20.0, "top1": 10.0})
    pre = pretrained(runs / "pre", method=HOSTILE)
    tuned(runs / "tuned", init=str(pre), model=HOSTILE, recipe=HOSTILE)
    Image.new("RGB", (30, 20), "red").save(_made(pre / "panels") / "epoch_0001.png")
    Image.new("RGB", (30, 20), "red").save(pre / "panels" / '"><script>alert(1)<.png')
    edit(pre / "environment.json", command=[HOSTILE], device=HOSTILE, git_commit=HOSTILE)
    tuned(runs / "failed")
    (runs / "failed" / "finished.json").unlink()
    (runs / "failed" / "error.json").write_text(json.dumps({"message": HOSTILE}))
    clean = tmp_path / "clean"
    tuned(clean / "tuned")
    text = page_of(runs, tmp_path / "hostile.html").read_text()
    parsed, expected = Page(text), Page(page_of(clean, tmp_path / "clean.html").read_text())
    assert parsed.misnested == []
    for tag in ("script", "style"):
        inline = [1 for found, _ in parsed.elements if found == tag]
        figures = len([1 for found, _ in parsed.elements if found == "svg"]) if tag == "style" else 0
        others = len([1 for found, _ in expected.elements if found == "svg"]) if tag == "style" else 0
        assert len(inline) - figures == len([1 for found, _ in expected.elements if found == tag]) - others
    attributes = {name for _, found in parsed.elements for name in found}
    assert not [name for name in attributes if name.startswith("on")]
    assert {link.partition(":")[0] for link in parsed.all("a", "href") if ":" in link} == {"https"}, "of publications"
    assert "".join(parsed.text).count(HOSTILE) > 5
    assert "{{ 7 * 7 }}" in text


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_the_command_is_what_was_given_with_its_threads_and_ranks(tmp_path):
    environment = {"command": ["__main__.py", "a2mim-r50-300e", "--run-dir", "runs/my run"], "num_threads": 3,
                   "device": "cpu: x"}  # fmt: skip
    page = tmp_path / "report.html"
    made = command(tmp_path / "runs" / "my run", "pretrain", environment, page)
    assert made == ("OMP_NUM_THREADS=3 python -m pretrain 'runs/my run/config.json' --run-dir 'runs/my run-again'")
    made = command(
        tmp_path / "runs" / "x", "pretrain", {"world_size": 8, "device": "cuda: H100", "num_threads": 4}, page
    )
    assert made == "torchrun --standalone --nproc-per-node 8 -m pretrain runs/x/config.json --run-dir runs/x-again"


def test_the_command_of_a_run_is_one_the_suite_takes(tmp_path, parsed):
    commands = re.findall(r"OMP_NUM_THREADS=1 python -m \S+ \S+/config.json --run-dir \S+-again", "".join(parsed.text))
    assert len(commands) == 23
    _, _, _, package, config, *rest = shlex.split(next(line for line in commands if "-scratch-classification" in line))
    config = FIXTURE.parent / config  # given from the folder above the runs
    done = run_module(package, str(config), *rest[:1], str(tmp_path / "again"), timeout=300)
    assert done.returncode == 3, "everything is understood, only the data set is not in the repository"
    assert "data/imagenet/train: no such folder" in done.stderr


def test_pictures_are_small_and_what_is_more_is_linked(tmp_path, monkeypatch):
    monkeypatch.setattr("results.page.pictures.MOST_PICTURES", 3)
    for seed in range(3):
        for method in ("simmim", "a2mim"):
            name = f"demo-test_resnet-{method}-pretrain-s0"
            copy_run(name, tmp_path / "runs" / f"{method}-{seed}", seed=seed)
    parsed = Page(page_of(tmp_path / "runs", tmp_path / "report.html").read_text())
    pictures = [found["alt"] for tag, found in parsed.elements if tag == "img"]
    assert [name.partition(" of ")[2] for name in pictures] == ["a2mim-0", "a2mim-0", "simmim-0"], "each method first"
    links = [link for link in parsed.all("a", "href") if link.endswith(".png")]
    assert len(links) == len(list((tmp_path / "runs").glob("*/panels/*.png")))


def test_pictures_of_the_same_image_stand_method_by_method_in_the_room_that_they_need(tmp_path):
    pre = str(pretrained(tmp_path / "pre"))
    for task, size in (("detection", (968, 405)), ("segmentation", (1500, 400))):
        for name, init, seed in (("scratch", "none", 1), ("scratch", "none", 0), ("a2mim", pre, 0)):
            run = tuned(tmp_path / f"{task}-{name}-{seed}", task=task, metrics={"x": 1.0}, init=init, seed=seed)
            Image.new("RGB", size).save(_made(run / "panels") / "1.png")
    found = by_method(collect([tmp_path])[0])
    assert [(one.title, one.width) for one in found] == [
        ("detection: r50, demo, 1.png", "wide"),
        ("segmentation: r50, demo, 1.png", "widest"),
    ]
    for one in found:
        assert [label for label, _ in one.columns] == ["from scratch", "A2MIM 300 epochs"]
        assert all(picture.file.parent.parent.name.endswith("-0") for _, picture in one.columns), "the lowest seed's"


def test_a_picture_that_cannot_be_read_does_not_end_the_page(tmp_path):
    run = copy_run("demo-test_resnet-a2mim-pretrain-s0", tmp_path / "runs" / "a2mim")
    for panel in (run / "panels").iterdir():
        panel.write_bytes(panel.read_bytes()[:200])
    text = page_of(tmp_path / "runs", tmp_path / "report.html").read_text()
    assert "<img" not in text
    assert 'href="runs/a2mim/panels/epoch_0004.png"' in text


def test_runs_are_called_by_their_place_below_the_folder_given(tmp_path, monkeypatch):
    assert called(tmp_path / "runs" / "a.b", [tmp_path / "runs"]) == "a.b"
    assert called(tmp_path / "runs" / "a", [tmp_path / "runs" / "a"]) == "a"
    assert called(tmp_path / "two" / "a", [tmp_path / "one", tmp_path / "two"]) == "two/a"
    monkeypatch.chdir(tmp_path)
    assert called(Path("v1.2") / "a", [Path()]) == "v1.2/a"
    assert without_folders("see v1.2/a.", [Path()]) == "see v1.2/a."
    assert without_folders(f"the same as {tmp_path}/runs/a", [tmp_path / "runs"]) == "the same as a"


def test_without_runs_the_page_says_so(tmp_path):
    assert "No finished run to show." in page_of(tmp_path, tmp_path / "report.html").read_text()
