"""Rewards of many coalitions of one image, each coalition computed once.

B coalitions in a batch, g the side of the grid, H W pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from analysis.interactions.rewards import Reward
from analysis.interactions.sampling import Cells, Masks, coalitions, draw_contexts

Outputs = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, H, W) -> logits or features (B, K)."""


def masked_images(image_chw: Tensor, masks_bn: Tensor) -> Tensor:
    """The image with the cells that are absent at 0, which after normalising is the mean colour of the data set.

    Pixel (y, x) belongs to the cell in row floor(y g / H) and column floor(x g / W), also where g does not divide them.

    Args:
        image_chw: normalised.
        masks_bn: (B, g * g) bool, on the image's device.

    Returns:
        (B, C, H, W).
    """
    grid = int(masks_bn.shape[1] ** 0.5)
    height, width = image_chw.shape[1:]
    rows = torch.arange(height, device=image_chw.device) * grid // height
    columns = torch.arange(width, device=image_chw.device) * grid // width
    masks_bhw = masks_bn.view(-1, grid, grid)[:, rows][:, :, columns]
    return image_chw[None] * masks_bhw[:, None].to(image_chw.dtype)


def rewards_of(
    masks: Masks, image_chw: Tensor, outputs: Outputs, reward: Reward, *, batch_size: int, first: int = 0
) -> Iterator[list[float]]:
    """The rewards of coalitions in batches, from the one numbered `first` on.

    Batches begin at multiples of `batch_size`: a computation that is continued has the same ones.

    Args:
        masks: (coalitions, n).
        image_chw: normalised, on the device.
        outputs: of the network.
        reward: of an output.
        batch_size: coalitions in one forward pass; memory grows with it.
        first: how many are known already.
    """
    with torch.inference_mode():
        for start in range(first - first % batch_size, len(masks), batch_size):
            batch = torch.from_numpy(masks[start : start + batch_size]).to(image_chw.device)
            found: list[float] = reward(outputs(masked_images(image_chw, batch))).tolist()
            yield found[max(first - start, 0) :]


class Plan:
    """The coalitions of one image: all variants of all contexts of all orders, and which of them are the same.

    Args:
        pairs: (pairs, 2).
        orders: sizes of contexts.
        num_contexts: for each pair and order.
        num_players: n.
        index: of the image.
        seed: of the analysis.
    """

    def __init__(
        self, pairs: Cells, orders: list[int], num_contexts: int, *, num_players: int, index: int, seed: int
    ) -> None:
        shape = (len(orders), len(pairs), num_contexts, 4)
        self.pairs = pairs
        packed = np.empty((*shape, -(-num_players // 8)), dtype=np.uint8)
        for place, order in enumerate(orders):
            contexts = draw_contexts(pairs, order, num_contexts, num_players=num_players, index=index, seed=seed)
            packed[place] = np.packbits(coalitions(pairs, contexts, num_players), axis=3)
        # With few cells present or absent, contexts and variants repeat: an order of 0 has one context only.
        rows = packed.reshape(-1, packed.shape[-1])
        keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        self.masks: Masks = np.unpackbits(rows[first], axis=1, count=num_players).astype(np.bool_)
        """(different coalitions, n)."""
        self._inverse = inverse.reshape(shape)
        self.num_variants = inverse.size
        """Forward passes without this: orders * pairs * contexts * 4."""

    def spread(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards of `masks` -> (orders, pairs, contexts, 4)."""
        return np.asarray(rewards)[self._inverse]
