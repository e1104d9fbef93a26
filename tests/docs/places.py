"""The folders and files that README and docs speak of, as small ones: /data/..., photos/, archives, published files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones import build_backbone, to_openmixup
from benchmarks.scenes.demo_data import write_demo_data
from tests.benchmarks import shipped
from tests.evaluation.robustness_folders import make_classifier, make_sets

RELEASED = "full_a2mim_r50_l3_sz224_init_8xb256_cos_ep300.pth"


def pictures(folder: Path, *, num: int = 130, side: int = 32, bands: int = 3) -> None:
    """Class folders x and y of `num` pictures each: PNG of random pixels, numpy arrays where they have 4 channels."""
    for label, name in enumerate("xy"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(num):
            pixels = np.random.default_rng((label, number)).integers(0, 255, (side, side, bands), dtype=np.uint8)
            if bands == 3:
                Image.fromarray(pixels).save(folder / name / f"{name}{number}.png")
            else:
                np.save(folder / name / f"{name}{number}.npy", pixels)


def both_parts(folder: Path, bands: int = 3) -> None:
    """train/ and val/ of such pictures."""
    pictures(folder / "train", num=20, bands=bands)
    pictures(folder / "val", num=4, bands=bands)


def scenes(folder: Path) -> None:
    """The three data sets of the papers, in one folder; each is asked for by its own name."""
    write_demo_data(folder, num_train=40, num_val=12, seed=0)


def released(folder: Path) -> None:
    """A2MIM's ResNet-50, whole, of random weights, as its publishers' server has it."""
    folder.mkdir()
    state = to_openmixup(build_backbone("r50").net.state_dict())
    token = {f"backbone.mask_{part}": torch.rand(1, 1024, 1, 1) for part in ("token", "gamma")}
    decoder = {"neck.decoder_pred.0.weight": torch.rand(3072, 2048, 1, 1), "neck.decoder_pred.0.bias": torch.rand(3072)}
    torch.save({"state_dict": state | token | decoder, "meta": {"epoch": 300}}, folder / RELEASED)


def cifar10(path: Path) -> None:
    """CIFAR-10's archive with sixty pictures a batch."""
    shipped.write_tar(path, shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES, per_batch=60)[0])


def robustness(folder: Path) -> None:
    """ImageNet-A, R, Sketch, V2 and C."""
    make_sets(folder)


PLACES: dict[str, Callable[[Path], object]] = {
    "mine": pictures,
    "few": lambda folder: pictures(folder, num=2),
    "parts": both_parts,
    "grey": lambda folder: pictures(folder, num=8),
    "satellite": lambda folder: both_parts(folder, bands=4),
    "scenes": scenes,
    "server": released,
    "cifar-10-python.tar.gz": cifar10,
    "robustness": robustness,
    "classifier": make_classifier,
    "other-classifier": make_classifier,
    "downloads": lambda folder: cifar10(folder / "cifar-10-python.tar.gz"),
}
"""What is made, once, when it is first asked for."""

NAMES = {
    "/data/mine": "mine",
    "/data/other": "mine",
    "/data/xray": "grey",
    "/data/satellite": "satellite",
    "/data/robustness": "robustness",
    "/data/imagenet-slice": "scenes/imagenet",
    "/data/imagenet": "scenes/imagenet",
    "/data/coco": "scenes/coco",
    "/data/ADEChallengeData2016": "scenes/ADEChallengeData2016",
    "data/demo/imagenet": "scenes/imagenet",
    "data/imagenet": "scenes/imagenet",
    "data/mine": "parts",
    "DIR": "scenes/imagenet",
    "photos": "mine",
    "few-photos": "few",
    "downloads": "downloads",
    "runs/a2mim-r50-rsb-a2": "classifier",
    "runs/scratch-rsb-a2": "other-classifier",
    "other-photos": "mine",
    "boxes": "scenes/coco",
    "cifar-10-python.tar.gz": "cifar-10-python.tar.gz",
    "weights.pth": f"server/{RELEASED}",
}
"""What README and docs call a place -> which it is here. Anything else that a command needs has to come from another
command of the pages, or from BEFOREHAND."""

_PRETRAIN = "python -m pretrain demo --data.root DIR --model resnet18"
BEFOREHAND = {
    "runs/mine-boxes": "python -m detection own --model resnet18 --run-dir runs/mine-boxes --init none --data.root "
    "/data/coco --data.train-annotations annotations/instances_train2017.json --data.train-images train2017 "
    "--data.val-share 0.2",
    "runs/mine-seg": "python -m segmentation demo --model resnet18 --run-dir runs/mine-seg --init none --data.root "
    "/data/ADEChallengeData2016",
    "runs/r18": f"{_PRETRAIN} --method simmim --run-dir runs/r18",
    "runs/a": f"{_PRETRAIN} --method simmim --run-dir runs/a",
    "runs/b": f"{_PRETRAIN} --method a2mim --run-dir runs/b",
    "runs/a2mim-r50": "python -m pretrain demo --data.root DIR --run-dir runs/a2mim-r50",
    "runs/simmim-r50": f"{_PRETRAIN} --method simmim --run-dir runs/simmim-r50",
    "runs": "python -m benchmarks run --model r50 --profile demo --runs-dir runs",
}
"""Run folders that a page speaks of without the command that makes them -> such a command."""


class Places:
    """Everything of PLACES that was asked for, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        """The path of one of NAMES' values, made where it is not there yet."""
        top = name.partition("/")[0]
        if not (self.folder / top).exists():
            self.folder.mkdir(exist_ok=True)
            PLACES[top](self.folder / top)
        return self.folder / name


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def few(folder: Path) -> None:
    """Leave four pictures of each class folder."""
    for place in {path.parent for path in folder.rglob("*.png")}:
        for path in sorted(place.iterdir())[4:]:
            path.unlink()
