"""The commands of docs/weights.md, run as they stand there, with a server of this machine for the network."""

import json
import re
import shlex
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import build_backbone, to_openmixup
from backbones.__main__ import main as backbones_main
from engine import cli
from tests.backbones.file_server import serving
from tests.helpers import ROOT

FILE = "full_a2mim_r50_l3_sz224_init_8xb256_cos_ep300.pth"
SHORT = {  # what makes a command short enough for a test
    "classification": ["--epochs", "1", "--image-size", "32", "--augment.test-size", "32", "--batch-size", "104"],
    "pretrain": ["--steps", "2", "--image-size", "32", "--batch-size", "104"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, and a server with A2MIM's ResNet-50, whole, of random weights."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("x", "y"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(130):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    state = to_openmixup(build_backbone("r50").net.state_dict())
    token = {f"backbone.mask_{part}": torch.rand(1, 1024, 1, 1) for part in ("token", "gamma")}
    decoder = {"neck.decoder_pred.0.weight": torch.rand(3072, 2048, 1, 1), "neck.decoder_pred.0.bias": torch.rand(3072)}
    (folder / "server").mkdir()
    torch.save({"state_dict": state | token | decoder, "meta": {"epoch": 300}}, folder / "server" / FILE)
    with serving(folder / "server") as server:
        yield folder, server.url


def commands() -> list[list[str]]:
    lines = re.search(r"```bash\n(.*?)```", (ROOT / "docs/weights.md").read_text(), re.DOTALL)[1].splitlines()
    return [shlex.split(line, comments=True)[2:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:2]))
def test_a_command_of_the_page_runs(words, place, monkeypatch, capfd):
    folder, url = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MIM_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MIM_RELEASED_URL", url)
    package, *rest = [word.replace("/data/mine", "data").replace("weights.pth", f"server/{FILE}") for word in words]
    if package == "backbones":
        assert backbones_main(rest) == 0
        assert "a2mim-r50-300e" in capfd.readouterr().out or (folder / "r50.safetensors").exists()
        return
    recipes = import_module(f"{package}.recipes").RECIPES
    with pytest.raises(SystemExit) as left:
        cli.main(package, recipes, argv=[*rest, *SHORT[package], "--data.num-workers", "0"])
    assert left.value.code == 0, capfd.readouterr().err
    run_dir = folder / rest[rest.index("--run-dir") + 1]
    record = json.loads((run_dir / "initialisation.json").read_text())
    assert record["source"] == "released:a2mim-r50-300e" and record["description"]["epochs"] == 300
    if package == "pretrain":
        assert record["kept"] == ["token", "decoder"]
        assert json.loads((run_dir / "finished.json").read_text())["method"]["title"] == "A2MIM from A2MIM (released)"
