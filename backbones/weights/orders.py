"""The same weights in the order and shape of another library."""

import math

from torch import Tensor


def flat(tensor: Tensor) -> Tensor:
    """(any shape) -> (n,)."""
    return tensor.reshape(-1)


def row(tensor: Tensor) -> Tensor:
    """(any shape) -> (1, n)."""
    return tensor.reshape(1, -1)


def from_sparse(kernel: Tensor) -> Tensor:
    """The kernel (K K, in, out) of a sparse convolution, or (K K, C) of a depthwise one, columns first, as a dense one
    (out, in, K, K) or (C, 1, K, K)."""
    side = math.isqrt(kernel.shape[0])
    dense = kernel.permute(2, 1, 0) if kernel.ndim == 3 else kernel.T.unsqueeze(1)
    return dense.reshape(*dense.shape[:2], side, side).transpose(2, 3).contiguous()


def to_sparse(kernel: Tensor) -> Tensor:
    """The inverse of from_sparse."""
    sparse = kernel.transpose(2, 3).flatten(2)
    return (sparse.squeeze(1).T if kernel.shape[1] == 1 else sparse.permute(2, 1, 0)).contiguous()


def channels_first(merged: Tensor) -> Tensor:
    """Order the 4C inputs of a patch merging (last axis) by channel, row, column instead of column, row, channel."""
    shape = merged.shape
    return merged.reshape(*shape[:-1], 2, 2, shape[-1] // 4).transpose(-3, -2).movedim(-1, -3).reshape(shape)


def channels_last(merged: Tensor) -> Tensor:
    """The inverse of channels_first."""
    shape = merged.shape
    return merged.reshape(*shape[:-1], shape[-1] // 4, 2, 2).movedim(-3, -1).transpose(-3, -2).reshape(shape)
