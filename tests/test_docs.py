"""README and docs: the site builds without a warning or a network, and every command in them exists as it is written.

Commands that stand for whole examples are run elsewhere (tests/docs, tests of the packages); here each one's recipe or
subcommand and each of its flags is looked up in the help that it prints.
"""

import os
import re
import shlex
import subprocess
import sys

import pytest

import suite_command
from benchmarks import recipe_sheet
from tests.helpers import ROOT

EXECUTED = {"docs/adding-a-method.md", "docs/adding-a-task.md"}  # by tests of their own, with what they make
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULE = re.compile(r"(?:^|\s)-m\s+([\w.]+)(.*)")
WORDS = {("slurm", "launch"): 2}  # how many of the words behind the package choose what is asked for its help
NAMES = {"engine.verify": "verify"}


def blocks(path):
    """The shell blocks of a page."""
    return re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", path.read_text(), flags=re.S)


def commands():
    """(page, command line) of every shell block, continued lines joined and here-documents left out."""
    for path in (path for path in PAGES if path.relative_to(ROOT).as_posix() not in EXECUTED):
        for block in blocks(path):
            text = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", block.replace("\\\n", " "), flags=re.S)
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                for part in " ".join(map(shlex.quote, words)).split("'&&'"):
                    yield path.relative_to(ROOT).as_posix(), shlex.split(part)


def of_packages():
    """(package, what its help is asked for) -> {flag: the pages that use it}."""
    found = {}
    for page, words in commands():
        line = " ".join(map(shlex.quote, words))
        match = MODULE.search(line)
        if match is None and not (words and words[0] == "mim"):
            continue
        package, rest = (match[1], shlex.split(match[2])) if match else (words[1], words[2:])
        package = NAMES.get(package, package)
        if (package, *rest[:1]) == ("slurm", "run"):  # OPTIONS of the job, then another command
            inner = next(i for i, word in enumerate(rest) if word in suite_command.COMMANDS)
            package, rest = rest[inner], rest[inner + 1 :]
        if package not in suite_command.COMMANDS:
            continue
        chosen = [word for word in rest if not word.startswith("-")][: WORDS.get((package, rest[0] if rest else ""), 1)]
        if package in ("verify", "results") or (rest and rest[0].startswith("-")):
            chosen = chosen[:1] if package == "results" else []
        flags = found.setdefault((package, *chosen), {})
        for word in rest:
            if word.startswith("--"):
                flags.setdefault(word.partition("=")[0], []).append(page)
    return found


COMMANDS = of_packages()


@pytest.mark.parametrize("asked", sorted(COMMANDS), ids=" ".join)
def test_a_command_of_the_docs_exists_with_its_flags(asked, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as left:
        suite_command.main([*asked, "--help"])
        raise SystemExit(0)
    printed = capsys.readouterr()
    assert left.value.code in (0, None), printed.err
    known = set(re.findall(r"--[\w.-]+", printed.out))
    known |= {flag for flag in COMMANDS[asked] if "--data.<option>" in printed.out and flag.startswith("--data.")}
    missing = {flag: pages for flag, pages in COMMANDS[asked].items() if flag not in known | {"--help", "--debug"}}
    assert not missing


def test_make_targets_of_the_docs_exist():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    used = {word for _, words in commands() for word in words[1:2] if words and words[0] == "make"}
    assert used
    assert {word for word in used if "=" not in word} <= targets


def test_the_site_builds_without_a_warning_and_asks_nobody_for_anything(tmp_path):
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:')
    assert not [page.name for page in pages if loaded.search(page.read_text())]


def test_the_recipes_side_by_side_are_the_recipes():
    assert (ROOT / "docs/recipes.md").read_text() == recipe_sheet.page(), "python -m benchmarks.recipe_sheet writes it"
