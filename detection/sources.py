"""What the files behind each recipe hold where the recipe may differ: engine/deviations.py makes the list.

Read in det_detectron2 and det_mmdetection of Westlake-AI/A2MIM at ccca6dc, in downstream_d2 of keyu-tian/SparK at
5bf1fb1, and in Detectron2's defaults at 02b5c4e2. With the same weights, a ResNet's C4, FPN and RetinaNet equal the
models of Detectron2's own configurations: losses, gradients, detections (tests/detection/test_reference.py).
"""

from engine.deviations import Source, Sources

_DETECTRON2 = {"precision": "float32", "evaluate_every": 0}
_PADDING = "padding: every image of a forward pass to the largest of them, there the two images of a GPU"
_ORDER = "order of images: whole epochs, their left-over dropped, there an endless draw of permutations"
_CONTROL = (
    "control: the same file from scratch, there from MSRA's ImageNet weights, BGR without deviation, stride in the 1x1 "
    "convolutions"
)
_SAME = (_PADDING, _ORDER, _CONTROL)

SOURCES: Sources = {
    "mask-rcnn-c4-1x": (Source(name="A2MIM coco_R_50_C4_1x_moco", settings=_DETECTRON2, other=_SAME),),
    "mask-rcnn-c4-2x": (Source(name="A2MIM coco_R_50_C4_2x_moco", settings=_DETECTRON2, other=_SAME),),
    "mask-rcnn-fpn-1x": (Source(name="A2MIM coco_R_50_FPN_1x_moco", settings=_DETECTRON2, other=_SAME),),
    "mask-rcnn-fpn-2x": (Source(name="A2MIM coco_R_50_FPN_2x_moco", settings=_DETECTRON2, other=_SAME),),
    "retinanet-fpn-1x": (Source(name="A2MIM coco_R_50_RetinaNet_1x_moco", settings=_DETECTRON2, other=_SAME),),
    "retinanet-fpn-2x": (Source(name="A2MIM coco_R_50_RetinaNet_2x_moco", settings=_DETECTRON2, other=_SAME),),
    "mask-rcnn-vit-1x": (
        Source(
            name="A2MIM mask-rcnn_vit_base_giou_4conv1f_1x_coco (MMDetection)",
            settings={
                "precision": "float32",
                "data.max_side": 1333,
                "data.square": 0,
                "heads.pyramid_norm": "none",
                "heads.rpn_convs": 1,
                "heads.norm": "bn",
                "optimizer.layer_decay": 1.0,
            },
            other=(
                "framework: Detectron2 (or torchvision), there MMDetection",
                "pyramid: of the last map (ViTDet's), there a pyramid over four maps of one size, which cannot be run",
                "encoder: the pre-trained network's own positions, there BEiT's without any",
                "augmentation: one resizing, there half of the images are also cropped and resized again",
                "weight decay: spares norms and embeddings, and not biases, as there by a misspelt key",
                _ORDER,
            ),
        ),
    ),
    "mask-rcnn-fpn-1x-spark": (
        Source(
            name="SparK coco_R_50_FPN_CONV_1x_moco_adam",
            settings={"precision": "float32", "evaluate_every": 5000},
            other=(_PADDING, _ORDER),
        ),
    ),
    "own": (),
    "demo": (),
}
"""Recipe -> the files it follows."""
