"""environment.json's versions: with the commit of what pip took from a repository, or from a clone of one."""

import importlib
import json
import subprocess

import pytest

from engine.run import environment


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package's metadata as pip leaves it, with where it came from."""

    def install(name, origin):
        folder = tmp_path / f"{name.replace('-', '_')}-0.6.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.6\n")
        (folder / "direct_url.json").write_text(json.dumps(origin))
        importlib.invalidate_caches()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_the_commit_of_a_repository_and_of_a_clone_is_named(tmp_path, installed):
    vcs = {"url": "https://example.org/framework", "vcs_info": {"vcs": "git", "commit_id": "02b5c4e2"}}
    assert environment.version(installed("from-a-repository", vcs)) == "0.6 (commit 02b5c4e2)"
    clone = tmp_path / "my clone"
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    origin = {"url": f"file://{tmp_path}/my%20clone", "dir_info": {"editable": True}}
    assert environment.version(installed("from-a-clone", origin)) == f"0.6 (commit {head})"


@pytest.mark.parametrize("origin", [{}, {"url": "file:///nowhere", "dir_info": {}}, ["odd"], {"vcs_info": 3}])
def test_an_origin_without_a_commit_leaves_the_version(installed, origin):
    name = installed(f"plain-{abs(hash(str(origin)))}", origin)
    assert environment.version(name) == "0.6"
