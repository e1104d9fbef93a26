"""The configurations of docs/export.md are those that the commands print; tests/docs runs its commands."""

import functools
import re
from pathlib import Path

import torch

from backbones import build_backbone
from backbones.weights.export.counterparts import openmmlab
from backbones.weights.export.detectron2_file import configuration as detectron2_configuration
from backbones.weights.export.openmmlab_file import configuration
from backbones.weights.export.trained import Trained
from tests.docs.pages import said
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


def test_there_is_one_command_for_each_library():
    told = {one.words[one.words.index("--to") + 1] for one in said("docs/export.md") if "--to" in one.words}
    assert told >= {"timm", "detectron2", "mmseg", "onnx"}
