"""The built package: what is in the wheel, and that its command works where no checkout is."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import suite_command
from tests.helpers import ROOT

BUILD = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
NOT_PACKAGED = {"tests", "docs", "notebooks", ".ci"}


def tracked():
    """Files that git knows of, as it names them; without git (an unpacked archive) the files there."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the content of the wheel that a copy of the checkout builds."""
    folder = tmp_path_factory.mktemp("package")
    for name in tracked():
        if name.split("/")[0] not in NOT_PACKAGED:
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "copy" / name)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=folder / "copy", capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run_installed(installed, *arguments):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", "import suite_command; suite_command.main()", *arguments]
    return subprocess.run(command, cwd=installed.parent, env=env, capture_output=True, text=True, timeout=120)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(installed):
    packages = {name.split("/")[0] for name in tracked() if re.fullmatch(r"\w+/__init__\.py", name)} - NOT_PACKAGED
    wanted = {name for name in tracked() if name.split("/")[0] in packages or re.fullmatch(r"suite_\w+\.py", name)}
    results_of_ours = ("benchmarks/speed/measured/", "results/studies/")
    wanted = {name for name in wanted if not name.startswith(results_of_ours) and not name.endswith((".sh", ".md"))}
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    found = {name for name in found if not name.startswith("mim_benchmark-")}
    assert sorted(wanted - found) == []
    assert sorted(found - wanted) == []


def test_the_command_is_declared_and_its_list_is_that_of_the_packages(installed):
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"mim": "suite_command:main"}
    points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "mim = suite_command:main" in points
    runnable = {path.parent.name for path in installed.glob("*/__main__.py")}
    assert set(suite_command.COMMANDS) == runnable | {"verify"}


def test_an_installed_suite_runs_its_commands(installed):
    listed = run_installed(installed)
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in suite_command.COMMANDS)
    recipes = run_installed(installed, "pretrain", "--help")
    assert recipes.returncode == 0, recipes.stderr
    assert "a2mim-r50-300e" in recipes.stdout
    networks = run_installed(installed, "backbones", "list", "resnet50.a1_in1k")
    assert networks.returncode == 0, networks.stderr
    assert "resnet50" in networks.stdout


def test_a_mistyped_command_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as left:
        suite_command.main(["pretrian"])
    assert left.value.code == 2
    assert "nearest: pretrain" in capsys.readouterr().err


@pytest.mark.parametrize("module", [["suite_command"], ["backbones", "released"], ["slurm", "--help"]], ids="-".join)
def test_a_reader_that_has_seen_enough_is_no_error(module):
    reading, writing = os.pipe()
    os.close(reading)  # before anything is written
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", *module], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")
