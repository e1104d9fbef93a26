"""Losses, mixing and erasing equal timm's; test images are resized as the published recipes do."""

import random
from dataclasses import replace

import numpy as np
import pytest
import timm.data
import timm.loss
import torch
from PIL import Image

from classification.augment import BatchAugment, evaluation_transform, normalise, resized_side, training_transform
from classification.config import AugmentConfig, LossConfig
from classification.losses import build_loss
from classification.recipes import RECIPES

NUM_CLASSES = 7


def seed(value=0):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def batch(size=6):
    seed(3)
    return torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8), torch.arange(size) % NUM_CLASSES


def logits(size=6):
    torch.manual_seed(5)
    return torch.randn(size, NUM_CLASSES) * 3


def test_smoothed_cross_entropy_equals_timms():
    images, labels = batch()
    _, targets = BatchAugment(AugmentConfig(label_smoothing=0.1), NUM_CLASSES)(images, labels)
    ours = build_loss(LossConfig())(logits(), targets)
    theirs = timm.loss.LabelSmoothingCrossEntropy(0.1)(logits(), labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_equals_timms(threshold, smoothing):
    images, labels = batch()
    _, targets = BatchAugment(AugmentConfig(label_smoothing=smoothing), NUM_CLASSES)(images, labels)
    ours = build_loss(LossConfig(kind="bce", target_threshold=threshold))(logits(), targets)
    theirs = timm.loss.BinaryCrossEntropy(smoothing, target_threshold=threshold)(logits(), labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_losses_of_half_precision_predictions_are_float32():
    for config in (LossConfig(), LossConfig(kind="bce")):
        assert build_loss(config)(logits().bfloat16(), torch.full((6, NUM_CLASSES), 1 / 7)).dtype == torch.float32


@pytest.mark.parametrize("name", ["rsb-a1", "rsb-a2", "vit-ft"])
def test_mixed_batches_and_their_losses_equal_timms(name):
    config = RECIPES[name]()
    augment = replace(config.augment, random_erasing=0.0)
    images, labels = batch()
    prepare = BatchAugment(augment, NUM_CLASSES)
    theirs = timm.data.Mixup(
        augment.mixup, augment.cutmix, label_smoothing=augment.label_smoothing, num_classes=NUM_CLASSES
    )
    bce = timm.loss.BinaryCrossEntropy(smoothing=0.0, target_threshold=None)
    criterion = bce if config.loss.kind == "bce" else timm.loss.SoftTargetCrossEntropy()
    for draw in range(8):  # both mixup and CutMix occur
        seed(draw)
        mixed, targets = prepare(images, labels)
        seed(draw)
        wanted, wanted_targets = theirs(normalise(images), labels)
        assert torch.equal(mixed, wanted)
        assert torch.equal(targets, wanted_targets)
        assert targets.sum(1).numpy() == pytest.approx(1, abs=1e-6)
        ours = build_loss(config.loss)(logits(), targets)
        torch.testing.assert_close(ours, criterion(logits(), targets), rtol=1e-6, atol=0)


def test_erasing_fills_boxes_with_noise_in_about_the_given_share_of_images():
    images = torch.full((400, 3, 16, 16), 128, dtype=torch.uint8)
    seed(0)
    erased, _ = BatchAugment(AugmentConfig(random_erasing=0.25), NUM_CLASSES)(
        images, torch.zeros(400, dtype=torch.int64)
    )
    changed = (erased != normalise(images)).flatten(1).any(1)
    assert 0.18 < changed.float().mean() < 0.32
    assert (erased[~changed] == normalise(images)[~changed]).all()


def test_normalising_gives_imagenet_statistics():
    white, black = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.zeros((1, 3, 1, 1), dtype=torch.uint8)
    np.testing.assert_allclose(
        normalise(white).flatten(), (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    np.testing.assert_allclose(
        normalise(black).flatten(), -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "crop_pct", "side"), [(224, 0.95, 236), (224, 0.875, 256), (192, 0.875, 219), (128, 1.0, 128)]
)
def test_the_short_side_before_the_crop_is_the_published_one(size, crop_pct, side):
    assert resized_side(AugmentConfig(test_size=size, crop_pct=crop_pct)) == side


def test_test_images_equal_timms_where_both_resize_to_the_same_side():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8))
    ours = evaluation_transform(AugmentConfig(test_size=64))(image)
    theirs = timm.data.create_transform(64, is_training=False, interpolation="bicubic", crop_pct=0.875, normalize=False)
    assert torch.equal(ours, theirs(image))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(1, 1), (20, 300), (300, 20)])
def test_every_recipes_pipelines_turn_any_image_into_uint8_of_the_asked_size(name, shape):
    config = RECIPES[name]()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    for transform, size in (
        (training_transform(config.augment, config.image_size), config.image_size),
        (evaluation_transform(config.augment), config.augment.test_size),
    ):
        tensor = transform(image)
        assert tensor.dtype == torch.uint8
        assert tensor.shape == (3, size, size)
