"""What changed on the way of a run that was interrupted and continued, by its environment.json."""

import json
from collections.abc import Mapping
from typing import Any

from results.runs.runfiles import UnusableRun

# Another value of these gives the same training: where files are, how fast they are read, how often something is saved.
HARMLESS = {
    "init", "data.root", "data.num_workers", "checkpoint_every", "log_every", "visualize_every_epochs", "deterministic",
    "digest", "other", "other_digest",  # the weights that something was measured of, as `init` names them
    "data.unreadable", "data.max_unreadable", "data.max_pixels",  # the images that were skipped are counted
    "monitor.every_epochs", "monitor.data", "monitor.max_images", "monitor.batch_size",
    "data.exclude", "data.label_list",  # the run holds on to the images that its lists came to
}  # fmt: skip
_TOLD = {"git_commit": "code", "suite_version": "suite's version", "world_size": "number of ranks"}


def changes_on_the_way(environment: Mapping[str, Any]) -> str:
    """What else than its settings changed between the starts of a run, as people read it; "" for nothing.

    Such a run is a measurement, of a mixture that has to be named: another commit of the code or number of ranks.

    Args:
        environment: environment.json; it and each of its `resumes` describe one start.

    Raises:
        UnusableRun: a setting that makes another training was changed, or `resumes` cannot be understood.
    """
    resumes = environment.get("resumes", [])
    if not isinstance(resumes, list) or not all(isinstance(entry, dict) for entry in resumes):
        raise UnusableRun("environment.json: resumes is no list of objects, so what changed on the way is not known")
    for entry in resumes:
        _refuse_other_settings(entry)
    starts = [environment, *resumes]
    told = []
    for name, words in _TOLD.items():
        values = [_text(start[name]) for start in starts if start.get(name) is not None]
        several = list(dict.fromkeys(values))
        if len(several) > 1:
            told.append(f"{words} {' -> '.join(several)}")
    return f"changed when it was continued: {', '.join(told)}" if told else ""


def _refuse_other_settings(entry: Mapping[str, Any]) -> None:
    changed = entry.get("changed") or {}
    if not isinstance(changed, dict):
        raise UnusableRun("environment.json: changed is no object, so what changed on the way is not known")
    other = {name: pair for name, pair in changed.items() if name not in HARMLESS}
    if other:
        lines = ", ".join(f"{name} {_pair(pair)}" for name, pair in other.items())
        raise UnusableRun(f"its settings were changed when it was continued: {lines}")


def _pair(pair: Any) -> str:
    old_and_new = pair if isinstance(pair, list) and len(pair) == 2 else [None, pair]
    return " -> ".join(json.dumps(value) for value in old_and_new)


def _text(value: Any) -> str:
    return value[:10] if isinstance(value, str) else json.dumps(value)
