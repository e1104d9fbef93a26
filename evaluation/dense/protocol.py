"""The dense protocol: what evaluation/protocols.py asks of a protocol's module."""

from dataclasses import dataclass

import numpy as np

from backbones import Encoder
from engine.data.index import ImageIndex
from engine.errors import DataError
from engine.run.open import Run
from evaluation.dense.config import DenseConfig
from evaluation.measured import Inputs, Measured
from segmentation.layout import SPLITS, PairIndex, Split, find_pairs, stem_of

VERSION = 1
_STREAM = 0xDE75


@dataclass(frozen=True)
class Pairs:
    """Images and label maps of both splits."""

    pairs: dict[Split, PairIndex]

    @property
    def indices(self) -> dict[str, ImageIndex]:
        """What a run insists on."""
        names = {"training": "train", "validation": "val"}
        found = {names[split]: self.pairs[split].images for split in SPLITS}
        return {**found, **{f"{names[split]} maps": self.pairs[split].maps for split in SPLITS}}


def open_data(config: DenseConfig) -> Pairs:
    """The pairs under data.root.

    Raises:
        DataError: a folder is missing or empty, or an image or a label map has no partner.
    """
    pairs = find_pairs(config.data)
    problems = [text for split in SPLITS for _, text in pairs[split].problems()]
    if problems:
        more = f" and {len(problems) - 5:,} more" if len(problems) > 5 else ""
        raise DataError("; ".join(problems[:5]) + more)
    return Pairs({**pairs, "training": part_of(pairs["training"], config.train_images, config.seed)})


def part_of(pairs: PairIndex, number: int, seed: int) -> PairIndex:
    """`number` of the pairs, drawn by the seed; all where that is 0 or there are no more."""
    if number == 0 or number >= len(pairs.images):
        return pairs
    source = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _STREAM))))
    stems = sorted(stem_of(path) for path in pairs.images.paths)
    kept = {stems[i] for i in source.permutation(len(stems))[:number]}

    def some(index: ImageIndex, suffix: str) -> ImageIndex:
        return index.subset(i for i, path in enumerate(index.paths) if stem_of(path).removesuffix(suffix) in kept)

    return PairIndex(some(pairs.images, ""), some(pairs.maps, pairs.suffix), pairs.suffix)


def recipe(config: DenseConfig) -> str:
    """Its name: each head is another protocol."""
    return f"dense-{config.head}"


def measure(run: Run, encoder: Encoder, config: DenseConfig, inputs: Inputs) -> Measured:
    """mIoU of the head that is asked for."""
    if config.head == "knn":
        from evaluation.dense.patches import measure_nearest

        return measure_nearest(run, encoder, config, inputs)
    from evaluation.dense.linear import measure_linear  # imports MMSegmentation

    return measure_linear(run, encoder, config)
