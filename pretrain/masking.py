"""Which cells of an image are hidden, and the token that marks them inside the encoder.

Shapes: B batch, C channels, H W pixels, h w positions of a feature map, g cells along a side of the image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.config import num_masked
from pretrain.methods.released import TokenForm, TokenInit


def cell_mask(rng: np.random.Generator, image_size: int, cell_size: int, mask_ratio: float) -> np.ndarray:
    """Draw which cells of one image are hidden: exactly `num_masked` of them, every choice equally likely.

    Args:
        rng: source of the draw; one permutation is taken from it.
        image_size: side of the square image in pixels, a multiple of `cell_size`.
        cell_size: side of a cell in pixels (published: 32).
        mask_ratio: share of the cells to hide (published: 0.6, which hides 30 of the 49 cells at 224 pixels).

    Returns:
        uint8 (g, g) with g = image_size / cell_size, 1 where hidden.
    """
    side = image_size // cell_size
    mask = np.zeros(side * side, dtype=np.uint8)
    mask[rng.permutation(side * side)[: num_masked(image_size, cell_size, mask_ratio)]] = 1
    return mask.reshape(side, side)


def expand_mask(mask_bgg: Tensor, size: Sequence[int], dtype: torch.dtype = torch.bool) -> Tensor:
    """Repeat a mask on the cell grid up to a feature map or an image, on the device it is on.

    Args:
        mask_bgg: (batch, rows, columns) of any type, non-zero where hidden.
        size: (height, width) wanted, whole multiples of the grid.
        dtype: of the result, in which hidden is True or 1.

    Returns:
        (batch, 1, height, width) of that type.

    Raises:
        ValueError: a side is not a multiple of the grid; a truncated or resized mask would hide other pixels.
    """
    batch, rows, columns = mask_bgg.shape
    height, width = size
    if height % rows or width % columns:
        raise ValueError(
            f"a mask of {rows} x {columns} cells cannot be repeated to {height} x {width}: each side must be a "
            "multiple; choose mask.cell_size as a multiple of the stride where the token enters"
        )
    cells = mask_bgg.bool().to(dtype)[:, None, :, None, :, None]
    repeated = cells.expand(batch, 1, rows, height // rows, columns, width // columns)
    return repeated.reshape(batch, 1, height, width)


def mask_on_map(mask_bgg: Tensor, size: Sequence[int]) -> Tensor:
    """The mask on a feature map (h, w): bool (batch, 1, h, w), True where hidden.

    Where a side is no multiple of the grid (networks whose convolutions do not pad, or stride 64), a position belongs
    to the cell in which its centre lies; so a part of a hidden cell may be seen at its border.
    """
    _, rows, columns = mask_bgg.shape
    if size[0] % rows == 0 and size[1] % columns == 0:
        return expand_mask(mask_bgg, size)
    row, column = (
        (2 * torch.arange(side, device=mask_bgg.device) + 1) * cells // (2 * side)
        for side, cells in zip(size, (rows, columns), strict=True)
    )
    return mask_bgg.bool()[:, row][:, :, column][:, None]


class MaskToken(nn.Module):
    """The learnable token t that enters the encoder where the mask m is 1; visible features f pass unchanged.

    form:
        "replace": f (1 - m) + t m (SimMIM).
        "add": f + t m (the paper's A2MIM; its released ViT).
        "gated": f (1 - m) + m (gamma f + t), gamma per channel, starting at 1e-6 (the released A2MIM CNNs): it starts
            as a replacement and can learn to let masked features through.
    init: "normal" (truncated normal, std 0.02), or "zero" (what the released ConvNeXt does).

    The encoder calls it (through `Entry.attach`) on maps (B, C, h, w). Outside `hiding` it changes nothing.
    """

    def __init__(self, channels: int, *, form: TokenForm, init: TokenInit = "normal") -> None:
        super().__init__()
        self.form = form
        self.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        if init == "normal":
            nn.init.trunc_normal_(self.mask_token, std=0.02)
        if form == "gated":
            self.mask_gamma = nn.Parameter(torch.full((1, channels, 1, 1), 1e-6))
        self._mask_bgg: Tensor | None = None

    @contextmanager
    def hiding(self, mask_bgg: Tensor) -> Iterator[None]:
        """Mark the cells of (batch, g, g) in every forward pass made inside this context."""
        self._mask_bgg = mask_bgg
        try:
            yield
        finally:
            self._mask_bgg = None

    def forward(self, features_bchw: Tensor) -> Tensor:
        """The features with the token at hidden positions, same shape, type and memory format."""
        if self._mask_bgg is None:
            return features_bchw
        mask = mask_on_map(self._mask_bgg, features_bchw.shape[-2:])
        # The parameters are float32; under autocast the features are not, and must stay as they are.
        token = self.mask_token.to(features_bchw.dtype)
        if self.form == "replace":
            hidden = token
        elif self.form == "add":
            hidden = features_bchw + token
        else:
            hidden = torch.addcmul(token, self.mask_gamma.to(features_bchw.dtype), features_bchw)
        return torch.where(mask, hidden, features_bchw)
