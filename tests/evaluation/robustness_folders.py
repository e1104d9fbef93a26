"""The robustness sets with tiny pictures in their authors' folders, and a tiny classifier of ImageNet's classes."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classification.augment import normalise
from classification.build import build_network
from classification.classifier import export_classifier
from classification.config import AugmentConfig, ClassificationConfig
from evaluation.robustness.facts import CORRUPTIONS, SEVERITIES, imagenet_classes, subset_classes

SIZE = 32
NUM = 8  # pictures of a class
LIKELY = {*subset_classes("a")[::90], *subset_classes("r")[::90], *(imagenet_classes()[i] for i in (2, 10, 999))}


def pixels(seed) -> np.ndarray:
    """4 x 4 squares of random colours."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return squares.repeat(SIZE // 4, axis=0).repeat(SIZE // 4, axis=1)


def picture(path: Path, seed) -> None:
    """Write one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)


def make_classifier(folder: Path, classes=None, model: str = "test_resnet") -> Path:
    """A run folder's classifier.safetensors and timm/ of a fresh network, whose answers differ from picture to picture
    and are most often one of LIKELY."""
    classes = imagenet_classes() if classes is None else classes
    config = ClassificationConfig(
        model=model,
        init="none",
        epochs=1,
        batch_size=2,
        image_size=SIZE,
        augment=AugmentConfig(test_size=SIZE, crop_pct=0.875),
    )
    network = build_network(config, len(classes))
    spread_answers(network.eval(), [number for number, name in enumerate(classes) if name in LIKELY])
    folder.mkdir(parents=True, exist_ok=True)
    export_classifier(folder, config, network.state_dict(), tuple(classes), {})
    return folder


@torch.no_grad()
def spread_answers(network, likely):
    """Make the answers of a fresh network differ, which calls all random pictures the same otherwise."""
    images = normalise(torch.stack([torch.from_numpy(pixels((9, i))).permute(2, 0, 1) for i in range(100)]))
    features = network.forward_head(network.forward_features(images), pre_logits=True)
    head = network.get_classifier()
    head.weight.normal_(generator=torch.Generator().manual_seed(1)).div_(features.std(dim=0) + 1e-6)
    head.bias.copy_(-head.weight @ features.mean(dim=0))
    head.bias[likely] += 2 * len(features[0]) ** 0.5


def make_sets(root: Path) -> Path:
    """Every set: pictures of 3 of A's and of R's classes, 6 of ImageNet, 3 of V2 and Sketch, 15 corruptions of 2."""
    for name, folder in (("a", "imagenet-a"), ("r", "imagenet-r")):
        for number, wnid in enumerate(subset_classes(name)[::90]):
            for i in range(NUM):
                picture(root / folder / wnid / f"{i}.jpg", (ord(name), number, i))
        (root / folder / "README.txt").write_text("as shipped")
    for label in (2, 10, 999):
        for i in range(NUM):
            folder = root / "imagenetv2-matched-frequency-format-val" / str(label)
            picture(folder / f"{i:06x}.jpeg", (1, label, i))
            picture(root / "sketch" / imagenet_classes()[label] / f"sketch_{i}.JPEG", (2, label, i))
    wnids = [*subset_classes("a")[::90], *subset_classes("r")[::90]]
    answers = []
    for number, wnid in enumerate(NUM * wnids, 1):
        picture(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", (3, number))
        answers.append([] if number == 2 else [imagenet_classes().index(wnid), 999])
    (root / "real.json").write_text(json.dumps(answers))
    for c, corruption in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            for number in (1, 2):
                folder = root / "ImageNet-C" / corruption / str(severity) / wnids[number]
                picture(folder / f"ILSVRC2012_val_{number:08d}.JPEG", (4, c, severity, number))
    return root
