"""A tiny data set shared by the tests; all of them need MMSegmentation, and are left out where it is not installed."""

import importlib.util

import pytest

from segmentation.framework import import_mmsegmentation
from tests.segmentation.folders import make_ade

if importlib.util.find_spec("mmseg") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import_mmsegmentation()  # before any test module imports a part of it


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return make_ade(tmp_path_factory.mktemp("data") / "ADEChallengeData2016")
