"""The tables of README and docs/studies.md are those of the run folders in the repository."""

import re
import shlex

import pytest

from results.__main__ import main
from tests.helpers import ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/studies.md"])
def test_a_printed_table_is_what_its_command_prints(page, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / page).read_text()
    command, table = re.search(r"```bash\npython -m results (labels .*)\n```\n\n((?:\|.*\n)+)", text).groups()
    words = [str(path) for word in shlex.split(command) for path in sorted(ROOT.glob(word)) or [word]]
    assert main(words) == 0
    assert capsys.readouterr().out == table


def test_readmes_first_table_has_five_seeds_and_intervals():
    text = (ROOT / "README.md").read_text()
    header, _, *rows = re.search(r"((?:\|.*\n)+)", text)[1].splitlines()
    assert header.rstrip(" |").endswith("n")
    assert all(int(row.strip("| ").rpartition("|")[2]) >= 5 for row in rows)
    assert sum("[" in row for row in rows) >= 2
