"""What a frozen encoder is worth while it trains: k-NN accuracy, effective rank, and the loss on images held out.

It looks and touches nothing: evaluation mode, no gradients, nothing drawn from the generators of training; every mask
is a function of (seed, image). B images, D numbers of a feature.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.frozen import Readout
from engine.data.images import ImageIndex, check_same_classes, index_images, read_sample
from engine.data.order import SampleKey, generator
from engine.data.rounds import in_order, read
from engine.errors import DataError
from engine.run.open import Run
from evaluation.measures import hits, rank_me, votes
from evaluation.neighbours import nearest
from pretrain.config import PretrainConfig
from pretrain.data import centred
from pretrain.masking import cell_mask

NEIGHBOURS, TEMPERATURE = 20, 0.07
_CROP_PCT = 0.875
_MASK_STREAM = 0x303170  # of generator(): apart from the streams that training draws from

log = logging.getLogger("mim")
Evaluate = Callable[[Any, int, Callable[[], None]], dict[str, float]]


def monitor_of(config: PretrainConfig, run: Run) -> Evaluate | None:
    """What the loop calls for the measurements, where a monitor is asked for.

    Raises:
        DataError: its images cannot be used.
    """
    if not config.monitor.every_epochs:
        return None
    parts = monitor_images(config)
    for name, index in parts.items():
        run.pin_data(f"monitor {name}", index)
    monitor = _Monitor(config, run, parts)
    return lambda model, step, check_stop: monitor.measure(model, check_stop)


def monitor_images(config: PretrainConfig) -> dict[str, ImageIndex]:
    """{"train", "val"} of labelled images, or {"images"} without labels: at most max_images of each.

    Raises:
        DataError: the folder is missing or empty, or train/ and val/ have different classes.
    """
    root, options = Path(config.monitor.data), config.data

    def some(index: ImageIndex) -> ImageIndex:
        kept = np.unique(np.linspace(0, len(index) - 1, min(len(index), config.monitor.max_images)).round().astype(int))
        return index.subset(kept.tolist())

    if not ((root / "train").is_dir() and (root / "val").is_dir()):
        return {"images": some(index_images(root, labelled=False, options=options, unreadable="stop"))}
    train, val = (
        index_images(root / split, labelled=True, options=options, unreadable="stop") for split in ("train", "val")
    )
    check_same_classes(train, val)
    return {"train": some(train), "val": some(val)}


@dataclass(eq=False)
class _Views(Dataset[dict[str, Tensor]]):
    """`dataset[SampleKey]` -> {"image": uint8 (3, S, S), "mask": uint8 (g, g)}: a centre crop, and the same mask of it
    at every look."""

    index: ImageIndex
    config: PretrainConfig

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor]:
        config = self.config
        array, _ = read_sample(self.index, key, policy="stop", seed=config.seed)
        source = generator(config.seed, key, _MASK_STREAM)
        mask = cell_mask(source, config.image_size, config.mask.cell_size, config.mask.mask_ratio)
        return {"image": centred(array, config.image_size, _CROP_PCT), "mask": torch.from_numpy(mask)}


class _Monitor:
    def __init__(self, config: PretrainConfig, run: Run, parts: Mapping[str, ImageIndex]) -> None:
        self._config, self._run, self._parts = config, run, parts
        self._readout: Readout | None = None

    def measure(self, model: Any, check_stop: Callable[[], None]) -> dict[str, float]:
        """The metrics, on the main rank; the others wait at each batch until it is done."""
        size = self._config.monitor.batch_size
        if not self._run.main:
            for _ in range(sum(len(in_order(len(index), size)) for index in self._parts.values())):
                check_stop()
            return {}
        self._readout = self._readout or Readout(model.encoder)
        features: dict[str, npt.NDArray[np.float32]] = {}
        losses: dict[str, float] = {}
        held_out = "val" if "val" in self._parts else "images"
        for name, index in self._parts.items():
            rows = []
            views = _Views(index, self._config)
            for batch in read(views, in_order(len(index), size), num_workers=self._config.data.num_workers):
                check_stop()
                images = batch["image"].to(self._run.device)
                rows.append(self._features(model, images))
                if name == held_out:
                    terms = model(images, batch["mask"].to(self._run.device))
                    for term, value in terms.items():
                        losses[term] = losses.get(term, 0.0) + float(value) * len(images) / len(index)
            features[name] = np.concatenate(rows)
        metrics = {"held_out_loss": sum(losses.values())}
        if len(losses) > 1:
            metrics |= {f"held_out_{term}": value for term, value in losses.items()}
        metrics["rank_me"] = rank_me(features["train" if "train" in features else "images"])
        if "train" in features:
            metrics["knn_top1"] = self._accuracy(features["train"], features["val"])
        return metrics

    def _features(self, model: Any, images_bchw: Tensor) -> npt.NDArray[np.float32]:
        """(B, D): the mean over the last layer's patches or cells, before the final norm."""
        assert self._readout is not None
        level = self._readout(model.normalise(images_bchw), [self._readout.depth])[0]
        found: npt.NDArray[np.float32] = self._readout.mean(level, norm=False).float().cpu().numpy()
        return found

    def _accuracy(self, bank: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> float:
        """Percent of val that its neighbours in train name."""
        train, val = self._parts["train"], self._parts["val"]
        if train.labels is None or val.labels is None:
            raise DataError(f"{train.root} and {val.root} have no labels")
        similarities, places = nearest(bank, queries, NEIGHBOURS, self._run.device)
        scores = votes(
            similarities, train.labels[places], k=NEIGHBOURS, temperature=TEMPERATURE, num_classes=len(train.classes)
        )
        return 100 * float(hits(scores, val.labels, NEIGHBOURS)["top1"].mean())
