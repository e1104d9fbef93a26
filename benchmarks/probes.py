"""What the frozen encoders of a benchmark are worth, beside their fine-tuning: k-NN and logistic regression, minutes
instead of hours, on the same share of the labels and the same validation images."""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.plan import PRETRAINING, Stage
from engine.errors import SuiteError
from engine.run import storage
from evaluation.command import Asked
from evaluation.config import DataConfig, KnnConfig, LogisticConfig
from evaluation.run import measure_all
from results.statistics import difference_of, mean_of, significant
from suite_tasks import find

PROTOCOLS: dict[str, Any] = {
    "knn": lambda **fields: KnnConfig(k=(20,), temperature=(0.07,), **fields),
    "logistic": lambda **fields: LogisticConfig(c_steps=12, max_iterations=200, **fields),  # minutes, also on a CPU
}
TITLES = {"knn": "k-NN, frozen", "logistic": "logistic, frozen"}
Values = dict[tuple[str, float, str], dict[int, float]]
"""(method, share of the labels, column) -> {seed: top-1 in percent}."""


def measure(stages: Sequence[Stage], runs_dir: Path, protocols: Sequence[str]) -> Values:
    """Top-1 of each fine-tuning that is finished, and of its encoder by each protocol. A control's encoder is the
    network without training, of the same seed.

    Args:
        stages: of the graph.
        runs_dir: folder of run folders; the protocols' are in `probes` there.
        protocols: of PROTOCOLS.
    """
    found: Values = defaultdict(dict)
    seen: set[Path] = set()
    for stage in stages:
        task = find(stage.package)
        result = stage.folder(runs_dir) / "finished.json"
        if task.kind != "finetuning" or task.data != PRETRAINING.data or not result.is_file():
            continue
        config = stage.config
        method = stage.needs[0] if stage.needs else "scratch"
        name = _method(runs_dir / method) if stage.needs else "from scratch"
        tuned = json.loads(result.read_bytes())["metrics"]
        where = (name, config.data.train_fraction)
        found[(*where, "fine-tuned")][config.seed] = tuned[next(m for m in task.headline if m in tuned)]
        encoder = config.init if stage.needs else f"random:{config.model}@{config.seed}"
        for protocol in protocols:
            run = _measure_one(protocol, encoder, config, runs_dir)
            if run not in seen:  # seeds that share an encoder and all labels are one measurement
                seen.add(run)
                top1 = json.loads((run / "finished.json").read_bytes())["metrics"]["top1"]
                found[(*where, TITLES[protocol])][config.seed] = float(top1)
    return found


def _method(run: Path) -> str:
    """As people write the method of a pre-training."""
    return str(json.loads((run / "finished.json").read_bytes())["method"]["title"])


def _measure_one(protocol: str, encoder: str, config: Any, runs_dir: Path) -> Path:
    """The run folder of an encoder's measurement on what a fine-tuning is trained and validated on."""
    data = DataConfig(
        root=config.data.root,
        val_share=config.data.val_share,
        train_fraction=config.data.train_fraction,
        exclude=config.data.exclude,
        num_workers=config.data.num_workers,
    )
    seed = config.seed if config.data.train_fraction < 1 else 0  # which labels; of all there is no choice
    chosen = PROTOCOLS[protocol](
        seed=seed, image_size=config.augment.test_size, crop_pct=config.augment.crop_pct, data=data
    )
    folder = runs_dir / "probes"
    (run,) = measure_all(Asked(protocol, (encoder,), chosen, folder, folder / "features"))
    return run


def table(values: Values) -> str:
    """A row for each method and share: means over seeds, and the differences to training from scratch."""
    columns = list(dict.fromkeys(column for _, _, column in values))
    rows = []
    for share in sorted({share for _, share, _ in values}):
        for method in dict.fromkeys(method for method, _, _ in values):
            cells = {
                column: _cell(values[method, share, column], values.get(("from scratch", share, column)))
                for column in columns
                if (method, share, column) in values
            }
            if cells:
                rows.append({"labels": f"{share:.4g}", "method": method, **cells})
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)


def _cell(ours: dict[int, float], control: dict[int, float] | None) -> str:
    """`61.2 ± 0.8 (+3.1 [1.2, 5.0])`: mean, spread, and the difference to the control, with `~` if it says nothing."""
    mean = mean_of(list(ours.values()))
    text = f"{mean.mean:.2f}" + ("" if math.isnan(mean.std) else f" ± {mean.std:.2f}")
    if control is None or ours is control:
        return text
    found = difference_of(ours, control)
    interval = "" if math.isnan(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{text} ({found.difference:+.2f}{interval}{'' if significant(found.low, found.high) else '~'})"


def report(stages: Sequence[Stage], runs_dir: Path, name: str, protocols: Sequence[str]) -> None:
    """Print the table and write it to `runs_dir`/`name`-probes.md.

    What cannot be measured is said, for the table of the runs stands without it.

    Raises:
        CheckpointError: the file cannot be written.
    """
    print(f"measuring the frozen encoders ({', '.join(protocols)}): minutes, and --probes without a name does without")
    try:
        values = measure(stages, runs_dir, protocols)
    except SuiteError as error:
        print(f"the frozen encoders could not be measured: {error}", file=sys.stderr)
        return
    if not values:
        return
    text = (
        f"{table(values)}\n\nTop-1 in percent, mean ± standard deviation over the seeds, in brackets less that from "
        "scratch (of a frozen encoder: less that of an untrained network); ~ not significant."
    )
    path = runs_dir / f"{name}-probes.md"
    with storage.storage_errors(runs_dir):
        storage.write_atomic(path, text + "\n")
    print(f"{text}\nwritten: {path}")
