"""Whose file it is, by the names in it."""

import re
from collections.abc import Collection, Iterable

ORIGINS = {
    "mim-benchmark": "this suite",
    "a2mim": "A2MIM",
    "spark": "SparK",
    "ijepa": "I-JEPA",
    "maskfeat": "MaskFeat",
    "fcmae": "ConvNeXt V2",
    "mae": "MAE",
    "simmim": "SimMIM",
    "dino": "DINO",
    "mmseg": "MMSegmentation",
    "mmdet": "MMDetection",
    "detectron2": "Detectron2",
    "openmixup": "OpenMixup or OpenMMLab",
    "torchvision": "torchvision",
    "convnext": "ConvNeXt's authors",
    "swin": "Swin's authors",
    "timm": "timm, or of others whose encoders have its names (torchvision's ResNets, MAE, DINO)",
}
"""Key -> how people write it."""

_SIGNS = {  # the first that a name begins with, below any wrapper, decides
    "a2mim": r"(backbone\.mask_gamma$|neck\.decoder_pred\.)",
    "spark": r"(sparse_encoder|dense_decoder|densify_norms|densify_projs)\.",
    "ijepa": r"(target_encoder|predictor\.predictor_blocks)\.",
    "maskfeat": r"pred_head\.transforms\.",
    "fcmae": r"(encoder\.)?stages\.0\.0\.grn\.gamma$",
    "mae": r"(decoder_embed|decoder_blocks\.0)\.",
    "simmim": r"encoder\.mask_token$",
    "dino": r"(teacher\.|student\.|head\.last_layer\.|dino_head\.)",
    "mmseg": r"(decode_head|auxiliary_head)\.",
    "mmdet": r"(rpn_head|roi_head|bbox_head)\.",
    "detectron2": r"(backbone\.bottom_up\.|proposal_generator\.|(backbone\.)?(res2\.0|stem\.conv1\.norm)\.)",
}
_OF_CONVENTION = {"detectron2": "detectron2", "openmixup": "openmixup", "mmseg": "mmseg", "mmseg v1c": "mmseg",
                  "torchvision": "torchvision", "facebook": "convnext", "microsoft": "swin"}  # fmt: skip
_OPENMMLAB = r"(backbone|neck)\."
_WRAPPERS = r"(module\.|_orig_mod\.|model\.|net\.)*"
_SAME_NAMES = ("timm", "torchvision", "mae", "dino", "ijepa", "spark")
"""Whose encoders alone may have timm's names: the names do not tell which."""


def origin_of(names: Collection[str], containers: Iterable[str], convention: str, *, ours: bool) -> str:
    """Key in ORIGINS of whose checkpoint has these names.

    Args:
        names: of the tensors, with all prefixes.
        containers: under which they lie.
        convention: whose names those of the encoder are.
        ours: whether the file's header says so.
    """
    if ours:
        return "mim-benchmark"
    inside = {"target_encoder": "ijepa", "teacher": "dino", "student": "dino"}
    told = next((inside[key] for key in containers if key in inside), None)
    if told:
        return told
    for key, sign in _SIGNS.items():
        pattern = re.compile(_WRAPPERS + sign)
        if any(pattern.match(name) for name in names):
            return key
    if convention in _OF_CONVENTION:
        return _OF_CONVENTION[convention]
    pattern = re.compile(_WRAPPERS + _OPENMMLAB)
    return "openmixup" if any(pattern.match(name) for name in names) else "timm"


def agrees(asked: str, found: str) -> bool:
    """Whether a file may be from whom the user says, with names that tell `found`."""
    family = ("openmixup", "mmseg", "mmdet", "a2mim", "simmim", "mae", "maskfeat")  # of OpenMMLab's and its relatives
    return (
        asked == found
        or (found in ("timm", "torchvision") and asked in _SAME_NAMES)
        or (found == "openmixup" and asked in family)
        or (asked == "openmixup" and found in family)
        or (found in ("convnext", "fcmae") and asked in ("convnext", "fcmae", "spark"))
        or (found == "swin" and asked == "simmim")
    )
