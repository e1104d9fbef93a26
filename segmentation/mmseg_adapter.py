"""From a typed configuration to MMSegmentation's own: model, data set and transforms, and the model built from it.

Importing this module also registers what is ours (SuiteEncoder, LinearHead, SuiteDataset, ReadWholeImage, ReadLabels,
SuiteOptimizerConstructor), so a dumped configuration names it in its `custom_imports`.
"""
# ruff: noqa: E402 - MMSegmentation has to be imported by import_mmsegmentation first

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segmentation.framework import import_mmsegmentation

import_mmsegmentation()

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn

from backbones import IMAGENET_MEAN, IMAGENET_STD
from backbones.probe import refusal_of
from engine.errors import ConfigError
from engine.training.in_float32 import predict_in_float32
from segmentation import dataset, linear_head, optimizer, transforms  # noqa: F401 - they register their classes
from segmentation.config import DataConfig, SegmentationConfig
from segmentation.encoder import shape_of_encoder
from segmentation.labels import IGNORED, classes_in, spell_out


@contextmanager
def mmseg_scope() -> Iterator[None]:
    """Inside, type names are looked up in MMSegmentation's registries, and it logs and warns about nothing."""
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        warnings.simplefilter("ignore")
        yield


def build_segmentor(config: SegmentationConfig) -> nn.Module:
    """The EncoderDecoder, initialised from the seed, its encoder not yet from `config.init`.

    Raises:
        ConfigError: encoder, head and evaluation do not go together.
        BackboneError: the name, the size or the drop path do not fit a timm network.
    """
    settings = model_config(config)
    torch.manual_seed(config.seed)
    with mmseg_scope():
        segmentor: Any = MODELS.build(ConfigDict(settings))
        segmentor.init_weights()
    encoder, twice = segmentor.backbone.encoder, 2 * config.image_size
    if config.evaluation.mode == "whole" and (reason := refusal_of(encoder, encoder.features, (twice, twice))):
        raise ConfigError(
            f"{config.model} built for image_size {config.image_size} refuses images of {twice} pixels ({reason}): use "
            "--evaluation.mode slide"
        )
    heads = [segmentor.decode_head, *([segmentor.auxiliary_head] if segmentor.with_auxiliary_head else [])]
    predict_in_float32(head.conv_seg for head in heads)
    return segmentor  # type: ignore[no-any-return]


def model_config(config: SegmentationConfig, *, init: str = "none") -> dict[str, Any]:
    """The model as MMSegmentation's registry builds it.

    Args:
        config: of the run.
        init: what SuiteEncoder.init_weights loads; our own loop loads by itself, to report what was loaded.
    """
    encoder_options = {
        "model": config.model,
        "image_size": config.image_size,
        "drop_path": config.drop_path,
        "output_stride": config.output_stride,
        "maps": config.head.maps if config.head.kind == "linear" else "stages",
        "frozen": config.freeze == "all",
    }
    encoder = shape_of_encoder(encoder_options)
    channels, head, evaluation = encoder.channels, config.head, config.evaluation
    size = (config.image_size, config.image_size)
    pyramid = head.kind == "upernet" and encoder.encoder.single_stride
    settings: dict[str, Any] = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [255 * value for value in IMAGENET_MEAN],
            "std": [255 * value for value in IMAGENET_STD],
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": IGNORED,
            "size": size,
        },
        "backbone": {"type": "SuiteEncoder", **encoder_options, "init": init},
        "neck": {"type": "Feature2Pyramid", "embed_dim": channels[-1], "rescales": [4, 2, 1, 0.5], "norm_cfg": _NORM},
        "decode_head": _HEADS[head.kind](config, channels),
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    if not pyramid:
        del settings["neck"]
    if head.aux_channels:
        settings["auxiliary_head"] = _auxiliary_head(config, channels)
    if evaluation.mode == "slide":
        stride = config.image_size * 2 // 3
        settings["test_cfg"] = {"mode": "slide", "crop_size": size, "stride": (stride, stride)}
        # Images smaller than the window (long and narrow, or at a small scale) are padded to it, as in training.
        settings["data_preprocessor"]["test_cfg"] = {"size": size}
    return settings


_NORM = {"type": "BN", "requires_grad": True}  # the loop makes it synchronised where there are several GPUs


def _shared(config: SegmentationConfig, weight: float) -> dict[str, Any]:
    return {
        "num_classes": len(classes_in(config.data).names),
        "norm_cfg": _NORM,
        "align_corners": False,
        "dropout_ratio": config.head.dropout,
        "ignore_index": IGNORED,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight},
    }


def _upernet_head(config: SegmentationConfig, channels: tuple[int, ...]) -> dict[str, Any]:
    return {
        "type": "UPerHead",
        "in_channels": list(channels),
        "in_index": list(range(len(channels))),
        "pool_scales": (1, 2, 3, 6),
        "channels": config.head.channels,
        **_shared(config, 1.0),
    }


def _fcn_head(config: SegmentationConfig, channels: tuple[int, ...]) -> dict[str, Any]:
    return {
        "type": "FCNHead",
        "in_channels": channels[-1],
        "in_index": len(channels) - 1,
        "channels": config.head.channels,
        "num_convs": 2,
        "concat_input": True,
        **_shared(config, 1.0),
    }


def _linear_head(config: SegmentationConfig, channels: tuple[int, ...]) -> dict[str, Any]:
    return {"type": "LinearHead", "in_channels": list(channels), **_shared(config, 1.0)}


_HEADS = {"upernet": _upernet_head, "fcn": _fcn_head, "linear": _linear_head}


def _auxiliary_head(config: SegmentationConfig, channels: tuple[int, ...]) -> dict[str, Any]:
    return {
        "type": "FCNHead",
        "in_channels": channels[-2],
        "in_index": len(channels) - 2,
        "channels": config.head.aux_channels,
        "num_convs": 1,
        "concat_input": False,
        **_shared(config, config.head.aux_weight),
    }


def read_image(config: SegmentationConfig) -> dict[str, Any]:
    """The step that reads an image."""
    options = config.data
    smallest = min(config.augment.resize_ratio[0], 1.0, *config.evaluation.scales)
    most = 8.0 * config.image_size * smallest  # half a pixel of the short side at the smallest scale
    return {"type": "ReadWholeImage", "exif": options.exif, "max_pixels": options.max_pixels, "max_ratio": most}


def read_labels(options: DataConfig) -> dict[str, Any]:
    """The step that reads a label map."""
    return {
        "type": "ReadLabels",
        "classes": spell_out(options.classes),
        "ignore_label": options.ignore_label,
        "label_offset": options.label_offset,
    }


def training_pipeline(config: SegmentationConfig) -> list[dict[str, Any]]:
    """Random scale, crop, flip and colours, as in every published file."""
    size, augment = config.image_size, config.augment
    steps: list[dict[str, Any]] = [
        read_image(config),
        read_labels(config.data),
        {
            "type": "RandomResize",
            "scale": (4 * size, size),
            "ratio_range": augment.resize_ratio,
            "keep_ratio": True,
        },
        {"type": "RandomCrop", "crop_size": (size, size), "cat_max_ratio": augment.cat_max_ratio},
        {"type": "RandomFlip", "prob": augment.flip},
    ]
    if augment.photometric:
        steps.append({"type": "PhotoMetricDistortion"})
    return [*steps, {"type": "PackSegInputs"}]


def evaluation_pipeline(config: SegmentationConfig, *, labels: bool = True) -> list[dict[str, Any]]:
    """One scale; the label map, loaded after the resize if there is one, keeps its size."""
    annotations = [read_labels(config.data)] if labels else []
    return [read_image(config), _resize(config, 1.0), *annotations, {"type": "PackSegInputs"}]


def multi_scale_pipeline(config: SegmentationConfig) -> list[dict[str, Any]]:
    """Every scale, with and without flip.

    The scales are relative to the single scale, as in the published 0.x files. MMSegmentation 1.x files scale the
    original image instead, which for ADE20K's larger images is something else.
    """
    flips = [{"type": "RandomFlip", "prob": probability, "direction": "horizontal"} for probability in (0.0, 1.0)]
    resizes = [_resize(config, scale) for scale in config.evaluation.scales]
    combinations = [resizes, flips, [read_labels(config.data)], [{"type": "PackSegInputs"}]]
    return [read_image(config), {"type": "TestTimeAug", "transforms": combinations}]


def _resize(config: SegmentationConfig, scale: float) -> dict[str, Any]:
    short = int(config.image_size * scale)
    return {"type": "Resize", "scale": (int(4 * config.image_size * scale), short), "keep_ratio": True}
