"""Predictions of a classifier over a folder of pictures, kept per image.

N images, B batch, K classes of the classifier.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from engine import use
from engine.data.images import read_sample
from engine.data.index import ImageIndex
from engine.data.order import SampleKey
from engine.distributed import pick_device
from engine.errors import DivergedError
from engine.run import storage
from engine.training.state import PRECISIONS
from evaluation.data import batches_in_order
from evaluation.robustness.classifier import LoadedClassifier
from evaluation.robustness.config import RobustnessConfig

TOP = 5
Best = npt.NDArray[np.int64]
"""Numbers of the up to five classes of the highest scores, best first, (N, min(5, K))."""


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


@dataclass(frozen=True)
class Predictor:
    """Predicts whole sets; what is done is kept in the run folder, so that a stopped run goes on with the next set.

    Args:
        classifier: its network is moved to this machine's device.
        config: batch size, workers, precision.
        run_dir: for predictions/<set>.npz, with one array for each mask, in the order of the sorted paths.
    """

    classifier: LoadedClassifier
    config: RobustnessConfig
    run_dir: Path

    def __call__(
        self,
        name: str,
        index: ImageIndex,
        masks: Mapping[str, Sequence[int] | None],
        transform: Callable[[Image.Image], Tensor],
    ) -> dict[str, Best]:
        """The classes of the highest scores of each image, under each mask.

        Args:
            name: of the set.
            index: its images.
            masks: name -> numbers of the classes that a prediction may be, None for all K. The scores of the others
                are put aside before the best are taken.
            transform: PIL image to uint8 (3, H, W).

        Raises:
            DataError: an image cannot be read.
            DivergedError: the scores of an image are not finite.
            CheckpointError: the predictions cannot be written.
        """
        path = self.run_dir / "predictions" / f"{name}.npz"
        known = _read(path)
        if known.keys() == masks.keys() and all(len(best) == len(index) for best in known.values()):
            return known
        best = self._predict(name, index, masks, transform)
        content = io.BytesIO()
        np.savez(content, **best)  # type: ignore[arg-type]
        with storage.storage_errors(self.run_dir):
            path.parent.mkdir(exist_ok=True)
            storage.write_atomic(path, content.getvalue())
        return best

    @torch.inference_mode()
    def _predict(
        self,
        name: str,
        index: ImageIndex,
        masks: Mapping[str, Sequence[int] | None],
        transform: Callable[[Image.Image], Tensor],
    ) -> dict[str, Best]:
        device, size, dtype = pick_device(), self.config.batch_size, PRECISIONS[self.config.precision]
        network = self.classifier.network.to(device)
        allowed = {
            key: None if only is None else torch.tensor(list(only), device=device) for key, only in masks.items()
        }
        best: dict[str, list[Best]] = {key: [] for key in masks}
        batches = batches_in_order(
            Pictures(index, transform), len(index), 0, batch_size=size, num_workers=self.config.data.num_workers
        )
        for _ in use.each(range(-(-len(index) // size)), name):
            first, images = next(batches)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
                logits = network(self.classifier.normalise(images.to(device, non_blocking=True))).float()
            finite = logits.isfinite().all(dim=1)
            if not finite.all():
                path = index.path(first + int((~finite).nonzero()[0, 0]))
                raise DivergedError(f"{self.classifier.reference}: its scores are not finite, for {path} first")
            for key, only in allowed.items():
                best[key].append(_best(logits, only).cpu().numpy())
        return {key: np.concatenate(parts) for key, parts in best.items()}


def _best(logits_bk: Tensor, only: Tensor | None) -> Tensor:
    """Numbers of the highest scores among `only`, (B, min(5, how many))."""
    scores = logits_bk if only is None else logits_bk[:, only]
    found = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
    return found if only is None else only[found]


def _read(path: Path) -> dict[str, Best]:
    """What is kept; {} where there is nothing that can be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except Exception:  # whatever a torn archive makes zipfile and numpy raise: it is predicted again
        return {}
