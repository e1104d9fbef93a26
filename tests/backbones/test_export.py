"""What other libraries load from an export computes the same, by their own loaders; what is read back is the same."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from backbones import WeightsError, WeightsFileError, build_backbone, build_classifier, save_backbone
from backbones.__main__ import main
from backbones.weights.export import export
from backbones.weights.files import open_weights, write_weights

HEADER = {"method": "a2mim", "epochs": 3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.25], "config_hash": "c0ffee"}
SIZES = {
    "test_vit": 160,
    "swin_tiny_patch4_window7_224": 224,
    **dict.fromkeys(("resnet18", "convnext_tiny", "test_convnext", "test_resnet", "mobilenetv3_small_050"), 64),
    **dict.fromkeys(("deit_s", "vit_tiny_patch16_224"), 64),
}


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """No two weights equal, and no norm the identity, behind which a swapped name could hide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.rand(tensor.shape, generator=generator))
    return net.eval()


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """name -> (encoder, its file), made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("encoders"), {}

    def get(name: str, **options):
        if (name, *options) not in made:
            torch.manual_seed(0)
            encoder = shaken(build_backbone(name, image_size=SIZES[name], **options))
            path = folder / f"{name}{len(made)}.safetensors"
            save_backbone(path, encoder, HEADER)
            made[(name, *options)] = encoder, path
        return made[(name, *options)]

    return get


def images(name: str, size: int | None = None, channels: int = 3) -> torch.Tensor:
    size = size or SIZES[name]
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(2))


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape and expected.std() > 1e-3
    assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)


def assert_reads_back(path: Path, source: Path) -> None:
    found, expected = open_weights(path), open_weights(source)
    assert found.state.keys() == expected.state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())
    assert {name: found.description[name] for name in expected.description} == expected.description


@pytest.mark.parametrize(
    ("name", "to"),
    [("resnet18", "timm"), ("test_convnext", "timm"), ("deit_s", "hf"), ("test_vit", "timm"),
     ("mobilenetv3_small_050", "timm")],
)  # fmt: skip
def test_timm_loads_the_folder(name, to, encoders, tmp_path):
    encoder, path = encoders(name)
    written = export(path, tmp_path / "out", to)
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        theirs = build_backbone(name, image_size=SIZES[name])
        theirs.net.load_state_dict(net.state_dict(), strict=False)
        assert_close(theirs.eval()(images(name)), encoder(images(name)))
        assert_close(net.forward_features(images(name)), encoder.net.forward_features(images(name)))
    assert list(net.pretrained_cfg["mean"]) == HEADER["mean"]
    assert_reads_back(written.path, path)
    card = tmp_path / "out" / "README.md"
    assert card.exists() == (to == "hf")
    if to == "hf":
        text = card.read_text()
        assert text.startswith("---\nlibrary_name: timm\n") and "c0ffee" in text and "| epochs | 3 |" in text


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("convnext_tiny", ["features.1", "features.3", "features.5", "features.7"]),
    ],
)
def test_torchvision_loads_the_file(name, nodes, encoders, tmp_path):
    encoder, path = encoders(name)
    written = export(path, tmp_path, "torchvision")
    scope = {"torch": torch, "torchvision": torchvision}
    exec("\n".join(written.lines), scope)
    maps = create_feature_extractor(scope["net"].eval(), nodes)(images(name))
    for found, expected in zip(maps.values(), encoder.features(images(name)), strict=True):
        assert_close(found, expected)
    assert_reads_back(written.path, path)
    torch.hub.load_state_dict_from_url(written.path.as_uri(), model_dir=str(tmp_path / "hub"), check_hash=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_onnxruntime_runs_the_graph(name, encoders, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder, path = encoders(name)
    written = export(path, tmp_path / "net.onnx", "onnx")
    session = onnxruntime.InferenceSession(str(written.path))
    size = SIZES[name] if name == "test_vit" else 96  # another batch, and another size where that is free
    outputs = session.run(None, {"images": images(name, size).numpy()})
    with torch.no_grad():
        expected = [*encoder.features(images(name, size)), encoder(images(name, size))]
    for found, ours in zip(outputs, expected, strict=True):
        assert_close(torch.from_numpy(found), ours)
    assert json.loads(session.get_modelmeta().custom_metadata_map["backbone"])["epochs"] == 3
    assert_reads_back(written.path, path)


def classifier_file(folder: Path, name: str) -> tuple[torch.nn.Module, Path]:
    """What a classification run leaves."""
    net = shaken(build_classifier(name, 3, image_size=SIZES[name]))
    preprocessing = {"test_size": 64, "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}
    header = {"model": name, "image_size": SIZES[name], "classes": ["a", "b", "c"], "preprocessing": preprocessing}
    write_weights(folder / "classifier.safetensors", net.state_dict(), {"method": "supervised", "epochs": 2, **header})
    return net, folder


def test_a_classifier_is_exported_with_the_names_of_its_classes(tmp_path):
    net, run = classifier_file(tmp_path, "resnet18")
    source = run / "classifier.safetensors"
    with torch.no_grad():
        expected = net(images("resnet18"))
    written = export(run, tmp_path / "net", "timm")
    theirs = timm.create_model(f"local-dir:{written.path}", pretrained=True).eval()
    assert_close(theirs(images("resnet18")), expected)
    assert theirs.pretrained_cfg["label_names"] == ["a", "b", "c"] and theirs.pretrained_cfg["crop_pct"] == 0.9
    for to in ("torchvision", "openmixup", "mmpretrain"):
        written = export(run, tmp_path / f"{to}.pth", to)
        found = open_weights(written.path)
        assert found.state.keys() == open_weights(source).state.keys() and found.description["classes"] == [
            "a",
            "b",
            "c",
        ]
        assert all(torch.equal(found.state[key], value) for key, value in net.state_dict().items())
    theirs = torchvision.models.get_model("resnet18", num_classes=3).eval()
    theirs.load_state_dict(torch.load(export(run, tmp_path, "torchvision").path))
    assert_close(theirs(images("resnet18")), expected)
    meta = torch.load(export(run, tmp_path, "mmpretrain").path)["meta"]
    assert meta["dataset_meta"] == {"classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [
        ("deit_s", "torchvision", "neither relative positions nor layer scale"),
        ("deit_s", "detectron2", "drops the class token"),
        ("mobilenetv3_small_050", "mmseg", "no network of mmseg is known to compute the same; known are"),
        ("mobilenetv3_small_050", "openmixup", "OpenMixup's names are known for"),
        ("test_convnext", "detectron2", "has ResNets"),
        ("resnet18", "keras", "nothing can be exported to 'keras'; known: timm"),
    ],
)
def test_what_a_library_does_not_have_is_refused_with_the_reason(name, to, reason, encoders, tmp_path):
    with pytest.raises(WeightsError, match=reason):
        export(encoders(name)[1], tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_networks_with_torchvisions_names_that_compute_otherwise_are_refused(tmp_path):
    net = build_backbone("resnetaa50", image_size=64)
    save_backbone(tmp_path / "aa.safetensors", net, HEADER)
    with pytest.raises(WeightsError, match="resnetaa50 cannot be exported so"):
        export(tmp_path / "aa.safetensors", tmp_path / "out", "torchvision")


def test_the_command_says_what_it_wrote_and_how_to_use_it(encoders, tmp_path, capsys):
    _, path = encoders("resnet18")
    assert main(["export", str(path), "--to", "detectron2", "-o", str(tmp_path / "r18.pth")]) == 0
    (written,) = tmp_path.glob("r18-????????.pth")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{written}\n") and 'input_format="RGB"' in printed
    assert_reads_back(written, path)
    assert main(["export", str(path), "--to", "timm", "-o", str(tmp_path)]) == 2  # holds a file
    assert "exists and is no empty folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "absent.pth"), "--to", "timm", "-o", str(tmp_path / "x")]) == 5


def test_a_file_that_does_not_name_its_network_needs_its_name(encoders, tmp_path):
    encoder, _ = encoders("resnet18")
    torch.save(encoder.net.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="does not say which network it holds: add --model"):
        export(tmp_path / "bare.pth", tmp_path, "torchvision")
    written = export(tmp_path / "bare.pth", tmp_path, "torchvision", model="resnet18", image_size=64)
    assert any("taken as ImageNet's" in remark for remark in written.remarks)


def test_a_folder_that_cannot_be_written_is_an_error_of_storage(encoders, tmp_path):
    (tmp_path / "file").write_text("")
    for to in ("timm", "openmixup"):
        with pytest.raises(WeightsFileError, match="cannot be written"):
            export(encoders("resnet18")[1], tmp_path / "file" / "out", to)


def test_a_run_of_another_task_says_what_exports_it(tmp_path):
    (tmp_path / "config.json").write_text('{"package": "detection"}')
    with pytest.raises(WeightsError, match="python -m detection export"):
        export(tmp_path, tmp_path / "out", "timm")
