"""docs/own-detection.md, whose commands tests/docs runs: the options that its text speaks of exist."""

import re

import pytest

from detection.__main__ import main
from tests.helpers import ROOT


def test_every_option_on_the_page_exists(capsys):
    page = (ROOT / "docs" / "own-detection.md").read_text()
    with pytest.raises(SystemExit):
        main(["own", "--help"])
    shown = capsys.readouterr().out
    options = set(re.findall(r"--[a-z][a-z.-]+", page.partition("## Use")[0].partition("## Train")[2]))
    assert len(options) > 10
    assert {option for option in options if option not in shown} == set()
