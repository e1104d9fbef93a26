"""Every protocol on digits and on the demo's scenes, for a ResNet, a ConvNeXt and a ViT of the size that people use."""

import csv

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.scenes.demo_data import write_demo_data
from evaluation.command import parse
from evaluation.run import evaluate_all
from results.runs.collect import collect

ENCODERS = ("random:r50", "random:convnext_atto", "random:vit_tiny_patch16_224")
MODELS = ["r50", "convnext_atto", "vit_tiny_patch16_224"]
TRAINED = ("--augment", "none", "--epochs", "2", "--batch-size", "20", "--warmup-epochs", "0")
PROTOCOLS = {
    "features": (),
    "knn": (),
    "logistic": ("--c-steps", "2", "--max-iterations", "20"),
    "fewshot": ("--shots", "1", "--draws", "2"),
    "linear": TRAINED,
    "sweep": (*TRAINED, "--rates", "0.1"),
    "attentive": (*TRAINED, "--queries", "8"),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Six digits of each class to train on and two to test on, as PNG files."""
    root, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for label in range(10):
        for place, number in enumerate((digits.target == label).nonzero()[0][:8]):
            folder = root / ("train" if place < 6 else "val") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray((digits.images[number] * 15).astype("uint8"))
            picture.resize((32, 32)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Demo scenes as class folders and as ADE20K."""
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    write_demo_data(folder, num_train=20, num_val=10)
    return folder


def rows_of(protocol, root, where, *more):
    shared = ["--data.root", str(root), "--data.num-workers", "0", "--runs-dir", str(where), "--image-size", "64"]
    shared += [
        "--cache-dir",
        str(root.parent / f"{root.name}-features"),
    ]
    evaluate_all(parse([protocol, *ENCODERS, *shared, *more]))
    (table,) = where.glob(f"{protocol}*.csv")
    return list(csv.DictReader(table.open()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_on_digits(protocol, digits, tmp_path):
    rows = rows_of(protocol, digits, tmp_path, *PROTOCOLS[protocol])
    assert [row["model"] for row in rows] == MODELS
    assert all(row[field] for row in rows for field in ("encoder_sha256", "layer", "token", "train_list_sha256"))
    found, rejected = collect([tmp_path])
    assert not rejected
    assert found["run"].nunique() == 3


def test_on_the_scenes_of_the_demo(scenes, tmp_path):
    rows = rows_of("knn", scenes / "imagenet", tmp_path / "knn")
    assert [row["model"] for row in rows] == MODELS
    rows = rows_of("dense", scenes / "ADEChallengeData2016", tmp_path / "dense", "--head", "knn")
    assert [row["model"] for row in rows] == MODELS
