"""The last sentence of a benchmark: what its numbers show, and what they cannot."""

import pandas as pd

from results import metrics
from results.methods import CONTROL
from results.statistics import FEWEST, significant

_ELSEWHERE = (
    "`python -m benchmarks study digits-short` measures it on real pictures in about twenty minutes of one core, "
    "and README shows what came out"
)
_LIMITS = {
    "demo": "generated scenes and a few minutes cannot show what pre-training is worth: " + _ELSEWHERE,
    "own": "it holds for these images, this network and these lengths of training",
    "small": "it holds for these images, this network and these lengths of training",
    "study": "it holds for these pictures, these networks and these short trainings",
    "paper": "it holds for this network, these recipes and these data sets",
}


def meaning(table: pd.DataFrame, profile: str) -> str:
    """What a table shows and cannot show.

    Args:
        table: of results.tables.rows.benchmark_table.
        profile: of the benchmark, or "study".
    """
    headline = {
        str(task): metrics.headline(str(task), list(dict.fromkeys(part["metric"])))
        for task, part in table.groupby("task", sort=False)
    }
    lines = table[(table["method"] != CONTROL) & (table["metric"] == table["task"].map(headline))]
    compared = lines[lines["difference"].notna()]
    known = compared[compared["difference_low"].notna()]
    if not len(compared):
        shown = "nothing is compared with training from scratch here, so nothing is shown about pre-training"
    elif not len(known):
        seeds = int(compared["n"].max())
        shown = (
            f"{seeds} seed{'s' * (seeds > 1)} for each number, so no interval, and a difference may be chance "
            f"(from --seeds {FEWEST} on there are intervals)"
        )
    else:
        sure = [(low, high) for low, high in zip(known["difference_low"], known["difference_high"], strict=True)]
        better = sum(significant(low, high) and low > 0 for low, high in sure)
        worse = sum(significant(low, high) and high < 0 for low, high in sure)
        shown = (
            f"of {len(known)} comparisons with training from scratch pre-training is better in {better} and worse in "
            f"{worse} by a 95 % interval without zero (one in twenty is so by chance), the rest show nothing"
        )
    return f"What this means: {shown}; {_LIMITS[profile]}."
