"""Spectra against published numbers and closed forms; units of depth of CNNs, Transformers and others."""

import numpy as np
import pytest
import torch

from analysis.fourier.depth import Units
from analysis.fourier.spectrum import Spectrum, frequencies
from backbones import build_backbone
from backbones.encoder import Backbone
from tests.analysis import golden


def measured(backbone, images):
    """The spectrum of each unit of depth."""
    spectra = {}
    units = Units(backbone, images.shape[-1])
    with torch.inference_mode():
        for image in images:
            units.run(image[None], lambda name, maps: spectra.setdefault(name, Spectrum(name)).add(maps))
    return list(spectra.values())


@pytest.mark.parametrize("name", ["r50_224", "vit_224"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_curves_and_variances_are_the_published_numbers(name, dtype):
    case = golden.read(f"fourier/{name}")
    backbone = Backbone(golden.network(case, torch.float32), image_size=224).to(dtype)
    found = measured(backbone, golden.images(case, dtype))
    expected = case["a2mim"]
    assert len(found) == len(expected["curves"])
    curve, variance = (1e-10, 1e-12) if dtype == torch.float64 else (1e-4, 1e-5)
    for spectrum, values, spread in zip(found, expected["curves"], expected["variance"], strict=True):
        np.testing.assert_allclose(spectrum.relative(), values, rtol=0, atol=curve)
        np.testing.assert_allclose(spectrum.mean_variance(), spread, rtol=variance)


def test_the_last_frequency_is_the_true_one():
    assert [frequencies(side)[-1] for side in (56, 28, 14, 7)] == [27 / 28, 13 / 14, 6 / 7, 6 / 7]


def synthetic(name, shape):
    side = shape[-1]
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    diagonal = 2 + sum(np.cos(2 * np.pi * k * (row + column) / side) / k for k in range(1, -(-side // 2)))
    kinds = {
        "impulse": 3.0 * ((row == 2) & (column == 5)),
        "constant": np.full((side, side), 1.5),
        "diagonal": diagonal,
        "column": 2 + np.cos(2 * np.pi * column / 14),
        "chequer": 2 + (-1.0) ** (row + column),
    }
    kind = name.partition("_")[0]
    if kind == "gains":
        channels = np.stack([gain * diagonal for gain in (1.0, 0.5, 4.0)])
        return np.stack([channels, 3 * channels])
    if kind == "noise":
        return np.random.RandomState(84).standard_normal(shape)
    if kind == "averaged":
        return np.random.RandomState(85).standard_normal((1, 2, 28, 28)).reshape(1, 2, 14, 2, 14, 2).mean(axis=(3, 5))
    return kinds[kind][None, None]


@pytest.mark.parametrize("name", [name for name in golden.read("fourier/synthetic")["cases"] if "tokens" not in name])
def test_maps_with_known_spectra(name):
    case = golden.read("fourier/synthetic")["cases"][name]
    spectrum = Spectrum()
    spectrum.add(torch.from_numpy(synthetic(name, case["shape"])))
    np.testing.assert_allclose(spectrum.relative(), case["curve"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(spectrum.mean_variance(), case["variance"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "units", "options"),
    [
        ("resnet18", 9, {}),  # the stem and every block
        ("convnext_atto", 13, {}),
        ("test_vit", 13, {}),  # patches, then attention and MLP of six blocks
        ("swin_tiny_patch4_window7_224", 11, {"depths": (1, 1, 2, 1), "embed_dim": 24}),
        ("beit_base_patch16_224", 5, {"depth": 2, "embed_dim": 48, "num_heads": 3}),  # gammas inside the sum
        ("densenet121", 5, {"growth_rate": 4, "block_config": (2, 2, 2, 2)}),  # no sums
        ("hiera_tiny_224", 4, {"stages": (1, 1, 2, 1), "embed_dim": 24, "num_heads": 1}),  # tokens in its own order
    ],
)
def test_units_of_depth_are_found_in_any_network(name, units, options):
    size = 64 if name in ("resnet18", "convnext_atto", "densenet121") else 224
    backbone = build_backbone(name, image_size=size, **options).eval()
    seen = []
    found = Units(backbone, size)
    with torch.inference_mode():
        found.run(torch.randn(1, 3, size, size), lambda unit, maps: seen.append((unit, maps.shape)))
    assert len(seen) == units, seen
    assert found.are_residual == (name not in ("densenet121", "hiera_tiny_224"))
    assert all(shape[2] == shape[3] > 1 for _, shape in seen)
