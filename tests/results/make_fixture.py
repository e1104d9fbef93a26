"""Make tests/data/runs again: `python -m tests.results.make_fixture`, three minutes on two cores.

A whole benchmark by the real code, only shorter and with timm's smallest ResNet: three seeds of classification, a
linear probe, detection and segmentation, each from scratch and after SimMIM and A2MIM, and a run that never started.
Weights, checkpoints and logs are left out, and so are all pictures but a few panels.
"""

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.pipeline import run_stages
from benchmarks.plan import Request, Stage, data_sets, make_stages
from benchmarks.scenes.demo_data import write_demo_data
from engine.run.open import prepare
from tests.helpers import ROOT

FIXTURE = ROOT / "tests" / "data" / "runs"
KEPT = ("config.json", "environment.json", "data.json", "metrics.jsonl", "timing.jsonl", "finished.json",
        "initialisation.json", "classes.json", "panels/epoch_000[04].png")  # fmt: skip
SMALL = {
    "pretrain": {"epochs": 4, "log_every": 1},
    "classification": {"epochs": 4, "evaluate_every": 1, "log_every": 2},
    "detection": {"iterations": 24, "log_every": 2, "evaluate_every": 12, "num_panels": 1},
    "segmentation": {"iterations": 24, "log_every": 2, "evaluate_every": 12},
}
NUM_SEEDS = {"detection": 1, "segmentation": 2}  # else three


def _stages() -> list[Stage]:
    request = Request(model="test_resnet", seeds=3, runs_dir=Path("runs"), data=data_sets("demo", Path("data")))
    probes = replace(request, finetune="linear-probe", seeds=1, data={"classification": request.data["classification"]})
    stages = {stage.name: stage for stage in [*make_stages(request), *make_stages(probes)]}
    return [_small(stage) for stage in stages.values() if stage.config.seed < NUM_SEEDS.get(stage.package, 3)]


def _small(stage: Stage) -> Stage:
    config = replace(stage.config, **SMALL[stage.package], data=replace(stage.config.data, num_workers=0))
    if stage.recipe == "linear-probe":
        config = replace(config, batch_size=32, image_size=64, augment=replace(config.augment, test_size=64))
    return replace(stage, config=config)


def make(workplace: Path, fixture: Path) -> None:
    """Run everything below `workplace` and keep what the results need in `fixture`, which must not exist."""
    os.chdir(workplace)  # so that the folders hold relative paths only
    write_demo_data("data", num_train=64, num_val=40)
    stages = _stages()
    late = next(stage for stage in reversed(stages) if stage.package == "classification")
    late = replace(late, name="demo-test_resnet-late", config=replace(late.config, seed=3))
    outcome = run_stages(stages, Path("runs"), parallel=2)
    assert outcome.exit_code == 0, outcome.states
    prepare(Path("runs") / late.name, late.config, package=late.package, recipe=late.recipe)
    for folder in sorted(Path("runs").iterdir()):
        for file in sorted(path for pattern in KEPT for path in folder.glob(pattern)):
            target = fixture / file.relative_to("runs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for path in fixture.glob("*/environment.json"):  # of a kernel nobody else has
        path.write_text(json.dumps({**json.loads(path.read_text()), "platform": "Linux"}, indent=2) + "\n")


if __name__ == "__main__":
    shutil.rmtree(FIXTURE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), FIXTURE)
