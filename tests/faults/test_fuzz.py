"""Exit code 1 with a traceback is a bug wherever input can cause it: every file of a run folder is damaged in every way
that files are, every setting is given every value that people give, and what comes is one of our errors, or the result
of an undisturbed run."""

import dataclasses
import json
import os
import random
import shutil

import pytest

from engine.errors import STOPPED_EXIT_CODE
from engine.explain import explain
from tests.engine.tiny_task import TinyConfig, train

CODES = {2, 3, 4, 5, 6, STOPPED_EXIT_CODE}
CONFIG = TinyConfig(steps=6, evaluate_every=3, checkpoint_every=2)
DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run stopped after its fourth step, as a folder to copy, and the metrics it ends with."""
    folder = tmp_path_factory.mktemp("fuzz") / "stopped"
    stopped = dataclasses.replace(CONFIG, steps=6, signal_at="4:15")
    with pytest.raises(Exception, match="stopped by SIGTERM"):
        train(stopped, folder)
    (folder / "data.json").write_text("{}")
    finished = folder.with_name("finished")
    shutil.copytree(folder, finished)
    return folder, finished, stopped, train(stopped, finished, resume=True)


def outcome(folder, config):
    """Metrics, or the exit code of the error that the run ended with; fails on an error that is none of ours."""
    try:
        return train(config, folder, resume=True)
    except Exception as error:
        shown = explain(error)
        code = getattr(shown, "exit_code", None)
        if code not in CODES:
            raise
        assert str(shown).strip()
        assert len(str(shown)) < 3000
        return code


def damages(path):
    """{name: what does it to the file}: bytes that are no text, torn, nested, of another kind, or no file at all."""
    content = path.read_bytes()
    contents = {
        "empty": b"",
        "zeros": b"\0" * max(len(content), 1),
        "half": content[: len(content) // 2],
        "not-utf8": b"\xff\xfe\x80",
        "deep": DEEP,
        **{f"json-{text}": text.encode() for text in ("null", "[]", "{}", "7", '"x"', "NaN", '{"files": {"a": 1}}')},
    }
    yield from ((name, lambda p, data=data: p.write_bytes(data)) for name, data in contents.items())
    yield "absent", lambda p: p.unlink()
    yield "folder", lambda p: (p.unlink(), p.mkdir())
    yield "itself", lambda p: (p.unlink(), p.symlink_to(p.name))
    yield "nowhere", lambda p: (p.unlink(), p.symlink_to("nowhere/at/all"))
    yield "fifo", lambda p: (p.unlink(), os.mkfifo(p))


def files_of(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def values_of(path):
    """Copies of a JSON file's content in each of which one value, at any depth, is another or gone."""
    whole = json.loads(path.read_bytes().splitlines()[-1] if path.suffix == ".jsonl" else path.read_bytes())

    def places(value, place=()):
        if isinstance(value, dict):
            for name in value:
                yield (*place, name)
                yield from places(value[name], (*place, name))

    for place in places(whole):
        for new in (None, -1, 10**30, "\u0663", [], {}, 1e308, True):
            copied = json.loads(json.dumps(whole))
            inner = copied
            for name in place[:-1]:
                inner = inner[name]
            inner[place[-1]] = new
            yield f"{'.'.join(place)}={new!r}", copied


def check(folder, config, expected, label):
    before = (folder / "finished.json").exists()
    try:
        found = outcome(folder, config)
    except Exception as error:
        pytest.fail(f"{label}: {type(error).__name__}: {error}", pytrace=True)
    if not isinstance(found, int) and not before:
        assert found == expected, f"{label}: another result without a word"


@pytest.mark.parametrize("which", [0, 1], ids=["stopped", "finished"])
def test_a_damaged_file_of_a_run_folder_is_named_or_harmless(runs, tmp_path, which):
    source, config, expected = runs[which], runs[2], runs[3]
    cases = [(name, damage, apply) for name in files_of(source) for damage, apply in damages(source / name)]
    for name, damage, apply in random.Random(which).sample(cases, 110):
        folder = tmp_path / "run"
        shutil.copytree(source, folder)
        apply(folder / name)
        check(folder, config, expected, f"{name} {damage}")
        shutil.rmtree(folder)


def test_an_odd_value_in_a_json_file_of_a_run_folder_is_named_or_harmless(runs, tmp_path):
    source, _, config, expected = runs
    cases = [
        (name, label, content)
        for name in files_of(source)
        if name.suffix in (".json", ".jsonl")
        for label, content in values_of(source / name)
    ]
    for name, label, content in random.Random(0).sample(cases, 60):
        folder = tmp_path / "run"
        shutil.copytree(source, folder)
        (folder / name).write_text(json.dumps(content) + "\n")
        check(folder, config, expected, f"{name} {label}")
        shutil.rmtree(folder)
