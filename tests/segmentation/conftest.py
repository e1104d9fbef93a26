"""A tiny data set shared by the tests; all of them need MMSegmentation."""

import pytest

from tests.segmentation.folders import make_ade


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return make_ade(tmp_path_factory.mktemp("data") / "ADEChallengeData2016")
