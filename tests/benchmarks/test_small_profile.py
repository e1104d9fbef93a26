"""`python -m benchmarks run --profile small`: two commands from CIFAR's archive to a table; what numbers mean."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.meaning import meaning
from benchmarks.plan import Request, make_stages
from benchmarks.small import small_size
from engine.errors import ConfigError
from tests.benchmarks import shipped


def test_two_commands_from_the_archive_to_a_benchmark_with_its_cost(tmp_path, prepare, capsys):
    files, _ = shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES, per_batch=60)
    source = shipped.write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    code, said = prepare("cifar10", source, "--unchecked", directory=tmp_path / "cifar10")
    assert code == 0 and f"PROFILE=small IMAGENET={tmp_path / 'cifar10'}" in said
    command = ["run", "--model", "resnet18", "--profile", "small", "--imagenet", str(tmp_path / "cifar10")]
    assert main([*command, "--dry-run", "--parallel", "1", "--methods", "scratch", "simmim"]) == 0
    said = capsys.readouterr().out
    assert "small, 200 epochs at 32 px" in said and "GPU-hours" in said
    assert "small-resnet18-simmim-classification-s2  needs small-resnet18-simmim-pretrain-s0" in said, "three seeds"
    assert re.search(r"pretrain simmim: 200 steps of 256 images, \d+ images/s, about", said), "measured here"
    assert re.search(r"in all about \d.* at once \(measured just now", said)


def _folder(root, side):
    for split in ("train", "val"):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            pixels = np.full((side, side + 20, 3), ord(name), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name / "1.png")
    return root


@pytest.mark.parametrize(("side", "expected"), [(28, 32), (64, 64), (96, 96), (300, 96)])
def test_the_size_is_that_of_the_pictures(tmp_path, side, expected):
    assert small_size(_folder(tmp_path, side)) == expected


def test_every_run_has_the_network_of_the_size_and_other_recipes_take_it_too(tmp_path):
    data = {"classification": _folder(tmp_path / "data", 64)}
    request = {
        "model": "resnet18",
        "profile": "small",
        "runs_dir": tmp_path,
        "data": data,
        "methods": ("scratch", "simmim"),
    }
    found = make_stages(Request(**request)) + make_stages(Request(**request, finetune="linear-probe"))
    assert {stage.config.model for stage in found} == {"resnet18_small_64"}
    assert {stage.config.image_size for stage in found} == {64}
    assert {stage.config.freeze for stage in found if stage.recipe == "linear-probe"} == {"encoder"}
    shorter = make_stages(Request(**request, steps=(None, 1)))
    assert [(stage.config.epochs, stage.config.schedule.warmup_epochs) for stage in shorter[:2]] == [
        (200, 10),
        (1, 0.05),
    ]
    with pytest.raises(ConfigError, match="image_size 32: only of the profiles own and small"):
        make_stages(Request(**{**request, "profile": "demo"}, image_size=32))


def _table(*lines):
    columns = ["method", "n", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(lines, columns=columns).assign(task="classification", metric="top1_best_last10")


@pytest.mark.parametrize(
    ("profile", "lines", "said"),
    [
        ("demo", [("a2mim", 1, -4.0, np.nan, np.nan)], ["1 seed for each number", "generated scenes", "study digits"]),
        (
            "small",
            [("a2mim", 5, 4.0, 1.0, 7.0), ("simmim", 5, 1.0, -1.0, 3.0), ("a2mim", 5, -2.0, -3.0, -1.0)],
            ["of 3 comparisons", "better in 1 and worse in 1", "holds for these images"],
        ),
        ("own", [("scratch", 3, np.nan, np.nan, np.nan)], ["nothing is compared with training from scratch"]),
    ],
)
def test_the_last_sentence_says_what_the_numbers_show_and_what_they_cannot(profile, lines, said):
    text = meaning(_table(("scratch", 3, np.nan, np.nan, np.nan), *lines), profile)
    assert text.startswith("What this means: ")
    assert all(part in text for part in said), text
