"""The worked example of docs/own-detection.md: its commands, shortened, in the order of the page."""

import json
import re
import shlex

import pytest

from backbones import build_backbone, save_backbone
from detection.__main__ import WORDS, main
from tests.detection.folders import make_coco
from tests.helpers import ROOT

SHORTENED = shlex.split(
    "--iterations 2 --schedule.warmup-iterations 1 --batch-size 4 --image-size 48 --data.short-sides 48 "
    "--data.max-side 64 --data.num-workers 0 --precise-bn 1 --heads.rois-per-image 16 --heads.box-features 32 "
    "--heads.pyramid-channels 16 --heads.mask-channels 16 --heads.rpn-post-nms 20 9 --heads.box-convs 1 "
    "--heads.mask-convs 1 --evaluate-every 0"
)


def commands():
    """The page's `python -m detection` commands."""
    page = (ROOT / "docs" / "own-detection.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", page, flags=re.S)).replace("\\\n", " ")
    return [shlex.split(line)[3:] for line in blocks.splitlines() if line.startswith("python -m detection")]


def test_the_page_trains_predicts_and_evaluates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_coco(tmp_path / "data" / "scenes" / "coco", num_train=20, num_val=2)
    (tmp_path / "runs" / "own-encoder").mkdir(parents=True)
    encoder = build_backbone("resnet18", image_size=64)
    save_backbone(tmp_path / "runs" / "own-encoder" / "backbone.safetensors", encoder, {"method": "simmim"})
    given = commands()
    assert [command[0] for command in given] == ["own", "predict", "evaluate"]
    for command in given:
        with pytest.raises(SystemExit) as left:
            main(command if command[0] in WORDS.known else [*command, *SHORTENED])
        assert left.value.code == 0, capsys.readouterr().err
    finished = json.loads((tmp_path / "runs" / "own" / "finished.json").read_text())
    assert (finished["num_train"], finished["num_val"]) == (16, 4)
    found = json.loads((tmp_path / "predictions" / "detections.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["000000000001.jpg", "000000000002.jpg"]
    assert "box_AP" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_option_on_the_page_exists(capsys):
    page = (ROOT / "docs" / "own-detection.md").read_text()
    with pytest.raises(SystemExit):
        main(["own", "--help"])
    shown = capsys.readouterr().out
    options = set(re.findall(r"--[a-z][a-z.-]+", page.partition("## Use")[0].partition("## Train")[2]))
    assert len(options) > 10
    assert {option for option in options if option not in shown} == set()
