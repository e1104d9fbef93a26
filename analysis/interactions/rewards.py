"""The reward v(S): what an encoder makes of an image of which only the cells in S are there, as one number.

B coalitions, K classes, C channels. Everything here is float64: an interaction is a difference of nearly equal rewards.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Reward = Callable[[Tensor], Tensor]
"""(B, K) logits or (B, C) features -> (B,) rewards, float64."""


def margin(logits_bk: Tensor, label: int) -> Tensor:
    """log p / (1 - p) of the true class: z_y - log sum over the other classes of exp z ("modified" as published).

    Args:
        logits_bk: at least two classes.
        label: y.
    """
    logits_bk = logits_bk.double()
    others = torch.arange(logits_bk.shape[1], device=logits_bk.device) != label
    return logits_bk[:, label] - logits_bk[:, others].logsumexp(dim=1)


def log_probability(logits_bk: Tensor, label: int) -> Tensor:
    """log p of the true class ("normal" as published)."""
    return F.log_softmax(logits_bk.double(), dim=1)[:, label]


def logit(logits_bk: Tensor, label: int) -> Tensor:
    """z of the true class ("yi" as published)."""
    return logits_bk.double()[:, label]


def cosine(features_bc: Tensor, full_c: Tensor) -> Tensor:
    """Cosine between an image's features and those of the whole image, for an encoder without a classifier.

    Args:
        features_bc: of the masked images.
        full_c: of the whole one.
    """
    return F.cosine_similarity(features_bc.double(), full_c.double()[None], dim=1)


OF_CLASSES = {"margin": margin, "log-probability": log_probability, "logit": logit}
"""Rewards of a true class, by the names of the command line."""
