"""Pre-training samples: the crop's law, the resize, and reproducibility."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize

from engine.data.images import index_images, read_image
from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey, SamplePlan
from pretrain.data import PretrainDataset, centred, collate, random_box, resized
from pretrain.masking import num_masked


def smooth_pixels(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for i in range(12):
        pixels = smooth_pixels(60 + 5 * i, 110 - 4 * i, seed=i)
        Image.fromarray(pixels).save(root / f"{i:02d}.jpg", quality=92)
    return root


def dataset(folder, **changes):
    options = {"image_size": 64, "cell_size": 16, "seed": 7} | changes
    return PretrainDataset(index=index_images(folder, labelled=False), **options)


def test_sample_is_a_byte_image_and_an_exact_mask(folder):
    sample = dataset(folder)[SampleKey(0, 3)]
    assert sample["image"].shape == (3, 64, 64)
    assert sample["image"].dtype == torch.uint8
    assert sample["mask"].shape == (4, 4)
    assert sample["mask"].dtype == torch.uint8
    assert int(sample["mask"].sum()) == num_masked(64, 16, 0.6)


def test_sample_depends_on_seed_epoch_index_and_repeat_and_on_nothing_else(folder):
    images = dataset(folder, scale=(0.2, 0.9))
    keys = [SampleKey(e, i, r) for e, i, r in itertools.product((0, 1), (0, 1), (0, 1))]
    first = [images[key] for key in keys]
    again = [pickle.loads(pickle.dumps(images))[key] for key in reversed(keys)][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
    for one, other in itertools.combinations(first, 2):
        assert not torch.equal(one["image"], other["image"])
    assert not torch.equal(first[0]["image"], dataset(folder, scale=(0.2, 0.9), seed=8)[keys[0]]["image"])


def test_global_generators_are_neither_read_nor_moved(folder):
    images, key = dataset(folder), SampleKey(0, 1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = images[key]["image"]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(one, images[key]["image"])


def test_collate_joins_what_default_collate_joins_and_keeps_pixels_together(folder):
    samples = [dataset(folder, flip=flip)[SampleKey(0, i)] for i, flip in enumerate((0.0, 1.0, 0.0))]
    batch, expected = collate(samples), default_collate(samples)
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_bytes_for_any_number_of_workers(folder, num_workers):
    images, plan = dataset(folder), SamplePlan(12, 4, seed=7)
    options = LoaderOptions(num_workers=num_workers, collate=collate)
    batches = [batch for (batch,) in make_batches(images, plan.batch, range(2, 5), options)]
    for step, batch in zip(range(2, 5), batches, strict=True):
        expected = torch.stack([images[key]["image"] for key in plan.batch(step)])
        assert torch.equal(batch["image"], expected)
        assert batch["image"].dtype == torch.uint8


def test_flip_probability_is_kept(folder):
    never, always = dataset(folder, flip=0.0), dataset(folder, flip=1.0)
    key = SampleKey(0, 0)
    assert torch.equal(never[key]["image"].flip(2), always[key]["image"])
    sometimes = dataset(folder, flip=0.5)
    flipped = sum(torch.equal(sometimes[k]["image"], always[k]["image"]) for k in (SampleKey(e, 0) for e in range(200)))
    assert 70 < flipped < 130


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (60, 900), (900, 60), (1, 1), (1, 40), (3, 2)])
@pytest.mark.parametrize("scale", [(0.8, 1.0), (0.08, 1.0)])
def test_boxes_follow_the_law_of_torchvision(size, scale):
    ratio = (3 / 4, 4 / 3)
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(1500)])
    rng = np.random.default_rng(0)
    ours = np.array([random_box(rng, size, scale, ratio) for _ in range(1500)])
    # Kolmogorov-Smirnov distance of two samples of 1500 stays below 0.071 with probability 0.999.
    for column in range(4):
        values = np.unique(np.concatenate([ours[:, column], theirs[:, column]]))
        cdf_ours, cdf_theirs = (
            np.searchsorted(np.sort(boxes[:, column]), values, side="right") / len(boxes) for boxes in (ours, theirs)
        )
        assert np.abs(cdf_ours - cdf_theirs).max() < 0.071


def test_boxes_lie_inside_the_image():
    rng = np.random.default_rng(1)
    for height, width in rng.integers(1, 50, (300, 2)):
        top, left, box_height, box_width = random_box(rng, (height, width), (0.1, 1.0), (0.5, 2.0))
        assert top >= 0
        assert left >= 0
        assert 0 < box_height <= height - top
        assert 0 < box_width <= width - left


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((375, 500), (10, 20, 330, 450)),
        ((375, 500), (300, 400, 40, 30)),
        ((1, 1), (0, 0, 1, 1)),
        ((20, 999), (0, 3, 20, 990)),
    ],
)
def test_resize_is_within_one_grey_level_of_pillow(size, box):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    top, left, height, width = box
    part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    expected = np.asarray(part.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    ours = resized(pixels, box, (224, 224))
    assert ours.shape == (3, 224, 224)
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "crop_pct"), [((300, 401), 0.875), ((401, 300), 0.95), ((64, 64), 1.0), ((9, 50), 0.7)]
)
def test_centred_view_is_torchvisions_resize_and_centre_crop(size, crop_pct):
    pixels = smooth_pixels(*size)
    theirs = CenterCrop(64)(Resize(int(64 / crop_pct))(Image.fromarray(pixels)))
    ours = centred(pixels, 64, crop_pct).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - np.asarray(theirs).astype(int)).max() <= 1


def test_centred_view_of_one_pixel_is_that_pixel(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "x.png")
    view = centred(read_image(tmp_path / "x.png"), 32, crop_pct=0.875)
    assert view.flatten(1).unique(dim=1).tolist() == [[9], [8], [7]]


def test_the_mask_does_not_follow_the_crop(folder):
    """Masks of one image over epochs hide every cell about equally often."""
    images = dataset(folder)
    share = torch.stack([images[SampleKey(e, 0)]["mask"].float() for e in range(300)]).mean(0)
    expected = num_masked(64, 16, 0.6) / 16
    assert (share - expected).abs().max() < 0.12
