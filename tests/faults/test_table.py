"""README.md beside this names tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_test_that_the_table_names_is_there():
    rows = [line for line in (HERE / "README.md").read_text().splitlines() if re.match(r"\| F\d\d", line)]
    assert rows
    for row in rows:
        path = None
        for named in re.split(r",\s*", row.rstrip("| ").rpartition("|")[2].strip()):
            file, _, name = named.partition("::")
            path = path if not file else HERE.parent.parent / file if "/" in file else HERE / file
            assert path is not None and path.is_file(), row
            name = name.rpartition("::")[2]
            assert not name or re.search(rf"(def|class) {re.escape(name)}\b", path.read_text()), (row, name)


def test_every_row_from_f01_to_f59_is_there():
    cells = re.findall(r"^\| ([F\d, ]+) \|", (HERE / "README.md").read_text(), re.MULTILINE)
    named = {int(number) for cell in cells for number in re.findall(r"F(\d\d)", cell)}
    assert named == set(range(1, 60))
