"""Who may import whom: task packages stand alone, the engine and the backbones know no task."""

import ast

import pytest

import suite_tasks
from tests.helpers import ROOT

TASKS = {task.name for task in suite_tasks.TASKS if task.kind != "measurement"}
ABOVE = {"benchmarks", "slurm", "results", "analysis", "evaluation"}
FORBIDDEN = {
    "engine": TASKS | ABOVE | {"backbones"},
    "backbones": TASKS | ABOVE | {"engine"},
    "evaluation": ABOVE - {"evaluation"},
    **{task: (TASKS - {task}) | ABOVE for task in TASKS},
    "results": TASKS | {"benchmarks", "evaluation", "slurm", "backbones"},
    "slurm": {"backbones"},
}
ALLOWED = {
    ("results", "backbones.family"),
    ("pretrain", "evaluation.measures"),
    ("pretrain", "evaluation.neighbours"),
}
"""Exceptions: which family a network is, a question with one answer, which needs neither torch nor timm; and measures
of features, which know no task, no encoder and no file."""


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


PACKAGES = [*sorted(FORBIDDEN), "benchmarks", "evaluation"]


def at_the_top(path):
    """Modules that importing a file imports: not what its functions import, nor what is only there for types."""
    todo = list(ast.parse(path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = (
                node.module if not node.level else ".".join([*path.relative_to(ROOT).parts[: -node.level], node.module])
            )
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
        elif not isinstance(node, ast.FunctionDef) and "TYPE_CHECKING" not in ast.dump(getattr(node, "test", node)):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_no_files_import_each_other_in_a_circle():
    paths = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"}
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    imports = {name: {other for other in at_the_top(path) if other in names} for name, path in names.items()}
    while leaves := [name for name, others in imports.items() if not others]:
        imports = {name: others - set(leaves) for name, others in imports.items() if name not in leaves}
    assert not imports, "what is left imports each other"
