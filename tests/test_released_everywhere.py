"""A published file by its name, wherever weights are taken, from a server of this machine."""

import json

import pytest
import timm
import torch

from backbones import build_backbone, load_weights
from backbones.__main__ import main
from backbones.source import load_encoder
from backbones.weights.keymaps import find_keymap
from classification.build import load_encoder as load_into_network
from classification.classifier import load_classifier
from classification.config import ClassificationConfig
from engine.errors import ConfigError
from engine.task import start_from
from engine.use import evaluate_command
from results.runs.start import start_of
from tests.backbones.file_server import serving

ALONE = ClassificationConfig(model="r50", epochs=9, batch_size=1, image_size=32, init="none")
NAME, MODEL, FILE = "fcmae-convnextv2_atto", "convnextv2_atto", "convnextv2_atto_1k_224_fcmae.pt"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(server, the encoder's tensors): NAME's file, of random weights under the names of its authors."""
    folder = tmp_path_factory.mktemp("server")
    torch.manual_seed(5)
    state = timm.create_model(MODEL, num_classes=0).state_dict()
    state = {name: torch.randn_like(tensor) * 0.02 for name, tensor in state.items() if not name.startswith("head.")}
    linear = {name: t.squeeze((2, 3)) if ".mlp.fc" in name and t.ndim == 4 else t for name, t in state.items()}
    foreign = find_keymap("sparse facebook", "convnext").from_timm(linear)
    decoder = {"mask_token": torch.zeros(1, 512, 1, 1), "proj.weight": torch.zeros(512, 9), "pred.bias": torch.zeros(9)}
    torch.save({"model": {f"encoder.{name}": tensor for name, tensor in foreign.items()} | decoder}, folder / FILE)
    with serving(folder) as server:
        yield server, state


@pytest.fixture(autouse=True)
def cache(published, tmp_path_factory, monkeypatch):
    """The same cache for all tests: one download."""
    monkeypatch.setenv("MIM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MIM_RELEASED_URL", published[0].url)


def same(net: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = net.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_classification_and_detection_start_from_it(published, tmp_path):
    network = timm.create_model(MODEL, num_classes=5)
    start_from(f"released:{NAME}", lambda source: load_into_network(network, source), tmp_path)
    assert same(network, published[1])
    record = json.loads((tmp_path / "initialisation.json").read_text())
    told = {"method": f"released:{NAME}", "method_title": "FCMAE (released)", "name": MODEL}
    assert record["description"] == told
    backbone = build_backbone(MODEL)
    load_weights(backbone, f"released:{NAME}")
    assert same(backbone.net, published[1])


def test_an_encoder_to_measure_is_it(published):
    encoder = load_encoder(f"released:{NAME}")
    assert same(encoder.backbone.net, published[1])
    assert (encoder.name, encoder.method, encoder.backbone.name) == (NAME, f"released:{NAME}", MODEL)


def test_import_reads_it(published, tmp_path, capsys):
    assert main(["import", f"released:{NAME}", "-o", str(tmp_path / "atto.safetensors")]) == 0
    said = capsys.readouterr().out
    assert (
        f"released:{NAME}: ConvNeXt V2, sparse facebook names, below model / encoder.\nnetwork     {MODEL} at 224 px"
        in said
    )
    assert "beside      3: mask_token (to go on from), pred.bias (to go on from), proj.weight (to go on from)" in said
    assert "note: the file has no final norm: it begins at 1 and 0" in said
    backbone = load_encoder(str(tmp_path / "atto.safetensors")).backbone
    assert same(backbone.net, published[1])


def test_evaluate_takes_it_and_says_that_it_is_an_encoder_alone(published):
    asked = evaluate_command("classification", [f"released:{NAME}", "--data.root", "x"], ClassificationConfig, ALONE)
    assert (str(asked.run), asked.config.data.root) == (f"released:{NAME}", "x")
    with pytest.raises(ConfigError, match="an encoder and no classifier"):
        load_classifier(asked.run)


def test_it_was_fetched_once(published):
    assert len(published[0].ranges) == 1


def test_tables_keep_its_runs_apart_from_ours(tmp_path):
    network = timm.create_model(MODEL, num_classes=5)
    start_from(f"released:{NAME}", lambda source: load_into_network(network, source), tmp_path)
    config = {"init": f"released:{NAME}", "method": "a2mim"}
    fine, on = (start_of(tmp_path, task, config, {}, pytest.fail) for task in ("classification", "pretrain"))
    assert (fine.method, fine.title) == (f"released:{NAME}", "FCMAE (released)")
    assert on.method == f"a2mim from released:{NAME}"
