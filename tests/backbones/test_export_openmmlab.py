"""MMSegmentation, and where they are installed MMPretrain, MMDetection and Detectron2, start from our encoders."""

import copy
import importlib
import warnings

import pytest
import torch
from torch.nn.functional import layer_norm

from backbones import WeightsError, build_backbone, save_backbone
from backbones.weights.export import export
from backbones.weights.export.counterparts import openmmlab
from segmentation.framework import import_mmsegmentation
from tests.backbones.test_export import HEADER, assert_close, assert_reads_back, encoders, images

__all__ = ["encoders"]


def registry(library: str):
    """The library's own registry of models; skips where it is not installed."""
    pytest.importorskip("mmseg", reason="needs MMSegmentation (make setup)")
    import_mmsegmentation()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(f"{library}.models")
            return importlib.import_module(f"{library}.registry").MODELS
        except ImportError as error:
            pytest.skip(f"needs {library}: {error}")


def built_from(lines, library: str, folder):
    """The backbone of the printed configuration, built by its library and started by its own loader."""
    from mmengine.config import Config

    models = registry(library)
    if any("mmpretrain." in line for line in lines):
        registry("mmpretrain")
    (folder / "base.py").write_text(
        'model = dict(type="EncoderDecoder", backbone=dict(type="Other", depth=1, foo=2))\n'
    )
    alone = [line for line in lines if not line.startswith("custom_imports")]  # registry() has imported it
    (folder / "config.py").write_text("\n".join(['_base_ = ["base.py"]', *alone]))
    net = models.build(Config.fromfile(folder / "config.py").model.backbone)
    net.init_weights()
    net.eval()
    return net


def normed(map_bchw: torch.Tensor) -> torch.Tensor:
    """By the norm that these libraries have for each map, new there for all but the last."""
    eps = 1e-5 if map_bchw.dtype == torch.float64 else 1e-6  # Swin's, ConvNeXt's
    return layer_norm(map_bchw.permute(0, 2, 3, 1), map_bchw.shape[1:2], eps=eps).permute(0, 3, 1, 2)


LIBRARIES = pytest.mark.parametrize("library", ["mmseg", "mmdet", "mmpretrain"])


@pytest.mark.mmseg
@LIBRARIES
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_tiny", "deit_s"])
def test_the_encoder_is_built_and_started_by_the_printed_configuration(library, name, encoders, tmp_path):
    registry(library)
    encoder, path = encoders(name)
    written = export(path, tmp_path / "net.pth", library)
    net = built_from(written.lines, library, tmp_path)
    with torch.no_grad():
        found, maps = net(images(name)), encoder.features(images(name))
        assert_close(found[-1], maps[-1] if name == "resnet18" else encoder(images(name)))
    assert len(found) == 4 or library == "mmpretrain"
    for theirs, ours in zip(found[:-1], maps[:-1], strict=len(found) > 1):
        assert_close(theirs, normed(ours) if name == "convnext_tiny" else ours)
    assert_reads_back(written.path, path)


@pytest.mark.mmseg
@LIBRARIES
def test_a_swins_maps_are_the_same_as_far_as_its_windows_lie_alike(library, encoders, tmp_path):
    registry(library)
    name = "swin_tiny_patch4_window7_224"
    encoder, path = encoders(name)
    written = export(path, tmp_path / "net.pth", library)
    net = built_from(written.lines, library, tmp_path).double()
    if library == "mmpretrain":
        assert not written.remarks
        expected = copy.deepcopy(encoder).double()
        with torch.no_grad():
            assert_close(net(images(name).double())[-1], expected(images(name).double()))
        return
    assert "shifts the windows of stage 4" in written.remarks[0]
    with torch.no_grad():
        maps = net(images(name).double())[:3], copy.deepcopy(encoder).double().features(images(name).double())[:3]
    for theirs, ours in zip(*maps, strict=True):
        assert_close(theirs, normed(ours))


@pytest.mark.mmseg
def test_mmsegmentation_takes_images_of_four_channels(tmp_path):
    encoder = build_backbone("resnet18", image_size=64, in_chans=4).eval()
    save_backbone(tmp_path / "four.safetensors", encoder, {**HEADER, "mean": [0.5] * 4, "std": [0.2] * 4})
    written = export(tmp_path / "four.safetensors", tmp_path / "net.pth", "mmseg")
    assert not any("bgr_to_rgb" in line for line in written.lines)
    found = built_from(written.lines, "mmseg", tmp_path)(images("resnet18", channels=4))
    for theirs, ours in zip(found, encoder.features(images("resnet18", channels=4)), strict=True):
        assert_close(theirs, ours)


def test_a_depth_without_a_name_there_is_refused():
    with torch.device("meta"):
        net = build_backbone("r200", image_size=64).net
    with pytest.raises(WeightsError, match="r200 cannot be exported so: mmseg's ResNet has the depths 18, 34, 50"):
        openmmlab("r200", net, "mmseg", whole=False)


@pytest.mark.detectron2
def test_detectron2_starts_from_the_file_by_the_printed_lines(tmp_path):
    zoo = pytest.importorskip("detectron2.model_zoo", reason="needs Detectron2, see docs/install.md")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import instantiate

    encoder = build_backbone("r50", image_size=64).eval()
    save_backbone(tmp_path / "r50.safetensors", encoder, HEADER)
    written = export(tmp_path / "r50.safetensors", tmp_path / "net.pth", "detectron2")
    scope = {"cfg": zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")}
    exec("\n".join(written.lines), scope)
    model = instantiate(scope["cfg"].model).eval()
    DetectionCheckpointer(model).load(scope["cfg"].train.init_checkpoint)
    with torch.no_grad():
        found = model.backbone.bottom_up(images("resnet18"))
    for theirs, ours in zip(found.values(), encoder.features(images("resnet18"))[-len(found) :], strict=True):
        assert_close(theirs, ours)
    assert model.input_format == "RGB" and model.pixel_mean.flatten().tolist() == [127.5, 102.0, 76.5]


@pytest.mark.detectron2
def test_detectron2s_swin_starts_from_the_file(encoders, tmp_path):
    checkpoint = pytest.importorskip("detectron2.checkpoint", reason="needs Detectron2, see docs/install.md")
    from detectron2.modeling.backbone.swin import SwinTransformer

    name = "swin_tiny_patch4_window7_224"
    encoder, path = encoders(name)
    written = export(path, tmp_path / "net.pth", "detectron2")
    arguments = written.lines[1].partition("L(SwinTransformer)")[2]
    net = eval(f"dict{arguments}")
    net = SwinTransformer(**net).eval()
    checkpoint.DetectionCheckpointer(net).load(str(written.path))
    with torch.no_grad():
        found, maps = (
            net.double()(images(name).double()),
            copy.deepcopy(encoder).double().features(images(name).double()),
        )
    for theirs, ours in zip([found["p0"], found["p1"], found["p2"]], maps[:3], strict=True):
        assert_close(theirs, normed(ours))
    assert_reads_back(written.path, path)
