"""Which cells are hidden, and what the token does there."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.masking import MaskToken, cell_mask, expand_mask, num_masked
from tests.pretrain.published_networks import GOLDEN

STATISTICS = json.loads((GOLDEN / "masks_stats.json").read_text())


def geometry(name):
    size, cell, ratio = re.fullmatch(r"S(\d+)_P(\d+)_M\d+_r([\d.]+)", name).groups()
    return int(size), int(cell), float(ratio)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_masks_have_the_count_and_the_statistics_of_the_published_generator(name):
    published = STATISTICS[name]
    rng, (size, cell, ratio) = np.random.default_rng(0), geometry(name)
    masks = np.stack([cell_mask(rng, size, cell, ratio) for _ in range(4000)]).astype(bool)
    assert masks.shape[1:] == (published["grid"],) * 2
    assert (masks.sum((1, 2)) == published["mask_count"]).all()
    share = published["true_ratio"]
    deviation = np.sqrt(share * (1 - share) / len(masks))
    assert np.abs(masks.mean(0) - share).max() < 4.5 * deviation
    neighbours = (masks[:, :, 1:] & masks[:, :, :-1]).mean()
    assert neighbours == pytest.approx(published["p_adjacent_both_expected"], abs=4.5 * deviation)


@given(cells=st.integers(1, 16), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_mask_hides_exactly_its_share_and_is_a_function_of_its_generator(cells, ratio, seed):
    masks = [cell_mask(np.random.default_rng(seed), 32 * cells, 32, ratio) for _ in range(2)]
    assert (masks[0] == masks[1]).all()
    assert masks[0].shape == (cells, cells)
    assert masks[0].dtype == np.uint8
    assert masks[0].sum() == num_masked(32 * cells, 32, ratio)
    assert 0 <= int(masks[0].sum()) - ratio * cells**2 < 1


def test_masks_of_different_samples_are_independent():
    masks = np.stack([cell_mask(np.random.default_rng((0, i)), 224, 32, 0.6) for i in range(300)]).reshape(300, 49)
    overlap = masks[:-1].astype(int) @ masks[1:].T
    assert overlap.mean() == pytest.approx(30 * 30 / 49, rel=0.01)
    assert len({mask.tobytes() for mask in masks}) == 300


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), ratio=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_expanding_repeats_every_cell(rows, columns, ratio, seed):
    mask = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (2, rows, columns), dtype=np.uint8))
    expanded = expand_mask(mask, (rows * ratio, columns * ratio * 2))
    expected = mask.repeat_interleave(ratio, 1).repeat_interleave(2 * ratio, 2)[:, None]
    assert torch.equal(expanded, expected.bool())


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="7 x 7 cells cannot be repeated to 15 x 14"):
        expand_mask(torch.zeros(1, 7, 7), (15, 14))
    with pytest.raises(ValueError, match="4 x 4 cells cannot be repeated to 2 x 2"):
        expand_mask(torch.zeros(1, 4, 4), (2, 2))


@pytest.mark.parametrize("form", ["replace", "add", "gated"])
def test_the_token_follows_its_formula(form):
    token = MaskToken(5, form=form)
    torch.nn.init.normal_(token.mask_token)
    if form == "gated":
        torch.nn.init.normal_(token.mask_gamma)
    features = torch.randn(2, 5, 4, 6)
    mask = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [0, 1]]])
    m = mask.repeat_interleave(2, 1).repeat_interleave(3, 2)[:, None]
    with token.hiding(mask):
        changed = token(features)
    expected = {
        "replace": lambda: features * (1 - m) + token.mask_token * m,
        "add": lambda: features + token.mask_token * m,
        "gated": lambda: features * (1 - m) + m * (token.mask_gamma * features + token.mask_token),
    }[form]()
    torch.testing.assert_close(changed, expected)
    assert token(features) is features  # no mask set: an encoder used elsewhere is not disturbed


def test_tokens_start_as_published():
    torch.manual_seed(0)
    gated = MaskToken(4096, form="gated")
    assert gated.mask_token.std().item() == pytest.approx(0.02, rel=0.05)
    assert (gated.mask_gamma == 1e-6).all()
    assert (MaskToken(8, form="replace", init="zero").mask_token == 0).all()
    assert [name for name, _ in gated.named_parameters()] == ["mask_token", "mask_gamma"]
    assert [name for name, _ in MaskToken(8, form="add").named_parameters()] == ["mask_token"]


@pytest.mark.parametrize("form", ["replace", "add", "gated"])
def test_the_token_keeps_type_and_memory_format(form):
    token, mask = MaskToken(8, form=form), torch.ones(2, 2, 2, dtype=torch.uint8)
    features = torch.randn(2, 8, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with token.hiding(mask):
        changed = token(features)
    assert changed.dtype == torch.bfloat16
    assert changed.is_contiguous(memory_format=torch.channels_last)
