"""Who may import whom: task packages stand alone, the engine and the backbones know no task."""

import ast

import pytest

from tests.helpers import ROOT

TASKS = {"pretrain", "classification", "detection", "segmentation"}
ABOVE = {"benchmarks", "slurm", "results", "analysis"}
FORBIDDEN = {
    "engine": TASKS | ABOVE | {"backbones"},
    "backbones": TASKS | ABOVE | {"engine"},
    **{task: (TASKS - {task}) | ABOVE for task in TASKS},
    "results": TASKS | {"benchmarks", "slurm", "backbones"},
    "slurm": {"backbones"},
}
ALLOWED = {("results", "backbones.family")}
"""Exceptions: which family a network is, a question with one answer, which needs neither torch nor timm."""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_package_imports_only_what_it_may(package):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imported(path)
        if name.split(".")[0] in FORBIDDEN[package] and (package, name) not in ALLOWED
    ]
    assert not wrong
