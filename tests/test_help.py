"""Help, and the refusal of a mistyped command, import neither torch nor timm: those take seconds, and the answer is
known without them."""

import json

import pytest

from suite_tasks import TASKS
from tests.helpers import run_code

HEAVY = ("torch", "timm", "torchvision", "mmengine", "detectron2", "submitit")

_ASK = """
import contextlib, io, json, runpy, sys
HEAVY, QUESTIONS = json.loads(sys.argv[1]), json.loads(sys.argv[2])
answers = []
for module, *arguments in QUESTIONS:
    sys.argv = [module, *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as left:
            code = left.code
    answers.append([code, out.getvalue(), err.getvalue(), [name for name in HEAVY if name in sys.modules]])
print(json.dumps(answers))
"""


def ask(*questions):
    """[exit code, output, errors, heavy modules imported by now] of each question, in one process."""
    return json.loads(run_code(_ASK, json.dumps(HEAVY), json.dumps(questions)).stdout)


@pytest.mark.parametrize("package", [task.name for task in TASKS if task.kind != "measurement"])
def test_a_task_answers_without_torch(package):
    help_, recipes, recipe, typo, flag = ask(
        [package],
        [package, "--help"],
        [package, "demo", "--help"],
        [package, "demmo"],
        [package, "demo", "--run-dir", "x", "--batchsize", "3"],
    )
    assert [answer[0] for answer in (help_, recipes, recipe, typo, flag)] == [2, 0, 0, 2, 2]
    assert f"usage: python -m {package} RECIPE" in recipes[1]
    assert "\n  demo\n" in recipes[1]
    assert "--batch-size INT" in recipe[1]
    assert "(default:" in recipe[1]
    assert typo[2].startswith(f"error: {package} has no recipe 'demmo'; nearest: demo")
    assert flag[2].startswith("error: there is no option --batchsize; nearest: --batch-size")
    assert flag[3] == [], f"{package} imported {flag[3]}"


def test_what_stands_beside_the_tasks_answers_without_torch():
    questions = [["results", "--help"], ["results", "tables", "--help"], ["results", "tabels"]]
    questions += [["benchmarks", "--help"], ["benchmarks", "run", "--help"], ["benchmarks", "rum"]]
    questions += [["slurm", "--help"], ["slurm", "status", "--help"], ["slurm", "statsu"]]
    questions += [["evaluation", "--help"], ["evaluation", "knn", "--help"], ["evaluation", "kmn"]]
    questions += [["analysis", "--help"], ["analysis", "interactions", "--help"], ["analysis", "interactoins"]]
    answers = ask(*questions)
    assert [answer[0] for answer in answers] == [0, 0, 2] * 5
    assert answers[-1][3] == []
