"""The classification losses, on label distributions (mixed and smoothed beforehand). B batch, K classes."""

from collections.abc import Callable

import torch.nn.functional as F
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from torch import Tensor

from classification.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig) -> Loss:
    """The loss of a recipe: (logits_bk, targets_bk) -> scalar, in float32 whatever the logits' precision.

    "cross_entropy": mean over the batch of -sum_k target * log softmax. "bce": mean over batch and classes of the
    sigmoid cross entropy (RSB, section 3), the targets first made 0 or 1 if there is a threshold.
    """
    criterion: Loss = F.cross_entropy
    if config.kind == "bce":
        criterion = BinaryCrossEntropy(smoothing=0.0, target_threshold=config.target_threshold)
    return lambda logits_bk, targets_bk: criterion(logits_bk.float(), targets_bk)
