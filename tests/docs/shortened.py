"""How the commands of README and docs are made small enough for a test. A new command of a kind that is here needs no
word; one of another kind fails its test by name until its kind is here, or in UNABLE with a reason."""

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TINY = "test_resnet.r160_in1k"  # timm's own smallest ResNet, 0.4 M parameters
MODELS = {"r50": "resnet18", "resnet18": TINY}  # exports know no equal of the smallest
TASKS = ("pretrain", "classification", "detection", "segmentation")
NAMES = {"demo-r50-": f"demo-{TINY}-", "resnet*d": "resnet1*d"}  # run folders named by their network; fewer networks
_PIXELS = "--image-size 32 --data.num-workers 0"
_BOXES = (
    "--iterations 2 --batch-size 4 --image-size 48 --data.short-sides 48 --data.max-side 64 --data.num-workers 0 "
    "--precise-bn 1 --heads.rois-per-image 16 --heads.box-features 32 --heads.pyramid-channels 16 --heads.box-convs 1 "
    "--heads.mask-channels 16 --heads.mask-convs 1 --heads.rpn-post-nms 20 9 --evaluate-every 0"
)
_MAPS = "--iterations 2 --batch-size 4 --image-size 64 --head.channels 16 --data.num-workers 0"
_GRAPH = "--seeds 1 --num-workers 0 --parallel 2"
_TWO = "--methods scratch a2mim"

SHORT = {
    "analysis interactions": "--images 2 --pairs 2 --contexts 2 --image-size 64",
    "analysis fourier": "--images 8 --image-size 64",
    "analysis robustness": "--images 8 --drop-ratios 0.0 0.5 --shuffle-grids 1 2 --frequencies 0.1",
    "analysis cam": "--images 2",
    "analysis landscape": "--images 8 --points 3 --image-size 32",
    "analysis cka": "--images 12 --image-size 32",
    "benchmarks demo-data": "--num-train 24 --num-val 12",
    "benchmarks prepare": "--unchecked",
    f"benchmarks run --model {TINY} --profile own": f"{_GRAPH} {_TWO} --pretrain-steps 2 --finetune-steps 2 "
    "--probes knn",
    f"benchmarks run --model {TINY} --profile demo": f"{_GRAPH} --imagenet data/demo/imagenet --tasks classification",
    "benchmarks run": f"{_GRAPH} {_TWO}",
    "benchmarks throughput": f"--only steps --models {TINY} --image-size 64 --batch-size 2 --pairs 1 --output new",
    "classification own": f"--steps 2 --batch-size 104 {_PIXELS} --augment.test-size 32",
    "classification predict": "",
    "classification evaluate": "",
    "classification demo": f"--epochs 1 --batch-size 8 {_PIXELS} --augment.test-size 32 --model {TINY} "
    "--precision float32",
    "classification": f"--epochs 1 --batch-size 8 {_PIXELS} --augment.test-size 32 --precision float32",
    "detection predict": "",
    "detection evaluate": "",
    "detection": _BOXES,
    "evaluation dense": "--image-size 64 --linear.iterations 2 --linear.batch-size 2 --linear.crop-size 64 --k 1 3 "
    "--linear.warmup-iterations 1 --data.num-workers 0",
    "evaluation robustness": "--data.imagenet /data/robustness --batch-size 16 --data.num-workers 0",
    "evaluation": "--image-size 32 --data.num-workers 0",
    "pretrain own": f"--steps 2 --batch-size 104 {_PIXELS}",
    "pretrain demo --run-dir runs/mine": f"--epochs 1 --batch-size 64 {_PIXELS} --model {TINY}",
    "pretrain": "--epochs 1 --batch-size 16 --image-size 64 --data.num-workers 0 --precision float32",
    "segmentation predict": "",
    "segmentation evaluate": "",
    "segmentation export": "",
    "segmentation": _MAPS,
    "slurm launch paper-table": "--models r50 --methods scratch a2mim --seeds 1",
}
"""Beginning of a command behind `python -m` -> options put behind it; the first that fits counts. "" for what is short
as it is; a package that is not here is run as it stands."""


def shorten(command: Sequence[str]) -> list[str]:
    """A command with a small network and few, small steps; the last of an option's values counts."""
    words = list(command)
    cannot = unable(command)
    small = dict.fromkeys(MODELS, TINY) if "benchmarks" in words else MODELS
    as_it_is = any(word.startswith("released:") for word in words)  # the file is of that network
    as_it_is = as_it_is or bool(cannot and "--dry-run" in (cannot.instead or ""))  # nothing is trained
    for i, word in enumerate(words[:-1]):
        if word == "--model" and not as_it_is:
            words[i + 1] = small.get(words[i + 1], words[i + 1])
        if word == "--nproc-per-node":
            words[i + 1] = "1"  # a process of its own costs seconds; tests of ranks start several
    if "-m" in words and words[words.index("-m") + 1] in TASKS and "--run-dir" in words and "--model" not in words:
        words += ["--model", MODELS["r50"]]
    words = ["few-photos" if word == "photos/" else word for word in words]  # to predict for, not to train on
    for name, short in NAMES.items():
        words = [word.replace(name, short) for word in words]
    if "-m" not in words:
        return words
    beginning = " ".join(words[words.index("-m") + 1 :])
    options = next((more for start, more in SHORT.items() if f"{beginning} ".startswith(f"{start} ")), "")
    if cannot:
        options = f"{options} {cannot.instead or ''}"
    more = shlex.split(options)
    if beginning.startswith("slurm run "):  # its options stand before the package
        return [*words[:4], *more, *words[4:]]
    return _without(words, more) + more


def _without(words: list[str], options: Sequence[str]) -> list[str]:
    """The words without the options that are given again."""
    again = {word for word in options if word.startswith("--")}
    kept, dropping = [], False
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            dropping = word in again
        if not dropping:
            kept.append(word)
    return kept


@dataclass(frozen=True)
class Unable:
    """A command that cannot be run, or not to its end, where tests run."""

    start: str
    """How it begins."""
    reason: str
    still: Callable[[], bool] = lambda: True
    """Whether that is still so; where it no longer is, the command is run like any other."""
    instead: str | None = None
    """Options with which it runs as far as it can; None: it does not run at all, and why is the reason."""
    says: str = ""
    """What its refusal says, of a command that can only be refused."""
    code: int = 2
    """The exit code of that refusal."""


def lacks(module: str) -> Callable[[], bool]:
    """Whether a package is not installed."""
    return lambda: importlib.util.find_spec(module) is None


UNABLE = (
    Unable("make setup", "makes the environment that the tests run in; tests/test_make.py runs its recipe elsewhere"),
    Unable("make check", "runs the tests, this one among them"),
    Unable("make wheelhouse", "downloads"),
    Unable("pip install --no-build-isolation git+https", "downloads"),
    Unable("sudo apt-get", "changes the machine"),
    Unable("source .venv/bin/activate", "a word of the shell; the commands behind it are run by this environment"),
    Unable(
        "python -m detection mask-rcnn-c4",
        "Detectron2 is not installed, and no other framework has the C4 recipes",
        lacks("detectron2"),
        says="Detectron2 is not installed",
        instead="",
    ),
    Unable(
        "python -m detection mask-rcnn-fpn",
        "Detectron2 is not installed: its recipe in torchvision",
        lacks("detectron2"),
        instead="--framework torchvision",
    ),
    Unable(
        "python -m benchmarks run --model resnet18 --profile small",
        "trains for hours: its plan",
        instead=f"--dry-run --model {TINY}",
    ),
    Unable(
        "python -m benchmarks run --model r50 --profile paper",
        "days, and Detectron2: its plan in torchvision",
        instead="--dry-run --framework torchvision",
    ),
    Unable("python -m slurm launch", "needs a cluster; tests/slurm runs it on one", instead="--dry-run"),
    Unable("python -m slurm run", "needs a cluster; tests/slurm runs it on one", instead="--dry-run"),
    Unable(
        "python -m slurm status demo",
        "nothing was launched without a cluster",
        says="holds no run or sweep demo",
        instead="",
    ),
    Unable(
        "python -m slurm status paper-table",
        "nothing was launched without a cluster",
        says="holds no run or sweep paper-table",
        instead="",
    ),
    Unable("python -m benchmarks gpu-check", "needs a GPU: its report of parts not run", instead="--budget-seconds 1"),
    Unable(
        "python -m evaluation knn runs/digits-short/",
        "a study's encoders, which take it minutes: the refusal of a data set that is not there",
        says="data/digits/train: no such folder",
        instead="",
        code=3,
    ),
    Unable(
        "python -m evaluation knn runs/clipart/",
        "a study's encoders and pictures: the refusal of a data set that is not there",
        says="data/clipart/train: no such folder",
        instead="",
        code=3,
    ),
    Unable(
        "python -m evaluation knn runs/scenes/",
        "a study's encoders and pictures: the refusal of a data set that is not there",
        says="data/demo/imagenet/train: no such folder",
        instead="",
        code=3,
    ),
    Unable(
        "python -m benchmarks study",
        "minutes: its plan; tests/benchmarks/test_study.py runs one to its table",
        instead="--dry-run",
    ),
)


def unable(words: Sequence[str]) -> Unable | None:
    """The entry of a command that cannot be run here."""
    text = " ".join(words)
    return next((one for one in UNABLE if text.startswith(one.start) and one.still()), None)
