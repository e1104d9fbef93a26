"""Detectron2's Mask R-CNN (FPN and C4) and RetinaNet on our backbones, made from its LazyConfig templates.

Detectron2 expects a backbone that returns a dictionary of named maps and states their channels and strides; ours is
encoder.py's. Only this file and detectron2.py import Detectron2. B batch, C channels, H W pixels, h w map size.
"""

from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import GeneralizedRCNN, SimpleFeaturePyramid
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone import Backbone as Detectron2Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.meta_arch import RetinaNet
from torch import Tensor, nn

from backbones import Backbone
from detection.config import PADDED_TO, DetectionConfig, NormName
from detection.encoder import PIXEL_MEAN, PIXEL_STD, C4Encoder, Encoder
from engine.training.in_float32 import predict_in_float32

_ANCHOR_OVER_STRIDE = 8  # 32 pixels at stride 4
_NORMS: dict[NormName, str] = {"none": "", "bn": "BN", "ln": "LN"}  # the loop synchronises BatchNorm over GPUs
_GIOU_WEIGHT = 10.0


class BottomUp(Detectron2Backbone):  # type: ignore[misc]
    """Our encoder as a Detectron2 backbone: normalised images (B, 3, H, W) -> {name: (B, C, h, w)}.

    Args:
        encoder: Encoder or C4Encoder.
        square: side to pad every image to, 0 for the batch's largest.
    """

    def __init__(self, encoder: Encoder | C4Encoder, square: int) -> None:
        super().__init__()
        self.encoder = encoder
        self._square = square
        self._padded_to = 0 if isinstance(encoder, C4Encoder) else PADDED_TO
        self._out_features = list(encoder.strides)
        self._out_feature_strides = dict(encoder.strides)
        self._out_feature_channels = dict(encoder.channels)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this; 0, as Detectron2's own C4, for the batch's largest size as it is."""
        return self._padded_to

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Images are padded to this square, if it is not 0."""
        return {"square_size": self._square}

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor]:
        """The maps by name, finest first."""
        maps: dict[str, Tensor] = self.encoder(images_bchw)
        return maps


class PaddedPyramid(SimpleFeaturePyramid):  # type: ignore[misc]
    """Detectron2's simple feature pyramid, which asks for no padding unless to a square."""

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Images are padded to a multiple of 32, or to the square."""
        return {"size_divisibility": PADDED_TO, "square_size": self._square_pad}


class ResumableRetinaNet(RetinaNet):  # type: ignore[misc]
    """Detectron2's RetinaNet with its running loss normaliser in the state, without which no run resumes exactly."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("running_normalizer", torch.tensor(100.0, dtype=torch.float64))

    def _ema_update(self, name: str, value: float, initial_value: float, momentum: float = 0.9) -> float:
        del name, initial_value  # there is one normaliser, and it starts at Detectron2's 100
        self.running_normalizer.mul_(momentum).add_(value * (1 - momentum))
        return float(self.running_normalizer)


def build(config: DetectionConfig, backbone: Backbone, num_classes: int) -> nn.Module:
    """The detector on `backbone`, its new parts initialised from torch's global generator.

    Raises:
        ConfigError: the backbone does not suit the detector.
    """
    if config.detector == "mask-rcnn-c4":
        detector = _mask_rcnn_c4(config, C4Encoder(backbone), num_classes)
    elif config.detector == "mask-rcnn-fpn":
        detector = _mask_rcnn_fpn(config, _pyramid(config, backbone), num_classes)
    else:
        detector = _retinanet(config, _pyramid(config, backbone), num_classes)
    if config.has_masks:
        heads = detector.roi_heads
        predict_in_float32([detector.proposal_generator.rpn_head, heads.box_predictor, heads.mask_head.predictor])
    else:
        predict_in_float32([detector.head])
    # RoIAlign would round the proposals to the maps' precision, which for bfloat16 means by several pixels.
    predict_in_float32([detector.backbone])
    module: nn.Module = detector
    return module


def _pyramid(config: DetectionConfig, backbone: Backbone) -> Any:
    dense = config.detector == "retinanet-fpn"
    heads, square = config.heads, config.data.square
    encoder = Encoder(backbone, smallest_stride=8 if dense else 1, frozen=config.freeze == "all")
    bottom_up = BottomUp(encoder, square)
    last = bottom_up._out_features[-1]
    channels, norm = heads.pyramid_channels, _NORMS[heads.pyramid_norm]
    if backbone.single_stride:
        top = LastLevelP6P7(channels, channels, "p5") if dense else LastLevelMaxPool()
        scales = (2.0, 1.0, 0.5) if dense else (4.0, 2.0, 1.0, 0.5)
        return PaddedPyramid(bottom_up, last, channels, scales, top_block=top, norm=norm, square_pad=square)
    top = LastLevelP6P7(backbone.channels[-1], channels, last) if dense else LastLevelMaxPool()
    return FPN(bottom_up, bottom_up._out_features, channels, norm=norm, top_block=top, square_pad=square)


def _template(name: str) -> Any:
    return model_zoo.get_config(f"common/models/{name}.py").model


def _assemble(kind: Any, template: Any, backbone: Any) -> Any:
    """The detector a template describes, on a backbone, for RGB images with ImageNet's statistics."""
    parts = {name: instantiate(template[name]) for name in template if name not in ("_target_", "backbone")}
    statistics = {"pixel_mean": list(PIXEL_MEAN), "pixel_std": list(PIXEL_STD), "input_format": "RGB"}
    return kind(backbone=backbone, **{**parts, **statistics})


def _mask_rcnn_fpn(config: DetectionConfig, pyramid: Any, num_classes: int) -> Any:
    heads, channels, norm = config.heads, config.heads.pyramid_channels, _NORMS[config.heads.norm]
    shapes = pyramid.output_shape()
    template = _template("mask_rcnn_fpn")
    names, strides = list(shapes), [shape.stride for shape in shapes.values()]
    _set_proposals(config, template.proposal_generator, names, channels)
    template.proposal_generator.anchor_generator.sizes = [[stride * _ANCHOR_OVER_STRIDE] for stride in strides]
    template.proposal_generator.anchor_generator.strides = strides

    roi_heads = template.roi_heads
    _set_roi_heads(config, roi_heads, num_classes)
    roi_heads.box_in_features = roi_heads.mask_in_features = names[:-1]  # the last is for proposals only
    roi_heads.box_pooler.scales = roi_heads.mask_pooler.scales = [1 / stride for stride in strides[:-1]]
    roi_heads.box_head.input_shape = ShapeSpec(channels=channels, height=7, width=7)
    roi_heads.box_head.conv_dims = [heads.mask_channels] * heads.box_convs
    roi_heads.box_head.fc_dims = [heads.box_features] * heads.box_fcs
    roi_heads.box_head.conv_norm = roi_heads.mask_head.conv_norm = norm
    roi_heads.box_predictor.input_shape = ShapeSpec(channels=heads.box_features)
    roi_heads.mask_head.input_shape = ShapeSpec(channels=channels, height=14, width=14)
    roi_heads.mask_head.conv_dims = [heads.mask_channels] * (heads.mask_convs + 1)  # the last one is transposed
    return _assemble(GeneralizedRCNN, template, pyramid)


def _mask_rcnn_c4(config: DetectionConfig, encoder: C4Encoder, num_classes: int) -> Any:
    channels = encoder.channels["c4"]
    out_channels = encoder.backbone.channels[-1]
    template = _template("mask_rcnn_c4")
    _set_proposals(config, template.proposal_generator, ["c4"], channels)
    roi_heads = template.roi_heads
    _set_roi_heads(config, roi_heads, num_classes)
    roi_heads.in_features = ["c4"]
    # Proposals pass the encoder's last stage and an extra norm (He et al. 2020, MoCo).
    roi_heads.res5 = nn.Sequential(encoder.take_last_stage(), get_norm("BN", out_channels))
    roi_heads.box_predictor.input_shape = ShapeSpec(channels=out_channels, height=1, width=1)
    roi_heads.mask_head.input_shape = ShapeSpec(channels=out_channels, height=14, width=14)
    roi_heads.mask_head.conv_dims = [config.heads.mask_channels] * (config.heads.mask_convs + 1)
    return _assemble(GeneralizedRCNN, template, BottomUp(encoder, config.data.square))


def _set_proposals(config: DetectionConfig, template: Any, names: list[str], channels: int) -> None:
    heads = config.heads
    template.in_features = names
    template.head.in_channels = channels
    template.head.conv_dims = [-1] * heads.rpn_convs
    template.batch_size_per_image = heads.anchors_per_image
    template.pre_nms_topk = list(heads.rpn_pre_nms)
    template.post_nms_topk = list(heads.rpn_post_nms)


def _set_roi_heads(config: DetectionConfig, template: Any, num_classes: int) -> None:
    heads = config.heads
    template.num_classes = num_classes
    template.batch_size_per_image = heads.rois_per_image
    template.box_predictor.test_score_thresh = heads.score_threshold
    template.box_predictor.test_topk_per_image = heads.detections_per_image
    if heads.box_loss == "giou":
        template.box_predictor.box_reg_loss_type = "giou"
        template.box_predictor.loss_weight = {"loss_box_reg": _GIOU_WEIGHT}


def _retinanet(config: DetectionConfig, pyramid: Any, num_classes: int) -> Any:
    channels = config.heads.pyramid_channels
    shapes = pyramid.output_shape()
    template = _template("retinanet")
    template.num_classes = num_classes
    template.head_in_features = list(shapes)
    template.head.input_shape = [ShapeSpec(channels=channels)] * len(shapes)
    template.head.conv_dims = [channels] * 4
    strides = [shape.stride for shape in shapes.values()]
    smallest = [stride * _ANCHOR_OVER_STRIDE / 2 for stride in strides]
    template.anchor_generator.sizes = [[size * 2 ** (third / 3) for third in range(3)] for size in smallest]
    template.anchor_generator.strides = strides
    template.test_score_thresh = config.heads.score_threshold
    template.max_detections_per_image = config.heads.detections_per_image
    return _assemble(ResumableRetinaNet, template, pyramid)
