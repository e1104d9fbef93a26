"""Top-1 and top-5 accuracy over a validation set, each image counted exactly once on any number of ranks.

The counts over the ranks' batches (engine/data/rounds.py), which are whole numbers, are added up. B batch, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from engine import distributed
from engine.data.rounds import in_order, rounds


def correct_counts(logits_bk: Tensor, labels_b: Tensor) -> Tensor:
    """How many labels are the first, and among the first five, of the scores: int64 (2,)."""
    best = logits_bk.float().topk(min(5, logits_bk.shape[1]), dim=1).indices
    hits = best == labels_b[:, None]
    return torch.stack([hits[:, 0].sum(), hits.any(dim=1).sum()])


@torch.inference_mode()
def evaluate(
    predict: Callable[[Tensor], Tensor],
    dataset: Dataset[Any],
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    check_stop: Callable[[], None],
) -> dict[str, float]:
    """Accuracy of `predict` over a data set.

    Args:
        predict: uint8 images (B, 3, H, W) on `device` to logits (B, K); must not communicate between ranks.
        dataset: `dataset[SampleKey]` -> {"image": uint8 (3, H, W), "label": int64 ()}; sized.
        batch_size: images per batch, on each rank.
        num_workers: reader processes.
        device: where `predict` computes.
        check_stop: called equally often on every rank, between batches; raises to end the evaluation.

    Returns:
        top1 and top5 in percent and num_images.
    """
    batches = in_order(len(dataset), batch_size)  # type: ignore[arg-type]
    options = {"num_workers": num_workers, "pin_memory": device.type == "cuda"}
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for mine in rounds(dataset, batches, check_stop, **options):
        for batch in mine:
            labels = batch["label"].to(device, non_blocking=True)
            logits = predict(batch["image"].to(device, non_blocking=True))
            counts[:2] += correct_counts(logits, labels)
            counts[2] += len(labels)
    top1, top5, counted = distributed.sum_over_ranks(counts).tolist()
    return {"top1": 100 * top1 / counted, "top5": 100 * top5 / counted, "num_images": counted}


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers the optimizer moves."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
