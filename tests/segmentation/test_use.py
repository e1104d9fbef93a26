"""A trained run is used: label maps and pictures of images, metrics of another data set, export to MMSegmentation."""

import json
import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from PIL import Image
from safetensors.torch import load_file

from engine.errors import ConfigError
from segmentation.__main__ import main
from segmentation.data import make_pairs
from segmentation.export import export
from segmentation.layout import find_validation
from segmentation.mmseg_adapter import evaluation_pipeline
from segmentation.panels import predict_labels
from segmentation.train import train
from segmentation.use import load_run
from tests.closing import listening, told
from tests.helpers import ROOT
from tests.segmentation.folders import LABELS, tiny_config
from tests.segmentation.test_own_data import make

pytestmark = pytest.mark.mmseg


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run, and what it said at its end."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = tiny_config(root, model="resnet18", iterations=2, evaluate_every=2, precision="float32")
    with listening() as said:
        train(replace(config, schedule=replace(config.schedule, warmup_iterations=1)), folder)
    return folder, said[-1]


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


def run_command(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def test_a_run_ends_with_lines_that_load_it_and_a_command_that_writes_label_maps(
    finished, root, tmp_path, monkeypatch, capsys
):
    run, text = finished
    weights, names, words = told(text)
    assert run == Path(weights).parents[2]
    assert set(load_file(weights)) == set(names["segmentor"].state_dict())
    assert int(capsys.readouterr().out) > 10**6, "the third line prints how large it is"
    monkeypatch.chdir(tmp_path)
    images, out = root / "images" / "validation", tmp_path / "predictions"
    assert words == ["python", "-m", "segmentation", "predict", str(run), str(images)]
    assert run_command(*words[3:]) == 0
    assert "5 label maps in" in capsys.readouterr().out
    segmentor, config = load_run(run)
    for path in images.iterdir():
        stored = np.array(Image.open(out / "labels" / f"{path.stem}.png"))
        assert (stored == predict_labels(segmentor, config, path) + 1).all()
        assert (out / "pictures" / f"{path.stem}.png").is_file()
    turned, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(turned, exif=exif)
    assert run_command("predict", run, turned, "--out", tmp_path, "--no-pictures") == 0
    assert Image.open(tmp_path / "labels" / "turned.png").size == Image.open(path).size[::-1]
    Image.new("RGB", (3000, 2)).save(tmp_path / "thin.png")  # of which resizing would leave less than a pixel
    assert run_command("predict", run, tmp_path / "thin.png", "--out", tmp_path) == 3
    assert "thin.png: 3000x2 pixels are too thin" in capsys.readouterr().err
    names = json.loads((tmp_path / "classes.json").read_text())
    assert (len(names), names["1"], names["150"]) == (150, "wall", "flag")


def test_evaluate_gives_the_runs_own_numbers_and_those_of_other_data(run, root, tmp_path, capsys):
    assert run_command("evaluate", run) == 0
    *table, last = capsys.readouterr().out.splitlines()
    metrics = json.loads((run / "finished.json").read_text())["metrics"]
    assert json.loads(last) == {name: metrics[name] for name in ("mIoU", "aAcc", "mAcc")}
    assert table[0].split() == ["class", "IoU", "Acc"]
    other = make(tmp_path / "other", list(LABELS.values()))
    assert run_command("evaluate", run, "--data.root", other) == 0
    assert run_command("evaluate", run, "--data.root", other, "--data.classes", "wall,computer") == 2
    assert "in this order; only their labels may be other ones" in capsys.readouterr().err


def test_validation_pairs_may_be_all_there_is(tmp_path):
    from segmentation.config import DataConfig
    from tests.segmentation.test_own_data import write

    for i in range(3):
        write(tmp_path / "images" / f"{i}.jpg", tmp_path / "masks" / f"{i}.png", [0, 1])
    options = DataConfig(root=str(tmp_path))
    assert len(find_validation(options).matched()) == 3
    assert len(find_validation(replace(options, val_share=0.4)).matched()) == 1


def test_mmsegmentation_loads_an_exported_resnet_as_its_own(run, root, tmp_path):
    assert export(run, tmp_path / "out") is False
    assert Config.fromfile(tmp_path / "out" / "config.py").model.backbone.type == "ResNet"
    theirs = init_model(str(tmp_path / "out" / "config.py"), str(tmp_path / "out" / "segmentor.pth"), device="cpu")
    segmentor, config = load_run(run)
    packed = make_pairs(config, "validation", evaluation_pipeline(config)).source[0]
    with torch.no_grad():
        batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        ours, other = (model.test_step(batch)[0].seg_logits.data for model in (segmentor, theirs))
    assert torch.equal(ours, other)
    assert theirs.dataset_meta["classes"][149] == "flag"
    image = next((root / "images" / "validation").iterdir())
    found = inference_model(theirs, str(image)).pred_sem_seg.data[0].numpy()
    assert (found == predict_labels(segmentor, config, image)).mean() > 0.98  # OpenCV decodes a JPEG a little otherwise
    with pytest.raises(ConfigError, match=r"config\.py exists: choose another folder"):
        export(run, tmp_path / "out")


def test_every_command_of_the_page_on_own_classes_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIM_TRACKERS", "")
    text = (ROOT / "docs" / "own-segmentation.md").read_text().replace("resnet18", "test_resnet")  # a smaller one
    blocks = re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL)
    assert [kind for kind, _ in blocks].count("bash") == 4
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "own-segmentation.md", "exec"), {})
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[:2] == ["python", "-m"]
            monkeypatch.setattr(sys, "argv", words[2:])
            try:
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            except SystemExit as left:
                assert not left.code, (line, capsys.readouterr().err)
    assert len(list((tmp_path / "runs/found/labels").iterdir())) == 24
    assert json.loads((tmp_path / "runs/found/classes.json").read_text()) == {"0": "ground", "1": "disc", "2": "box"}
    metrics = json.loads((tmp_path / "runs/shapes/finished.json").read_text())["metrics"]
    assert metrics["mIoU"] > 60
    measured = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"mIoU"')]
    assert measured[-1].items() <= metrics.items(), "evaluate gives the run's own numbers, in bfloat16 too"
