"""Images of other channels than RGB: read, pre-trained on, fine-tuned on, predicted."""

import dataclasses

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from backbones import build_backbone, load_weights, save_backbone
from classification.config import AugmentConfig, ClassificationConfig, DataConfig
from classification.recipes import demo
from classification.train import train as finetune
from engine.data.decode import read_image
from engine.data.files import UnreadableImageError
from pretrain.recipes import for_model
from pretrain.train import train as pretrain


def options(bands: int) -> DataConfig:
    return DataConfig(mean=(0.4,) * bands, std=(0.2,) * bands)


@pytest.mark.parametrize("bands", [2, 4, 13])
def test_arrays_and_tiffs_give_their_channels(bands, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, bands), dtype=np.uint8)
    np.save(tmp_path / "last.npy", picture)
    np.save(tmp_path / "first.npy", picture.transpose(2, 0, 1))
    np.save(tmp_path / "deep.npy", picture.astype(np.uint16) * 256 + 7)
    tifffile.imwrite(tmp_path / "last.tif", picture, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(
        tmp_path / "pages.tif", picture.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    )
    for path in tmp_path.iterdir():
        assert np.array_equal(read_image(path, options(bands)), picture), path.name


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8, 4), np.float32), "values of type float32, of which nothing says which is the largest"),
        (np.zeros((8, 8, 5), np.uint8), r"shape \(8, 8, 5\), not \(height, width, 4\)"),
        (np.array([{}], dtype=object), "npy that cannot be decoded"),
    ],
)
def test_what_has_other_channels_or_no_scale_is_refused(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableImageError, match=message):
        read_image(tmp_path / "x.npy", options(4))


def test_a_jpeg_among_four_channels_is_refused(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"\xff\xd8\xff\xe0 not a tiff")
    with pytest.raises(UnreadableImageError, match="neither TIFF nor a numpy array"):
        read_image(tmp_path / "x.tif", options(4))


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_first_convolution_of_rgb_is_adapted_as_timm_does_and_said_so(name, bands, tmp_path):
    rgb = build_backbone(name, image_size=160)
    save_backbone(tmp_path / "rgb.safetensors", rgb, {})
    net = build_backbone(name, image_size=160, in_chans=bands)
    report = load_weights(net, tmp_path / "rgb.safetensors")
    assert any(f"is for {bands} channels made from its three" in line for line in report.changed)
    first = next(key for key, value in rgb.net.state_dict().items() if value.ndim == 4)
    theirs = rgb.net.state_dict()[first]
    wanted = theirs.sum(1, keepdim=True) if bands == 1 else theirs[:, [0, 1, 2, 0]] * 3 / 4
    assert torch.allclose(net.net.state_dict()[first], wanted)


def folder_of_pictures(root, bands: int) -> None:
    source = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("field", "water"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(2):
                picture = source.integers(0, 256, (40, 48, bands), dtype=np.uint8)
                if bands == 1:
                    Image.fromarray(picture[..., 0]).save(folder / f"{i}.png")
                else:
                    np.save(folder / f"{i}.npy", picture)


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_a_network_is_pre_trained_and_fine_tuned_on_other_channels(bands, tmp_path):
    folder_of_pictures(tmp_path / "data", bands)
    statistics = {"mean": (0.4,) * bands, "std": (0.2,) * bands, "root": str(tmp_path / "data"), "num_workers": 0}
    config = for_model("test_resnet")
    data = dataclasses.replace(config.data, **statistics)
    small = {"batch_size": 2, "image_size": 96, "precision": "float32", "epochs": 1}
    schedule = dataclasses.replace(config.schedule, warmup_epochs=0)
    pretrain(dataclasses.replace(config, data=data, schedule=schedule, **small), tmp_path / "pre")
    assert (tmp_path / "pre" / "panels" / "epoch_0001.png").is_file()
    tuned = ClassificationConfig(
        model="test_resnet",
        init=str(tmp_path / "pre"),
        data=DataConfig(**statistics),
        augment=AugmentConfig(test_size=96),
        schedule=dataclasses.replace(demo().schedule, warmup_epochs=0),
        **small,
    )
    metrics = finetune(tuned, tmp_path / "tuned")
    assert metrics
