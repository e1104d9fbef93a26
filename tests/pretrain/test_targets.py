"""Normalisation and mean fill against what the released data pipeline produced."""

import numpy as np
import pytest
import torch

from pretrain.targets import Normalise, fill_masked
from tests.pretrain.published_networks import GOLDEN


@pytest.fixture(scope="module")
def inputs():
    with np.load(GOLDEN / "inputs_224.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def test_targets_equal_the_published_ones_to_the_bit(inputs):
    assert torch.equal(Normalise()(inputs["img_u8"].permute(0, 3, 1, 2)), inputs["img_norm"])


@pytest.mark.parametrize("mask", ["mask_mp4", "mask_mp16", "mask_mp32"])
def test_the_filled_input_equals_the_published_one_to_the_bit(inputs, mask):
    assert torch.equal(fill_masked(inputs["img_norm"], inputs[mask]), inputs["img_meanfill"])


def test_the_fill_is_the_mean_of_all_pixels_and_touches_masked_ones_only(inputs):
    mask = inputs["mask_mp32"].bool()
    pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)
    filled = fill_masked(inputs["img_norm"], mask)
    for image in range(2):
        assert torch.equal(filled[image][:, ~pixels[image]], inputs["img_norm"][image][:, ~pixels[image]])
        painted = filled[image][:, pixels[image]]
        torch.testing.assert_close(painted[:, 0], inputs["channel_mean_norm"][image])
        assert (painted == painted[:, :1]).all()


def test_inverse_gives_the_pixels_back(inputs):
    images = inputs["img_u8"].permute(0, 3, 1, 2)
    normalise = Normalise()
    assert torch.equal(normalise.inverse(normalise(images)), images)
    assert normalise.inverse(torch.full((1, 3, 1, 1), 99.0)).flatten().tolist() == [255, 255, 255]


def test_a_model_in_float64_gets_the_same_targets_in_float64(inputs):
    images = inputs["img_u8"].permute(0, 3, 1, 2)
    assert torch.equal(Normalise().double()(images), inputs["img_norm"].double())


def test_images_on_a_cpu_are_planar_whatever_they_were(inputs):
    assert Normalise(channels_last=True)(inputs["img_u8"].permute(0, 3, 1, 2)).is_contiguous()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels_last", [True, False])
def test_images_on_a_gpu_have_the_memory_format_asked_for(inputs, channels_last):
    normalise = Normalise(channels_last=channels_last).cuda()
    images = inputs["img_u8"].permute(0, 3, 1, 2).cuda()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    images = normalise(images)
    assert images.is_contiguous(memory_format=memory_format)
    filled = fill_masked(images, inputs["mask_mp32"].cuda())
    assert filled.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(filled.cpu(), inputs["img_meanfill"])
