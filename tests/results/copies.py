"""Copies of the fixture's run folders with other seeds and settings, as more runs of the same kind would be."""

import json
import shutil
from pathlib import Path

from engine.config import config_hash
from tests.helpers import ROOT

FIXTURE = ROOT / "tests" / "data" / "runs"
PRETRAINED = tuple(f"demo-test_resnet-{method}-pretrain-s0" for method in ("simmim", "a2mim"))


def copy_run(name: str, target: Path, *, data=None, **settings) -> Path:
    """A finished run of the fixture as `target`, with other settings (and other settings of its data)."""
    shutil.copytree(FIXTURE / name, target)
    stored = json.loads((target / "config.json").read_text())
    stored["config"] |= settings
    stored["config"]["data"] |= data or {}
    (target / "config.json").write_text(json.dumps(stored))
    finished = json.loads((target / "finished.json").read_text())
    finished["config_hash"] = config_hash(stored["config"])
    (target / "finished.json").write_text(json.dumps(finished))
    return target


def copy_pretraining(runs_dir: Path) -> None:
    """The pre-training runs, which the others start from."""
    for name in PRETRAINED:
        shutil.copytree(FIXTURE / name, runs_dir / name)
