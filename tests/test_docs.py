"""The site builds without a warning or a network; tests/docs carries out what the pages say."""

import os
import re
import subprocess
import sys

from benchmarks import recipe_sheet
from tests.helpers import ROOT


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
