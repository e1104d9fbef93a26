"""The commands and configurations of docs/export.md are what the commands take and print."""

import functools
import re
import shlex
from pathlib import Path

import pytest
import torch

from backbones import build_backbone, save_backbone
from backbones.__main__ import main
from backbones.weights.export.counterparts import openmmlab
from backbones.weights.export.detectron2_file import configuration as detectron2_configuration
from backbones.weights.export.openmmlab_file import configuration
from backbones.weights.export.trained import Trained
from tests.helpers import ROOT


@functools.cache
def shapes(name: str) -> Trained:
    with torch.device("meta"):
        return Trained(model=name, net=build_backbone(name).net, image_size=224, description={})


def documented(library: str, name: str) -> str:
    trained = shapes(name)
    found = openmmlab(name, trained.net, library, whole=False)
    return "\n".join(configuration(trained, Path("FILE.pth"), library, found))


def test_the_documented_configurations_are_the_printed_ones():
    page = (ROOT / "docs" / "export.md").read_text()
    blocks = re.findall(r"\n(\w+), `(\w+)`:\n\n```python\n(.*?)\n```", page, re.DOTALL)
    libraries = {"MMSegmentation": "mmseg", "MMDetection": "mmdet", "MMPretrain": "mmpretrain"}
    assert {(libraries[library], name) for library, name, _ in blocks} >= {
        (library, name) for library in ("mmseg", "mmpretrain") for name in ("r50", "convnext_t", "vit_b")
    }
    for library, name, text in blocks:
        assert text == documented(libraries[library], name)
    assert "\n".join(detectron2_configuration(shapes("r50"), Path("FILE.pth"))) in page


def commands() -> list[str]:
    block = (ROOT / "docs" / "export.md").read_text().partition("```bash\n")[2].partition("```")[0]
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line.startswith("python -m backbones")]


@pytest.mark.parametrize("command", commands())
def test_the_exports_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "a2mim-r50"
    run.mkdir(parents=True)
    # A smaller network in the run's place: the commands are the same.
    header = {"method": "a2mim", "epochs": 1, "mean": [0.5] * 3, "std": [0.2] * 3, "config_hash": "c0ffee"}
    save_backbone(run / "backbone.safetensors", build_backbone("resnet18", image_size=64), header)
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "backbones", "export"]
    assert main(words[3:]) == 0
    written = Path(capsys.readouterr().out.splitlines()[0])
    assert written.exists()


def test_there_is_one_command_for_each_library():
    told = {command.partition("--to ")[2].split()[0] for command in commands()}
    assert told >= {"timm", "detectron2", "mmseg", "onnx"}
