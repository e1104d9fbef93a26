"""torchvision's Mask R-CNN and RetinaNet on our backbones: the detectors that need nothing installed besides.

Our samples come resized and uint8; the detectors pad, normalise and predict. B batch, N objects, H W pixels.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
import torchvision
from pycocotools import mask as run_lengths
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import LevelMapper

from backbones import Backbone
from detection.coco import CocoSplit
from detection.config import PADDED_TO, DetectionConfig, NormName
from detection.encoder import PIXEL_MEAN, PIXEL_STD, Encoder, SimplePyramid
from detection.frameworks.contract import Batch, Framework, Result
from detection.samples import DetectionImages, sample_of_array
from engine.training.in_float32 import predict_in_float32

_NORMS: dict[NormName, Any] = {"none": None, "bn": nn.BatchNorm2d, "ln": LayerNorm2d}
_ASPECT_RATIOS = (0.5, 1.0, 2.0)
_ANCHOR_OVER_STRIDE = 8  # 32 pixels at stride 4
_MASK_THRESHOLD = 0.5


class PyramidEncoder(nn.Module):
    """Encoder and feature pyramid, as torchvision's detectors want a backbone: `out_channels`, maps by name.

    Args:
        config: width and norm of the pyramid, and which detector stands on it.
        backbone: ours.
    """

    def __init__(self, config: DetectionConfig, backbone: Backbone) -> None:
        super().__init__()
        dense = config.detector == "retinanet-fpn"
        self.encoder = Encoder(backbone, smallest_stride=8 if dense else 1, frozen=config.freeze == "all")
        self.out_channels = config.heads.pyramid_channels
        norm = _NORMS[config.heads.pyramid_norm]
        channels = list(self.encoder.channels.values())
        strides = list(self.encoder.strides.values())
        self.simple: SimplePyramid | None = None
        if backbone.single_stride:
            scales = (2, 1, 0.5) if dense else (4, 2, 1, 0.5)
            self.simple = SimplePyramid(channels[0], self.out_channels, norm, scales)
            strides = [round(strides[0] / scale) for scale in scales]
            channels = [self.out_channels]
        extra = LastLevelP6P7(channels[-1], self.out_channels) if dense else LastLevelMaxPool()
        if self.simple is None:
            self.pyramid = FeaturePyramidNetwork(channels, self.out_channels, extra, norm_layer=norm)
        else:
            self.extra = extra
        # Strides of all levels; those of the pyramid proper, on which regions are read.
        self.roi_strides = strides
        self.strides = [*strides, *(strides[-1] * 2**i for i in range(1, 3 if dense else 2))]

    def forward(self, images_bchw: Tensor) -> OrderedDict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> {name: (B, out_channels, h, w)}, finest first."""
        maps = self.encoder(images_bchw)
        if self.simple is None:
            levels: OrderedDict[str, Tensor] = self.pyramid(maps)
            return levels
        results = self.simple(next(iter(maps.values())))
        results, names = self.extra(results, results, [str(i) for i in range(len(results))])
        return OrderedDict(zip(names, results, strict=True))


class PadAndNormalise(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's transform without resizing: uint8 images (3, H, W) of any sizes -> one normalised float32 batch.

    Args:
        square: side to pad every image to; 0 for the batch's largest, rounded up to a multiple of 32.
    """

    def __init__(self, square: int) -> None:
        super().__init__(1, 1, list(PIXEL_MEAN), list(PIXEL_STD), size_divisible=PADDED_TO)
        self.square = square

    def normalize(self, image: Tensor) -> Tensor:
        """uint8 RGB (3, H, W) to float32 with ImageNet's mean 0 and standard deviation 1."""
        normalised: Tensor = super().normalize(image.float())
        return normalised

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Nothing: samples come in their final size."""
        return image, target

    def max_by_axis(self, the_list: list[list[int]]) -> list[int]:
        """Shape of the batch's images: the largest, or the square."""
        largest: list[int] = super().max_by_axis(the_list)
        return [largest[0], max(self.square, largest[1]), max(self.square, largest[2])]

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        """Nothing: the predictor scales boxes and masks to the file's size."""
        return result


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors at the true strides, float32 whatever the maps are, without rounding: Detectron2's.

    torchvision's own divides the padded size by the map's, which is not the stride where that rounds up, and computes
    in the maps' precision, where bfloat16 puts an anchor at 517 on 516.

    Args:
        strides: of the levels, in pixels.
        sizes: for each level, the sides of its square anchors, in pixels.
    """

    def __init__(self, strides: list[int], sizes: list[tuple[float, ...]]) -> None:
        super().__init__(tuple(sizes), (_ASPECT_RATIOS,) * len(sizes))
        self.strides = strides
        self._cells = [self._cell(level) for level in sizes]

    def _cell(self, sizes: tuple[float, ...]) -> Tensor:
        """(len(sizes) * 3, 4): boxes around the origin."""
        areas = torch.tensor([size**2 for size in sizes], dtype=torch.float64)
        ratios = torch.tensor(_ASPECT_RATIOS, dtype=torch.float64)  # height over width
        widths = torch.sqrt(areas[:, None] / ratios).reshape(-1)
        heights = (widths.reshape(len(sizes), -1) * ratios).reshape(-1)
        return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).float()

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """For each image the anchors of all levels, float32 (sum of h * w * anchors per place, 4)."""
        levels = []
        for cells, stride, feature_map in zip(self._cells, self.strides, feature_maps, strict=True):
            device = feature_map.device
            y, x = (torch.arange(size, device=device, dtype=torch.float32) * stride for size in feature_map.shape[-2:])
            y, x = (grid.reshape(-1) for grid in torch.meshgrid(y, x, indexing="ij"))
            places = torch.stack([x, y, x, y], dim=1)
            levels.append((places[:, None] + cells.to(device)).reshape(-1, 4))
        return [torch.cat(levels)] * len(image_list.image_sizes)


def build(config: DetectionConfig, backbone: Backbone, num_classes: int) -> nn.Module:
    """The detector on `backbone`, its new parts initialised from torch's global generator."""
    encoder = PyramidEncoder(config, backbone)
    make = _mask_rcnn if config.has_masks else _retinanet
    detector: nn.Module = make(config, encoder, num_classes)
    detector.transform = PadAndNormalise(config.data.square)
    return detector


def _mask_rcnn(config: DetectionConfig, encoder: PyramidEncoder, num_classes: int) -> Any:
    heads = config.heads
    channels, norm = encoder.out_channels, _NORMS[heads.norm]
    names = [str(name) for name in _level_names(encoder)]
    box_head = FastRCNNConvFCHead(
        (channels, 7, 7),
        [heads.mask_channels] * heads.box_convs,
        [heads.box_features] * heads.box_fcs,
        norm_layer=norm,
    )
    anchors = Anchors(encoder.strides, [(float(stride * _ANCHOR_OVER_STRIDE),) for stride in encoder.strides])
    mask_convs = MaskRCNNHeads(channels, [heads.mask_channels] * heads.mask_convs, 1, norm_layer=norm)
    mask_inputs = heads.mask_channels if heads.mask_convs else channels
    detector = MaskRCNN(
        encoder,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, len(_ASPECT_RATIOS), conv_depth=heads.rpn_convs),
        rpn_pre_nms_top_n_train=heads.rpn_pre_nms[0],
        rpn_pre_nms_top_n_test=heads.rpn_pre_nms[1],
        rpn_post_nms_top_n_train=heads.rpn_post_nms[0],
        rpn_post_nms_top_n_test=heads.rpn_post_nms[1],
        rpn_batch_size_per_image=heads.anchors_per_image,
        box_roi_pool=_pooler(names, encoder.roi_strides, 7),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(heads.box_features, num_classes + 1),
        box_score_thresh=heads.score_threshold,
        box_detections_per_img=heads.detections_per_image,
        box_batch_size_per_image=heads.rois_per_image,
        mask_roi_pool=_pooler(names, encoder.roi_strides, 14),
        mask_head=mask_convs,
        mask_predictor=MaskRCNNPredictor(mask_inputs, heads.mask_channels, num_classes + 1),
    )
    predict_in_float32([detector.rpn.head, detector.roi_heads.box_predictor, detector.roi_heads.mask_predictor])
    return detector


def _level_names(encoder: PyramidEncoder) -> list[str]:
    """What PyramidEncoder calls the levels that regions are read from."""
    if encoder.simple is None:
        return list(encoder.encoder.strides)
    return [str(i) for i in range(len(encoder.roi_strides))]


def _pooler(names: list[str], strides: list[int], size: int) -> MultiScaleRoIAlign:
    pooler = MultiScaleRoIAlign(names, output_size=size, sampling_ratio=2)
    # It would infer the scales from the first batch it sees, wrongly where padding is large, and a resumed run's first
    # batch is another one.
    pooler.scales = [1 / stride for stride in strides]
    levels = [int(np.log2(stride)) for stride in strides]
    pooler.map_levels = LevelMapper(levels[0], levels[-1])
    return pooler


def _retinanet(config: DetectionConfig, encoder: PyramidEncoder, num_classes: int) -> Any:
    octave = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    sizes = [tuple(stride * _ANCHOR_OVER_STRIDE / 2 * factor for factor in octave) for stride in encoder.strides]
    detector = RetinaNet(
        encoder,
        num_classes,
        anchor_generator=Anchors(encoder.strides, sizes),
        score_thresh=config.heads.score_threshold,
        detections_per_img=config.heads.detections_per_image,
    )
    predict_in_float32([detector.head])
    return detector


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """torchvision's losses of a batch of training samples."""
    targets = [{name: s[name] for name in ("boxes", "labels", "masks") if name in s} for s in batch]
    values: dict[str, Tensor] = model([sample["image"] for sample in batch], targets)
    return values


class TorchvisionPredictor:
    """Detections of torchvision's detectors, scaled to the image files' sizes."""

    def __init__(self, config: DetectionConfig, split: CocoSplit | None) -> None:
        self.first_label = int(config.has_masks)

    def __call__(self, model: nn.Module, batch: Batch) -> list[Result]:
        """The detections of a batch; see framework.Predictor."""
        device = next(model.parameters()).device
        outputs = model([sample["image"].to(device) for sample in batch])
        return [result for s, output in zip(batch, outputs, strict=True) for result in self._results(s, output)]

    def own_numbers(self) -> dict[str, float]:
        """torchvision has no evaluator."""
        return {}

    def _results(self, sample: dict[str, Any], output: dict[str, Tensor]) -> list[Result]:
        size = (sample["height"], sample["width"])
        boxes = resize_boxes(output["boxes"].float(), sample["image"].shape[-2:], size)
        sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)  # x, y, width, height
        scores, labels = output["scores"].float().tolist(), (output["labels"] - self.first_label).tolist()
        results: list[Result] = [
            {"image_id": sample["image_id"], "label": label, "bbox": box, "score": score}
            for label, box, score in zip(labels, sides.tolist(), scores, strict=True)
        ]
        if "masks" in output and results:
            masks = paste_masks_in_image(output["masks"].float(), boxes, size)[:, 0] >= _MASK_THRESHOLD
            for result, mask in zip(results, masks.cpu().numpy(), strict=True):
                coded = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
                result["segmentation"] = {"size": list(size), "counts": coded["counts"].decode()}
        return results


FRAMEWORK = Framework(
    name="torchvision",
    version=torchvision.__version__,
    build=build,
    samples=DetectionImages,
    sample_of_array=sample_of_array,
    losses=losses,
    predictor=TorchvisionPredictor,
)
