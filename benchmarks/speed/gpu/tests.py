"""The tests that need a GPU, published losses among them: pytest -m gpu. On a CPU their CPU counterparts, a few."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.speed.gpu.part import Part

ROOT = Path(__file__).parents[3]
ON_A_GPU = re.compile(r"mark\.gpu|def \w+\([^)]*\bdevice\b")  # its own mark, or tests/conftest.py's fixture


def run(part: Part) -> None:
    """A line for each test function, which may stand for many cases."""
    if importlib.util.find_spec("pytest") is None:
        part.record.add("pytest", note="not installed here")
        return
    report = part.folder / "report.xml"
    if part.small:
        selected = ["-k", "regression and mse", "tests/pretrain/test_losses.py"]
    else:
        files = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if ON_A_GPU.search(path.read_text()))
        selected = ["-m", "gpu", "--continue-on-collection-errors", *map(str, files)]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *selected]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed here
    subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, env=environment, check=False)
    cases: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        cases.setdefault(case.get("name", "?").partition("[")[0], []).append(outcome)
    for name, outcomes in cases.items():
        wrong = sum(outcome in ("failure", "error") for outcome in outcomes)
        skipped = outcomes.count("skipped")
        note = f"{len(outcomes)} cases" + (f", {skipped} skipped" if skipped else "")
        part.record.add(
            name, wrong, "failures", expected="0", ok=not wrong if skipped < len(outcomes) else None, note=note
        )
    if not cases:
        part.record.add("pytest", ok=False, note="no test was selected, see gpu-check.log")
