import pytest
import torch
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

from backbones.weights.resize import resize_bias_table


def table(window: int, num_extra: int) -> torch.Tensor:
    return torch.randn((2 * window - 1) ** 2 + num_extra, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("old", "new"), [(6, 7), (7, 12), (14, 16), (14, 24)])
@pytest.mark.parametrize("num_extra", [0, 3])
def test_larger_windows_get_the_numbers_of_timms_own_resizing(old, new, num_extra):
    source = table(old, num_extra)
    rows = (2 * new - 1) ** 2 + num_extra
    expected = resize_rel_pos_bias_table(source, (new, new), (rows, 2))
    assert torch.allclose(resize_bias_table(source, rows, (new, new)), expected, atol=1e-3)


@pytest.mark.parametrize("new", [7, 14, 24])
def test_offset_zero_and_the_class_tokens_rows_stay(new):
    source = table(14, 3)
    rows = (2 * new - 1) ** 2 + 3
    resized = resize_bias_table(source, rows, (new, new))
    assert torch.equal(resized[-3:], source[-3:])
    assert torch.allclose(resized[(rows - 3) // 2], source[27 * 27 // 2])


def test_the_same_window_changes_nothing():
    source = table(7, 0)
    assert torch.allclose(resize_bias_table(source, 169, (7, 7)), source, atol=1e-5)


def test_a_smaller_window_keeps_the_near_offsets_as_they_are():
    """The number of patches between two positions means the same in any window."""
    source = table(14, 0)
    resized = resize_bias_table(source, 13 * 13, (7, 7)).view(13, 13, 2)
    assert torch.allclose(resized, source.view(27, 27, 2)[7:20, 7:20], atol=1e-5)


def test_rows_and_columns_are_not_swapped():
    by_row = torch.arange(11.0).repeat_interleave(11).view(121, 1)
    resized = resize_bias_table(by_row, 169, (7, 7)).view(13, 13)
    assert torch.allclose(resized, resized[:, :1].expand(13, 13))
    assert (resized[1:, 0] > resized[:-1, 0]).all()


def test_a_window_that_is_not_square_is_read_off_its_two_sides():
    resized = resize_bias_table(table(6, 0), 13 * 15, (7, 8))
    assert resized.shape == (195, 2)
    assert torch.equal(resized[97], table(6, 0)[60])
