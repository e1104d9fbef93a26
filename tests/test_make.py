"""`make` finds a Python that the suite runs on, whatever it is called."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT


def fake(folder: Path, name: str, version: str, *, venv: bool = True) -> None:
    """A command that answers as Python of a version would, and fails like a version manager's empty shim for ""."""
    answer = f'case "$2" in *version_info*) echo {version} ;; *ensurepip*) exit {int(not venv)} ;; esac'
    path = folder / name
    path.write_text("#!/bin/sh\n" + (answer if version else "exit 127") + "\n")
    path.chmod(0o755)


def find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / ".ci/find-python"), *arguments]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


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


def test_what_was_found_instead_is_said(tmp_path):
    fake(tmp_path, "python3", "3.10")
    fake(tmp_path, "python3.12", "3.12", venv=False)
    done = find(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "python3 is 3.10" in done.stderr
    assert "python3.12 is 3.12 without venv and ensurepip" in done.stderr
    assert "found as mine" in find(tmp_path, "mine").stderr


def test_uv_makes_the_environment_where_it_is_installed(tmp_path):
    """A uv that writes down what it is asked for; the real one was given the same by hand."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/find-python").write_bytes((ROOT / ".ci/find-python").read_bytes())
    (tmp_path / ".ci/find-python").chmod(0o755)
    commands = tmp_path / "commands"
    commands.mkdir()
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
