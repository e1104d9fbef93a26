"""What the numbers say, in a sentence for each task: what pre-training changed, and whether that is evidence."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from results import metrics
from results.methods import CONTROL
from results.statistics import significant
from results.tables.text import records, settings, start
from suite_tasks import find

_MOST = 4  # experiments of a task that have a sentence each
_NAMED = 4  # comparisons of one verdict that are named where they are only counted
_NUMBERS = {1: "one seed", 2: "two seeds"}


@dataclass(frozen=True)
class Headline:
    """A sentence. `verdict` is "better", "worse" or "unclear"; of several comparisons "better" or "worse" if all are.

    Args:
        subject: the task, what it is judged by and, where there are several, the experiment.
    """

    subject: str
    text: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


def headlines(table: pd.DataFrame) -> list[Headline]:
    """A sentence for each task and experiment; for each task where it has very many experiments.

    Args:
        table: of benchmark_table.
    """
    found = []
    for task, part in table.groupby("task", sort=False):
        if not find(str(task)).percent:
            continue  # of these numbers more is neither better nor worse
        metric = metrics.headline(str(task), list(dict.fromkeys(part["metric"])))
        lines = part[part["metric"] == metric]
        subject = f"{task}, {metrics.label(metric)}"
        always = ["model", "recipe"] if metrics.measures(str(task)) else ["model"]  # a protocol is what was measured
        telling = [*always, *(k for k in ("recipe", "variant", "data") if k not in always and lines[k].nunique() > 1)]
        experiments = list(lines.groupby(["model", "recipe", "variant", "data"], dropna=False, sort=False))
        if len(experiments) > _MOST:
            found.append(_counted(subject, records(lines[lines["difference"].notna()]), telling))
            continue
        for _, group in experiments:
            where = filter(None, (_told(key, records(group)[0]) for key in telling))
            found.append(_headline(", ".join([subject, *where]), group))
    return found


def _told(key: str, line: dict[str, object]) -> str:
    return f"on {line['data_name']}" if key == "data" else settings(line[key])


def _headline(subject: str, lines: pd.DataFrame) -> Headline:
    control = lines[lines["method"] == CONTROL]
    others = lines[lines["method"] != CONTROL]
    if not len(control) or not len(others):
        missing = "no finished run from scratch" if len(others) else "no finished run after pre-training"
        return Headline(subject, f"{missing}, so nothing to compare", "unclear")
    seeds = int(control["n"].iloc[0])
    known = records(others)
    verdicts = {_verdict(line) for line in known}
    return Headline(subject, "; ".join(_sentences(known, seeds)), verdicts.pop() if len(verdicts) == 1 else "unclear")


def _sentences(lines: Sequence[dict[str, object]], control_seeds: int) -> Iterator[str]:
    for line in lines:
        difference, low, high = (float(str(line[f"difference{end}"])) for end in ("", "_low", "_high"))
        name, seeds = start(line), min(int(str(line["n"])), control_seeds)
        if math.isnan(low):
            yield f"{name} {_signed(difference)} over scratch, {_NUMBERS.get(seeds, f'{seeds} seeds')}: no evidence"
        else:
            doubt = "" if significant(low, high) else ": not significant"
            yield f"{name} {_signed(difference)} [{low:.1f}, {high:.1f}] over scratch, {seeds} seeds{doubt}"


def _signed(difference: float) -> str:
    text = f"{difference:+.1f}"
    return "0.0" if float(text) == 0 else text


def _verdict(line: dict[str, object]) -> str:
    low, high = float(str(line["difference_low"])), float(str(line["difference_high"]))
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _counted(subject: str, lines: Sequence[dict[str, object]], telling: Sequence[str]) -> Headline:
    named: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    for line in lines:
        where = ", ".join(filter(None, (_told(key, line) for key in telling)))
        named[_verdict(line)].append(f"{start(line)} of {where}, {_signed(float(str(line['difference'])))}")
    better, worse = (
        f"{len(names) or 'none'}" + f" ({'; '.join([*names[:_NAMED], *['...'] * (len(names) > _NAMED)])})" * bool(names)
        for names in (named["better"], named["worse"])
    )
    text = (
        f"of {len(lines)} comparisons with scratch better by an interval without zero: {better}; worse: {worse}; "
        f"not significant: {len(named['unclear'])}"
    )
    verdicts = [verdict for verdict, names in named.items() if names]
    return Headline(subject, text, verdicts[0] if len(verdicts) == 1 else "unclear")
