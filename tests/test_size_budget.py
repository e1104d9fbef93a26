"""The size budget: files and functions stay small enough to read."""

import ast
import statistics

import pytest

from tests.helpers import ROOT

PACKAGES = ("analysis", "backbones", "benchmarks", "classification", "detection", "engine", "evaluation",
            "mim_benchmark", "pretrain", "results", "segmentation", "slurm")  # fmt: skip
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def functions(paths=SOURCES):
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_file_is_longer_than_350_lines_and_the_median_is_at_most_130():
    lengths = {str(p.relative_to(ROOT)): p.read_text().count("\n") for p in SOURCES}
    with_recipes = ("recipes.py", "pretrain/methods/")  # a recipe is a docstring and few lines of code
    assert not {k: n for k, n in lengths.items() if n > 350 and not any(part in k for part in with_recipes)}
    assert statistics.median(lengths.values()) <= 130


def test_no_function_is_longer_than_60_lines_and_95_percent_have_at_most_40():
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node in functions()}
    tests = {name: node.end_lineno - node.lineno + 1 for name, node in functions(TESTS)}
    assert not {name: n for name, n in (lengths | tests).items() if n > 60}
    assert statistics.quantiles(lengths.values(), n=20)[-1] <= 40


def test_every_public_function_has_a_docstring():
    missing = [
        name
        for name, node in functions()
        if not node.name.startswith("_") and ast.get_docstring(node) is None and not _is_nested(name, node)
    ]
    assert not missing


def _is_nested(name, node):
    source = ast.parse((ROOT / name.split(":")[0]).read_text())
    for outer in ast.walk(source):
        if isinstance(outer, ast.FunctionDef) and any(
            isinstance(inner, ast.FunctionDef) and inner.lineno == node.lineno
            for inner in ast.walk(outer)
            if inner is not outer
        ):
            return True
        if (
            isinstance(outer, ast.ClassDef)
            and outer.name.startswith("_")
            and outer.lineno <= node.lineno <= outer.end_lineno
        ):
            return True
        if isinstance(outer, ast.FunctionDef) and outer.lineno == node.lineno:
            decorators = {getattr(d, "id", getattr(d, "attr", "")) for d in outer.decorator_list}
            if "overload" in decorators:
                return True
    return False


@pytest.mark.parametrize("most", [7])
def test_functions_take_few_parameters(most):
    too_many = {}
    for name, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([a for a in arguments if a.arg not in ("self", "cls")])
        if count > most:
            too_many[name] = count
    assert not too_many
