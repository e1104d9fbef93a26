"""Position tables for another image or window size.

T rows of a table, C channels, n heads, w window side in patches.
"""

import math

import numpy as np
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

TABLE = "relative_position_bias_table"


def resize_tensor(name: str, tensor: Tensor, wanted: torch.Size, net: nn.Module) -> Tensor:
    """`tensor`, called `name` in `net`, with the shape `wanted` if only image size or singleton axes differ.

    A first convolution of RGB images becomes one of other channels as timm does it: the sum over RGB for one channel,
    RGB repeated and scaled by 3 / channels for others. Returned unchanged if anything else differs.
    """
    if [size for size in tensor.shape if size != 1] == [size for size in wanted if size != 1]:
        return tensor.reshape(wanted)  # a linear layer stored as a 1x1 convolution, or the reverse
    if tensor.ndim != len(wanted) or tensor.shape[-1] != wanted[-1]:
        return tensor
    if other_channels(tensor.shape, wanted):
        adapted: Tensor = adapt_input_conv(wanted[1], tensor)
        return adapted
    if name.endswith("pos_embed") and tensor.ndim == 3:
        num_prefix = getattr(net, "num_prefix_tokens", 0)
        grid = getattr(net, "patch_embed").grid_size  # noqa: B009 (nn.Module's attributes are untyped)
        resampled: Tensor = resample_abs_pos_embed(tensor, list(grid), num_prefix_tokens=num_prefix)
        return resampled
    if name.endswith(TABLE) and tensor.ndim == 2:
        window = getattr(net.get_submodule(name.rpartition(".")[0]), "window_size")  # noqa: B009
        return resize_bias_table(tensor, wanted[0], window)
    return tensor


def other_channels(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a convolution (C out, C in, h, w) of RGB images is asked for with other channels than those three."""
    if len(shape) != 4 or len(wanted) != 4 or shape[1] != 3 or wanted[1] == 3:
        return False
    return shape[0] == wanted[0] and shape[2:] == wanted[2:]


def resize_bias_table(table_tn: Tensor, num_rows: int, window: tuple[int, int]) -> Tensor:
    """A relative position bias table (T, n) for a `window` (rows, columns) of another size: (num_rows, n).

    Rows are the (2w - 1)^2 offsets between two positions of a square window, then those of the class token if there
    are any (they stay). The old offsets are placed at growing distances (a geometric progression that reaches the new
    border) and read off linearly in between, so that offset 0 stays offset 0 and near ones change least: the scheme of
    BEiT and SimMIM, with linear instead of cubic interpolation.
    """
    num_extra = num_rows - math.prod(2 * side - 1 for side in window)
    old_side = math.isqrt(table_tn.shape[0] - num_extra)
    if num_extra < 0 or old_side**2 != table_tn.shape[0] - num_extra:
        return table_tn  # not a table of a square window
    offsets, extra = table_tn[: old_side**2], table_tn[old_side**2 :]
    rows, columns = (_reading_weights(old_side, 2 * side - 1).to(table_tn.device) for side in window)
    square = offsets.double().view(old_side, old_side, -1)
    resized = torch.einsum("ri,cj,ijn->rcn", rows, columns, square).flatten(0, 1)
    return torch.cat([resized.to(table_tn.dtype), extra])


def _reading_weights(old_side: int, new_side: int) -> Tensor:
    """Linear interpolation at the new offsets as a matrix (new_side, old_side)."""
    reach, wanted = old_side // 2, new_side // 2
    ratio = _growth(reach, wanted)
    distances = np.cumsum(ratio ** np.arange(reach))  # of the old offsets 1, 2, ... in new patches
    positions = np.concatenate([-distances[::-1], [0.0], distances])
    weights = [np.interp(np.arange(-wanted, wanted + 1), positions, unit) for unit in np.eye(old_side)]
    return torch.from_numpy(np.stack(weights, axis=1))


def _growth(reach: int, wanted: int) -> float:
    """Ratio of the progression 1 + q + q^2 + ... of `reach` terms whose sum is `wanted`, between 1 and 1.5."""
    low, high = 1.0, 1.5
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if np.sum(middle ** np.arange(reach)) > wanted else (middle, high)
    return low
