"""The data sets of a run: checked before training, and every sample a function of (seed, epoch, index).

Augmenting is MMSegmentation's transforms.
"""

import dataclasses
import json
import logging
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from engine.data.exclude import write_list
from engine.data.images import unreadable_paths
from engine.data.order import SampleKey, generator
from engine.data.seeded import seeded
from engine.distributed import barrier
from engine.run.open import Run
from segmentation.check import Fault, check_pairs, judge, refuse
from segmentation.config import SegmentationConfig
from segmentation.dataset import SuiteDataset
from segmentation.labels import classes_in
from segmentation.layout import SPLITS, PairIndex, Split, find_pairs
from segmentation.mmseg_adapter import evaluation_pipeline, mmseg_scope, multi_scale_pipeline, training_pipeline

log = logging.getLogger("mim")


@dataclass(eq=False)
class Pairs(Dataset[dict[str, Any]]):
    """A map-style data set: `dataset[SampleKey]` -> what the pipeline packs, {"inputs", "data_samples"}.

    Args:
        source: a SuiteDataset.
        seed: with the key, of everything its pipeline draws.
        kept: its positions that are used.
        multi_scale: whether a sample is packed at several scales: {"inputs": list, "data_samples": list}.
    """

    source: SuiteDataset
    seed: int
    kept: list[int]
    multi_scale: bool = False

    def __len__(self) -> int:
        return len(self.kept)

    def path(self, index: int) -> str:
        """The image of a sample."""
        return str(self.source.get_data_info(self.kept[index])["img_path"])

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        """Read and transform one use of a sample.

        Raises:
            DataError: a file cannot be used.
        """
        info = self.source.get_data_info(self.kept[key.index])
        with seeded(generator(self.seed, key)):
            packed: dict[str, Any] = self.source.pipeline(info)
        return packed


@dataclass(frozen=True)
class Sets:
    """The data of a run.

    Args:
        train: training pairs under the training pipeline.
        val: validation pairs at one scale.
        multi_scale: validation pairs at all scales with flips, if asked for.
        num_unreadable: training pairs left out.
    """

    train: Pairs
    val: Pairs
    multi_scale: Pairs | None
    num_unreadable: int


def open_data(config: SegmentationConfig, run: Run) -> Sets:
    """The checked training and validation pairs; the run is pinned to them.

    A run that resumes has been checked: it insists on the same files by name and size instead.

    Raises:
        DataError: a folder is missing, a pair is faulty, or the data set is another one than at the start.
    """
    pairs = find_pairs(config.data)
    if not _was_checked(run):
        _check(config, run, pairs)
    for split in SPLITS:
        run.pin_data(f"{split} images", pairs[split].images)
        run.pin_data(f"{split} annotations", pairs[split].maps)
    skipped = unreadable_paths(run.dir)
    train = make_pairs(config, "training", training_pipeline(config), skipped)
    val = make_pairs(config, "validation", evaluation_pipeline(config))
    multi_scale = None
    if config.evaluation.multi_scale:
        multi_scale = replace(make_pairs(config, "validation", multi_scale_pipeline(config)), multi_scale=True)
    return Sets(train, val, multi_scale, num_unreadable=len(skipped))


def _was_checked(run: Run) -> bool:
    path = run.dir / "data.json"
    return path.is_file() and f"{SPLITS[-1]} annotations" in json.loads(path.read_text())


def _check(config: SegmentationConfig, run: Run, pairs: dict[Split, PairIndex]) -> None:
    options, classes = config.data, classes_in(config.data)
    log.info("checking %s images and their label maps", f"{sum(len(part.images) for part in pairs.values()):,}")
    found = {split: check_pairs(part, classes, options) for split, part in pairs.items()}
    faults: list[Fault] = []
    skipped: list[Fault] = []
    for split, part in found.items():
        for fault in part.faults:
            leave_out = fault.unreadable and split == "training" and options.unreadable == "skip"
            (skipped if leave_out else faults).append(fault)
    num_train = len(pairs["training"].images)
    if not options.accepts_unreadable(len(skipped), num_train):
        log.warning(
            "%d of %d training pairs are unreadable, more than --data.max-unreadable %g accepts",
            *(len(skipped), num_train, options.max_unreadable),
        )
        faults += skipped
    refuse(sorted(faults), found, classes, options)
    judge(found, classes, options)
    for fault in skipped:
        log.warning("leaving out %s", fault.text)
    if skipped and run.main:
        write_list(run.dir / "unreadable.txt", (str(fault.path) for fault in skipped))
    barrier()  # the other ranks read that file


def make_pairs(
    config: SegmentationConfig, split: Split, pipeline: list[dict[str, Any]], skipped: set[str] | None = None
) -> Pairs:
    """The pairs of a split under a pipeline, without the skipped files."""
    with mmseg_scope():
        source = SuiteDataset(dataclasses.asdict(config.data), split, pipeline)
    infos = (source.get_data_info(i) for i in range(len(source)))
    kept = [i for i, info in enumerate(infos) if not skipped or not {info["img_path"], info["seg_map_path"]} & skipped]
    return Pairs(source, config.seed, kept)


def collate_training(samples: list[dict[str, Any]]) -> dict[str, list[torch.Tensor]]:
    """Packed samples to {"image": uint8 (3, H, W) each, "label": uint8 (1, H, W) each}; the sizes may differ where an
    image is smaller than the crop, and are padded on the device."""
    return {
        "image": [sample["inputs"] for sample in samples],
        "label": [sample["data_samples"].gt_sem_seg.data.to(torch.uint8) for sample in samples],
    }


def same_size_batches(pairs: Pairs, batch_size: int) -> list[list[int]]:
    """All positions, in batches of at most `batch_size` images of the same size."""
    if batch_size == 1:
        return [[i] for i in range(len(pairs))]
    by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(len(pairs)):
        with Image.open(pairs.path(i)) as image:
            by_size[image.size].append(i)
    return [group[i : i + batch_size] for group in by_size.values() for i in range(0, len(group), batch_size)]
