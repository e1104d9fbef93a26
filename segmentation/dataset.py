"""Our pairs of images and label maps as an MMSegmentation data set: what its pipelines and tools take."""

# ruff: noqa: E402 - MMSegmentation has to be imported by import_mmsegmentation first

import dataclasses
from typing import Any

from segmentation.framework import import_mmsegmentation

import_mmsegmentation()

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from segmentation.config import DataConfig
from segmentation.labels import classes_in
from segmentation.layout import Split, find_pairs, find_validation


@DATASETS.register_module()
class SuiteDataset(BaseSegDataset):  # type: ignore[misc]
    """The pairs of a split, in the order of the images' names; ReadLabels in the pipeline knows the classes.

    Args:
        options: fields of DataConfig.
        split: "training" or "validation".
        pipeline: of transforms.
    """

    def __init__(self, options: dict[str, Any], split: Split, pipeline: list[dict[str, Any]], **more: Any) -> None:
        self.options, self.split = DataConfig(**options), split
        self.classes = classes_in(self.options)
        metainfo = {"classes": self.classes.names, "palette": self.classes.palette.tolist()}
        super().__init__(metainfo=metainfo, pipeline=pipeline, img_suffix="", seg_map_suffix="", **more)

    def load_data_list(self) -> list[dict[str, Any]]:
        """{"img_path", "seg_map_path"} of every pair, with what MMSegmentation's own steps look for beside them."""
        rest: dict[str, Any] = {"label_map": None, "reduce_zero_label": False, "seg_fields": []}
        validation = self.split == "validation"
        pairs = find_validation(self.options) if validation else find_pairs(self.options)["training"]
        return [{"img_path": image, "seg_map_path": label_map, **rest} for image, label_map in pairs.matched()]


def dataset_config(options: DataConfig, split: Split, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    """A SuiteDataset as MMSegmentation's registry builds it."""
    return {"type": "SuiteDataset", "options": dataclasses.asdict(options), "split": split, "pipeline": pipeline}
