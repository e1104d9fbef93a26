"""What image sets are called: by the folder that they were in, with a digest where that does not tell them apart."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from results.runs.facts import DATASETS

if TYPE_CHECKING:
    from results.runs.runfolder import FinishedRun

# Folders whose names are those of published data sets, which generated scenes and subsets borrow for their layout.
_BORROWED = {"imagenet", "imagenet-1k", "imagenet1k", "ilsvrc2012", "coco", "ade20k", "adechallengedata2016"}


def names_of(runs: "Sequence[FinishedRun]") -> dict[tuple[str, str], str]:
    """{(task, key of its data): what people call them}, each name once in a task and without spaces.

    A set that lay in several folders has the name of the first.
    """
    folders: dict[tuple[str, str], str] = {}
    for run in runs:
        folders.setdefault((run.task, run.facts.key), _folder(run))
    shared = Counter((task, folder) for (task, _), folder in folders.items())
    return {
        (task, key): key if not folder else folder if shared[task, folder] == 1 else f"{folder}({key})"
        for (task, key), folder in folders.items()
    }


def with_named_starts(runs: "Sequence[FinishedRun]", names: dict[tuple[str, str], str]) -> "list[FinishedRun]":
    """The runs, the data of what they started from by name instead of by key.

    Args:
        runs: of one collection.
        names: of names_of.
    """
    by_key = {key: name for (_, key), name in names.items()}
    return [
        replace(run, start=replace(run.start, settings=_named(run.start.settings, by_key)))
        if run.start.settings
        else run
        for run in runs
    ]


def without_own(variant: str, name: str) -> str:
    """A variant of pre-training without its data, where they are those that the run itself is on.

    Args:
        variant: of collect's `pretrain_variant`.
        name: of the run's data.
    """
    return re.sub(rf"(^| ){re.escape(f'data={json.dumps(name)}')}(?= |$)", "", variant).strip()


def _named(settings: dict[str, object], by_key: dict[str, str]) -> dict[str, object]:
    return {
        name: by_key.get(str(value), value) if name.rpartition(".")[2] == "data" else value
        for name, value in settings.items()
    }


def _folder(run: "FinishedRun") -> str:
    """The last part of the path, or the last two where the last one is the name of a data set that it is not."""
    parts = PurePath(str(run.config.get("data", {}).get("root", ""))).parts
    borrowed = bool(parts) and parts[-1].lower() in _BORROWED and run.facts.name not in DATASETS.values()
    return re.sub(r"\s+", "_", "/".join(parts[-2:] if borrowed else parts[-1:]).replace("//", "/"))
