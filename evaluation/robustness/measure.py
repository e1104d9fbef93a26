"""Predictions of a classifier over a folder of pictures, kept per image, and the accuracies made from them.

N images, B batch, K classes of the classifier.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.utils.data import Dataset

from classification.evaluation import batch_of_rank
from engine import use
from engine.data.images import read_sample
from engine.data.index import ImageIndex
from engine.data.sampler import LoaderOptions, SampleKey, make_batches
from engine.distributed import pick_device
from engine.errors import DivergedError
from evaluation.robustness.classifier import LoadedClassifier

TOP = 5
Best = npt.NDArray[np.int64]
"""Numbers of the up to five classes of the highest scores, best first, (N, min(5, K))."""


@dataclass(frozen=True)
class Accuracy:
    """Percent of right images, with the interval of a bootstrap over images.

    Args:
        top1: the class of the highest score is right.
        low: lower end of the interval of top1.
        high: its upper end.
        num_images: how many counted.
        top5: one of the five highest is right; None where that means nothing (five classes or fewer).
    """

    top1: float
    low: float
    high: float
    num_images: int
    top5: float | None = None


def accuracy(first_n: npt.NDArray[np.bool_], among_five_n: npt.NDArray[np.bool_] | None = None) -> Accuracy:
    """The accuracy over images of which each is right or wrong."""
    low, high = bootstrap_interval(int(first_n.sum()), len(first_n))
    top5 = None if among_five_n is None else 100 * float(among_five_n.mean())
    return Accuracy(100 * float(first_n.mean()), low, high, len(first_n), top5)


def bootstrap_interval(right: int, num: int, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a share of `num` images, in percent.

    Resampling images that are right or wrong gives a binomial count: its quantiles are what infinitely many resamples
    would give, so nothing is drawn.
    """
    ends = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], num, right / num)
    return float(100 * ends[0] / num), float(100 * ends[1] / num)


@dataclass(eq=False)
class Pictures(Dataset[Tensor]):
    """A map-style data set: `dataset[SampleKey]` -> uint8 (3, H, W).

    Args:
        index: the files.
        transform: PIL image to uint8 tensor.
    """

    index: ImageIndex
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> Tensor:
        """Read, decode and transform an image; one that cannot be used ends the measurement."""
        array, _ = read_sample(self.index, key, policy="stop", seed=0)
        return self.transform(Image.fromarray(array))


@torch.inference_mode()
def predict(
    classifier: LoadedClassifier,
    index: ImageIndex,
    masks: Mapping[str, Sequence[int] | None],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    num_workers: int,
    title: str = "",
) -> dict[str, Best]:
    """The classes of the highest scores of each image, under each mask.

    Args:
        classifier: its network is moved to this machine's device.
        index: the images.
        masks: name -> numbers of the classes that a prediction may be, None for all K. The scores of the others are
            put aside before the best are taken.
        transform: PIL image to uint8 (3, H, W).
        batch_size: images at once.
        num_workers: reader processes.
        title: of the progress bar.

    Raises:
        DataError: an image cannot be read.
        DivergedError: the scores of an image are not finite.
    """
    device = pick_device()
    network = classifier.network.to(device)
    allowed = {name: None if only is None else torch.tensor(list(only), device=device) for name, only in masks.items()}
    dataset = Pictures(index, transform)
    num_batches = math.ceil(len(index) / batch_size)
    options = LoaderOptions(num_workers=num_workers, pin_memory=device.type == "cuda")
    batches = make_batches(
        dataset, lambda number: batch_of_rank(number, len(index), batch_size, 0, 1), range(num_batches), options
    )
    best: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in masks}
    for number in use.each(range(num_batches), title):
        for images in next(batches):
            logits = network(classifier.normalise(images.to(device, non_blocking=True))).float()
            if not logits.isfinite().all():
                bad = int((~logits.isfinite().all(dim=1)).nonzero()[0, 0])
                path = index.path(number * batch_size + bad)
                raise DivergedError(f"{classifier.source}: its scores are not finite, for {path} first")
            for name, only in allowed.items():
                best[name].append(_best(logits, only).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in best.items()}


def _best(logits_bk: Tensor, only: Tensor | None) -> Tensor:
    """Numbers of the highest scores among `only`, (B, min(5, how many))."""
    scores = logits_bk if only is None else logits_bk[:, only]
    found = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
    return found if only is None else only[found]


def judge(best: Best, labels_n: npt.NDArray[np.int64]) -> Accuracy:
    """The accuracy of predictions against one label each."""
    hits = best == labels_n[:, None]
    return accuracy(hits[:, 0], hits.any(axis=1) if best.shape[1] == TOP else None)
