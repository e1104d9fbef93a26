"""Everything that results writes of the fixture's runs, once for all tests that look at it."""

import shutil

import pytest

from results.__main__ import main
from tests.results.copies import FIXTURE


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """A folder of the fixture's runs with tables/, figures/ and report.html, by `python -m results all`."""
    runs = tmp_path_factory.mktemp("everything") / "runs"
    shutil.copytree(FIXTURE, runs)
    assert main(["all", str(runs)]) == 0
    return runs
