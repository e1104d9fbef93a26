"""Fixtures of the tests of benchmarks/."""

from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.prepare.catalogue import DATA_SETS


@pytest.fixture
def prepare(monkeypatch, capsys, tmp_path):
    """Run the command for a data set that is said to have `counts`; gives its exit code and what it printed."""

    def run(name, source, *options, counts=None, classes=2, hashes=None, directory=tmp_path / "out"):
        if counts is not None:
            files = {file: (hashes or {}).get(file) for file in DATA_SETS[name].files}
            small = replace(DATA_SETS[name], counts=counts, num_classes=classes, files=files)
            monkeypatch.setitem(DATA_SETS, name, small)
        code = 0
        try:
            main(["prepare", name, str(source), str(directory), *options])
        except SystemExit as left:
            code = left.code
        output = capsys.readouterr()
        return code, output.out + output.err

    return run
