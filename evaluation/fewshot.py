"""The `fewshot` protocol: logistic regression on a few images of each class, over several draws (MSN)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import Encoder
from engine import use
from engine.run import storage
from engine.run.open import Run
from evaluation.config import FewshotConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import counts, extract, list_hash, open_readout, representations
from evaluation.logistic import top_hits
from evaluation.measured import Inputs, Measured
from evaluation.softmax import FitOptions, fit
from evaluation.split import few_of_each

VERSION = 1
open_data: Callable[[FewshotConfig], Labelled] = open_labelled


def prepared(features_nd: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Each feature less the mean of its own numbers, then of length 1 (a feature of length 0 stays), as MSN does."""
    values = np.asarray(features_nd, dtype=np.float64)
    values = values - values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = values / np.where(lengths > 0, lengths, 1)
    return unit


def measure(run: Run, encoder: Encoder, config: FewshotConfig, inputs: Inputs) -> Measured:
    """Mean and standard deviation (n - 1) of the accuracy over draws, for each number of images a class."""
    readout, data = open_readout(encoder, run.device), inputs.data
    head = representations(readout, config)[0]
    draws = {
        (num, draw): few_of_each(data.train, num, config.seed, draw)
        for num in dict.fromkeys(config.shots)
        for draw in range(config.draws)
    }
    train = extract(readout, encoder, data.train, [head], config, inputs)[head.name]
    val = prepared(extract(readout, encoder, data.val, [head], config, inputs)[head.name])
    accuracy: dict[int, list[float]] = {num: [] for num, _ in draws}
    options = FitOptions(intercept=False, max_iterations=config.max_iterations)
    for (num, _), chosen in use.each(list(draws.items()), f"few-shot {encoder.name}"):
        classifier = fit(
            prepared(train[chosen]),
            data.train.labels[chosen],
            len(data.train.classes),
            l2=config.strength / len(chosen),
            device=run.device,
            options=options,
        )
        accuracy[num].append(100 * float(top_hits(classifier.scores(val), data.val.labels)["top1"].mean()))
    with storage.storage_errors(run.dir):
        lists = {
            f"{num} of each, draw {draw}": [data.train.paths[int(i)] for i in c] for (num, draw), c in draws.items()
        }
        storage.write_json(run.dir / "draws.json", lists)
    metrics = {f"top1_{num}shot": float(np.mean(values)) for num, values in accuracy.items()}
    if config.draws > 1:
        metrics |= {f"top1_{num}shot_std": float(np.std(values, ddof=1)) for num, values in accuracy.items()}
    row = {
        "optimizer": f"L-BFGS, no intercept, l2 {config.strength:g} / n",
        "grid": {"images a class": list(accuracy), "draws": config.draws},
        "selection_set": "none",
        "seeds": [config.seed, *range(config.draws)],
        **list_hash(data),
    }
    return Measured(metrics, {**head.row(readout), **row}, counts(data))
