"""`make` finds a Python that the suite runs on, whatever it is called."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT


def fake(folder: Path, name: str, version: str, *, venv: bool = True) -> None:
    """A command that answers as Python of a version would, and fails like a version manager's empty shim for ""."""
    answer = f'case "$2" in *version_info*) echo {version} ;; *ensurepip*) exit {int(not venv)} ;; esac'
    path = folder / name
    path.write_text("#!/bin/sh\n" + (answer if version else "exit 127") + "\n")
    path.chmod(0o755)


def find(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / ".ci/find-python"), *arguments]
    environment = {"PATH": str(folder), "HOME": str(folder), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"python3.11": "", "python3.12": "3.12", "python3": "3.9"}, "python3.12"),
        ({"python3": "3.14", "python": "2.7"}, "python3"),
        ({"python3.13": "3.13", "python3.11": "3.11"}, "python3.11"),
    ],
)
def test_any_python_from_3_11_to_3_14_is_found(tmp_path, there, found):
    for name, version in there.items():
        fake(tmp_path, name, version)
    assert find(tmp_path).stdout.strip() == found


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"python3.11": "3.11", "python3.13": "3.13", "python3": "3.12"}, "python3.13"),
        ({"python3.11": "3.11", "python3": "3.14", "python": "3.15"}, "python3"),
        ({"python3.11": "3.11", "python3": "3.11"}, "python3.11"),
    ],
)
def test_the_newest_python_that_will_do_is_found(tmp_path, there, found):
    for name, version in there.items():
        fake(tmp_path, name, version)
    fake(tmp_path, "python3.14", "3.14", venv=False) if found != "python3" else None
    assert find(tmp_path, "--newest").stdout.strip() == found


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        (".pyenv/versions/3.13.1/bin", "PYENV_ROOT"),
        (".asdf/installs/python/3.13.1/bin", "ASDF_DATA_DIR"),
        (".local/share/mise/installs/python/3.13.1/bin", "MISE_DATA_DIR"),
        (".local/share/uv/python/cpython-3.13.1-linux/bin", ""),
    ],
)
def test_pythons_of_version_managers_are_found(tmp_path, place, variable):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    fake(folder, "python", "3.13")
    fake(tmp_path, "python3.13", "")  # the shim, of no version chosen
    fake(tmp_path, "python3", "3.10")
    assert find(tmp_path).stdout.strip() == str(folder / "python")
    fake(tmp_path, "python3.11", "3.11")
    assert find(tmp_path).stdout.strip() == "python3.11", "what is on PATH comes first"
    assert find(tmp_path, "--newest").stdout.strip() == str(folder / "python")
    if variable:
        root = tmp_path / place.partition("/versions" if "pyenv" in place else "/installs")[0]
        elsewhere = find(tmp_path, "--newest", **{"HOME": "/nonexistent", variable: str(root)})
        assert elsewhere.stdout.strip() == str(folder / "python")


def test_what_was_found_instead_is_said(tmp_path):
    fake(tmp_path, "python3", "3.10")
    fake(tmp_path, "python3.12", "3.12", venv=False)
    done = find(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "python3 is 3.10" in done.stderr
    assert "python3.12 is 3.12 without venv and ensurepip" in done.stderr
    assert "found as mine" in find(tmp_path, "mine").stderr


def checkout(folder: Path) -> Path:
    """What make reads, in a folder; returns one in it for commands."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/find-python", ".ci/lower-bounds"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    commands = folder / "commands"
    commands.mkdir()
    for name in ("make", "sh", "mkdir", "cp", "rm", "touch"):  # and no Python or uv of this machine
        (commands / name).symlink_to(shutil.which(name))
    return commands


def recording(folder: Path, name: str, version: str) -> None:
    """As fake, but it makes environments of itself, and writes down the tests that it is asked for."""
    (folder / name).write_text(f"""#!/bin/sh
case "$*" in
*version_info*) echo {version} ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*pytest*) echo "$0 $*" >>asked ;;
*lower-bounds*) exec "{sys.executable}" "$@" ;;
esac
""")
    (folder / name).chmod(0o755)


def make(folder: Path, target: str) -> str:
    """What a target asks for, or says."""
    (folder / "asked").unlink(missing_ok=True)
    env = {"PATH": str(folder / "commands")}
    done = subprocess.run(["make", target], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "asked").read_text() if (folder / "asked").exists() else done.stdout


def test_the_newest_python_runs_some_tests_in_an_environment_of_its_own(tmp_path):
    commands = checkout(tmp_path)
    recording(commands, "python3.11", "3.11")
    assert "newest Python found here is 3.11, that of .venv" in make(tmp_path, "test-newest")
    recording(commands, "python3.13", "3.13")
    asked = make(tmp_path, "test-newest")
    assert asked.startswith(".venv-3.13/bin/python -m pytest ") and " tests/engine " in asked
    assert (tmp_path / ".venv/.complete").exists()


def test_the_lowest_versions_are_those_of_pyproject(tmp_path):
    commands = checkout(tmp_path)
    recording(commands, "python3.11", "3.11")
    assert make(tmp_path, "test-lowest").startswith(".venv-lowest/bin/python -m pytest ")
    pins = dict(line.split("==") for line in (tmp_path / ".venv-lowest.txt").read_text().splitlines())
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    assert len(pins) > len(wanted) > 15
    assert {f"{name}>={version}" for name, version in pins.items()} >= {one.partition(",")[0] for one in wanted}


def test_uv_makes_the_environment_where_it_is_installed(tmp_path):
    """A uv that writes down what it is asked for; the real one was given the same by hand."""
    commands = checkout(tmp_path)
    uv = commands / "uv"
    makes = '[ "$1" = venv ] && mkdir -p .venv/bin && ln -s /bin/true .venv/bin/python'
    uv.write_text(f'#!/bin/sh\necho "$@" >>asked\n{makes}\nexit 0\n')
    uv.chmod(0o755)
    fake(commands, "python3.13", "3.13")
    done = subprocess.run(
        ["make", "setup"],
        cwd=tmp_path,
        env={"PATH": f"{commands}:/usr/bin:/bin", "PYTHON": "python3.13"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    venv, install = (tmp_path / "asked").read_text().splitlines()
    assert venv == "venv -q --seed --python python3.13 .venv"
    assert install.startswith("pip install -q --python .venv/bin/python -c constraints.txt -e .[")
    assert (tmp_path / ".venv/.complete").exists()
