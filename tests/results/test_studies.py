"""The tables of README and docs/studies.md are those of the run folders in the repository."""

import json
import re
import shlex
import shutil

import pytest
from scipy import stats

from results.__main__ import main
from results.runs.collect import collect
from results.tables.rows import benchmark_table
from tests.helpers import ROOT


@pytest.mark.parametrize(("page", "tables"), [("README.md", 1), ("docs/studies.md", 5)])
def test_a_printed_table_is_what_its_command_prints(page, tables, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / page).read_text()
    found = re.findall(r"```bash\npython -m results (labels .*)\n```\n\n((?:\|.*\n)+)", text)
    assert len(found) >= tables
    for command, table in found:
        words = [str(path) for word in shlex.split(command) for path in sorted(ROOT.glob(word)) or [word]]
        assert main(words) == 0
        assert capsys.readouterr() == (table, ""), "and no run is left out"


def test_the_runs_in_the_repository_name_no_folder_of_the_machine_that_made_them():
    made = ("digits-*", "clipart*", "scenes*")
    files = [path for name in made for path in ROOT.glob(f"results/studies/{name}/*/*.json")]
    assert len(files) > 200 and not [path for path in files if '"/' in path.read_text()]


def test_readmes_first_table_has_five_seeds_and_intervals():
    text = (ROOT / "README.md").read_text()
    header, _, *rows = re.search(r"((?:\|.*\n)+)", text)[1].splitlines()
    assert header.rstrip(" |").endswith("n")
    assert all(int(row.strip("| ").rpartition("|")[2]) >= 5 for row in rows)
    assert sum("[" in row for row in rows) >= 2


def test_frozen_encoders_are_paired_by_the_seed_of_their_pre_training(tmp_path):
    """Which is known of runs elsewhere by the hash of their configuration; all were measured with seed 0."""
    studies = ROOT / "results" / "studies"
    rows = collect([studies / "digits-short", studies / "digits-knn"])[0]
    knn = rows[(rows["task"] == "evaluation") & (rows["metric"] == "top1")]
    assert set(knn["seed"]) == {0}
    assert knn.groupby("method")["pretrain_seed"].apply(sorted).tolist() == [[0, 1, 2, 3, 4]] * 3
    table = benchmark_table(knn).set_index("method")
    by_seed = knn.pivot(index="pretrain_seed", columns="method", values="value")
    for method in ("simmim", "a2mim"):
        expected = stats.ttest_rel(by_seed[method], by_seed["scratch"]).confidence_interval()
        assert table.loc[method, "pairs"] == 5
        assert table.loc[method, ["difference_low", "difference_high"]].tolist() == pytest.approx(list(expected))
    alone = collect([shutil.copytree(studies / "digits-knn", tmp_path / "digits-knn")])[0]
    assert (benchmark_table(alone)["pairs"] == 0).all(), "without the pre-trainings nothing tells their seeds"


def test_the_expected_curves_are_those_of_the_study():
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|$", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    assert len(rows) >= 5
    for number, method in ((1, "simmim"), (2, "a2mim")):
        runs = sorted((ROOT / "results/studies/digits-short").glob(f"resnet18-{method}-pretrain-s*/metrics.jsonl"))
        lines = [json.loads(line) for run in runs for line in run.read_text().splitlines()]
        for row in rows:
            losses = [line["loss"] for line in lines if line["split"] == "train" and line["step"] == int(row[0])]
            assert len(losses) == 5 and row[number] == f"{min(losses):.2f} to {max(losses):.2f}"
