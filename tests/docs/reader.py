"""Somebody who reads README and docs and does what they say: every command and block of Python, each once, small."""

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mim_benchmark as mim
import suite_command
from tests import forked
from tests.docs.pages import PAGES, Said, by_make, said
from tests.docs.places import BEFOREHAND, NAMES, Places, few, remove
from tests.docs.shortened import shorten, unable
from tests.helpers import ROOT

OUTPUTS = ("--run-dir", "--runs-dir", "--list", "-o", "--out", "--output", "--target")
WRITES = {"benchmarks demo-data": 0, "benchmarks prepare": 2, "segmentation export": 1, "detection export": 1}
"""Commands that are given what they write without a flag -> which of the words behind them it is."""
PLACE = re.compile(
    r"(?:/data|data|runs|exported|photos|few-photos|other-photos|boxes|downloads|DIR)(?:/|$)|[\w./-]+\.(?:txt|pth|gz)$"
)
PYTHON_LENGTHS: dict[str, dict[str, Any]] = {
    "pretrain": {"steps": 2, "batch_size": 104, "image_size": 32},
    "classification": {"steps": 2, "batch_size": 104, "image_size": 32},
    "detection": {"iterations": 2, "batch_size": 4, "image_size": 48},
}
PYTHON_SETTINGS: dict[str, dict[str, Any]] = {
    "detection": {
        **{"data.short_sides": (48,), "data.max_side": 64, "precise_bn": 1, "evaluate_every": 0},
        **{"heads.rois_per_image": 16, "heads.box_features": 32, "heads.pyramid_channels": 16},
        **{"heads.mask_channels": 16, "heads.mask_convs": 1, "heads.rpn_post_nms": (20, 9)},
    }
}


def outputs(one: Said) -> list[str]:
    """What a command writes, as its words say."""
    words = list(one.words)
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word in OUTPUTS]
    if " ".join(words[2:4]) in WRITES:
        found.append(words[4 + WRITES[" ".join(words[2:4])]])
    return found + re.findall(r'run_dir="(.*?)"', one.code) + re.findall(r'Path\("(data/\w+)"\)', one.code)


def write_modules(one: Said, folder: Path) -> None:
    """Write the network of a page's Python that a command names, as `module:Class`, where Python finds it."""
    for module, name in re.findall(r"\b([a-z]\w*):([A-Z]\w+)", " ".join(one.words)):
        code = next(other.code for other in said(one.page) if f"class {name}(" in other.code)
        (folder / f"{module}.py").write_text(code)


def places_in(one: Said) -> list[str]:
    """What a command or a block of Python reads, as far as it looks like a path."""
    words = re.findall(r'"([^"\s]+)"', one.code) if one.code else shorten(one.words)
    written = outputs(one)
    return [word for word in words if PLACE.match(word) and word not in written]


class Reader:
    """Does what pages say, each in a folder of its own; what a command needs and another one makes is made first.

    Args:
        folder: for all of it.
        url: of a server with the published files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.places = folder, Places(folder / "places")
        self.done: dict[tuple[str, tuple[str, ...], str], tuple[int, str]] = {}
        self.url = ""

    def outcome(self, one: Said) -> tuple[int, str]:
        """Exit code and output; of a command that stands on several pages, of the first time."""
        for (_, words, code), result in self.done.items():
            if (words, code) == (one.words, one.code):
                return result
        return self.do(one)

    def do(self, one: Said) -> tuple[int, str]:
        """Run it in the folder of its page, with what it needs before it."""
        key = (one.page, one.words, one.code)
        if key not in self.done:
            folder = self.folder / Path(one.page).stem
            if not folder.exists():
                (folder / "results").mkdir(parents=True)
                (folder / "results" / "studies").symlink_to(ROOT / "results" / "studies")
            (folder / "runs").mkdir(exist_ok=True)
            write_modules(one, folder)
            cannot = unable(one.words)
            for place in () if cannot and cannot.says else places_in(one):  # nothing for what is refused
                self._provide(place, one, folder)
            began = _spent()
            self.done[key] = self._run(one, folder)
            with (self.folder / "times").open("a") as file:
                file.write(f"{_spent() - began:7.1f} {one}\n")
        return self.done[key]

    def _provide(self, place: str, one: Said, folder: Path) -> None:
        name = place if place in NAMES else ""
        path = folder / place.strip("/")
        if name:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(self.places[NAMES[name]])
            return
        if path.exists() or place.startswith("/"):
            return
        for other in self._candidates(one.page):
            if other != one and any(f"{place}/".startswith(f"{out}/") for out in outputs(other)):
                if not self._bring(place, other, path):
                    code, printed = self.do(Said(one.page, other.words, other.code))
                    assert code == 0, f"{other}, which {one} needs: {printed}"
                return

    def _bring(self, place: str, made_by: Said, path: Path) -> bool:
        """Link what the same command of another page has made; whether it has."""
        for page, words, code in self.done:
            made = self.folder / Path(page).stem / place
            if (words, code) == (made_by.words, made_by.code) and made.is_dir():
                shutil.copytree(made, path, symlinks=True, copy_function=os.link)
                return True
        return False

    def _candidates(self, page: str) -> Iterator[Said]:
        yield from said(page)
        yield from (Said(page, tuple(shlex.split(text))) for text in BEFOREHAND.values())
        for other in PAGES:
            if other != page:
                yield from said(other)

    def _run(self, one: Said, folder: Path) -> tuple[int, str]:
        words = [self._here(word, folder) for word in shorten(one.words)]
        if words[0] == "make":
            return self._make(one)
        if words[0] == "pip":
            return _pip(words, folder)
        action = _python(one.code) if one.code else _command(words, one)
        env = {"MIM_CACHE": str(self.folder / "cache"), "MIM_RELEASED_URL": self.url}
        for out in outputs(one):
            if "--resume" not in words and "--run-dir" in words:
                remove(folder / out)
        log = self.folder / "log"
        before = log.stat().st_size if log.exists() else 0
        code = forked.call(action, folder, log, log, **env)
        for out in outputs(one):
            if (folder / out).name == "digits" and one.code:
                few(folder / out)
        return code, log.read_bytes()[before:].decode(errors="replace")

    def _here(self, word: str, folder: Path) -> str:
        return str(folder / word[1:]) if word.startswith("/data/") else word

    def _make(self, one: Said) -> tuple[int, str]:
        printed = ""
        for inner in by_make(one.words):
            code, text = self.do(Said(one.page, tuple(inner)))
            printed += text
            if code:
                return code, printed
        return 0, printed


def _spent() -> float:
    """Seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(words: list[str], one: Said) -> Callable[[], object]:
    if words[:2] == ["python", "-m"]:
        return forked.module(*words[2:])
    if words[0] == "mim":
        return lambda: suite_command.main(words[1:])
    if words[0] == "ruff":
        return forked.module(*words)
    if words[0] == "torchrun":
        return forked.module("torch.distributed.run", *words[1:])
    raise AssertionError(f"{one}: nothing here says how a test runs this; see tests/docs/shortened.py")


def _pip(words: list[str], folder: Path) -> tuple[int, str]:
    """`pip install` of a copy of the checkout without what it depends on, which would be downloaded."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if not name.startswith(("tests/", "docs/", "results/studies/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--target", "site", "--upgrade"]
    command = [sys.executable, "-m", *words, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def _python(code: str) -> Callable[[], object]:
    def run() -> None:
        mim.pretrain = _short(mim.pretrain)
        mim.finetune = _short(mim.finetune)
        text = re.sub('"(?:r50|resnet18)"', '"test_resnet.r160_in1k"', code)
        exec(compile(text, "page", "exec"), {"__name__": "page"})

    return run


def _short(function: Callable[..., Any]) -> Callable[..., Any]:
    def short(*arguments: Any, **given: Any) -> Any:
        package = given.get("task", "pretrain" if function.__name__ == "pretrain" else "classification")
        settings = {**given.pop("settings", {}), "data.num_workers": 0, **PYTHON_SETTINGS.get(package, {})}
        return function(*arguments, **{**given, **PYTHON_LENGTHS[package]}, settings=settings)

    return short
