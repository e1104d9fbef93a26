"""The `logistic` protocol: L2 logistic regression on features, its strength chosen on a part of train (DINOv2)."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import Encoder
from engine import use
from engine.run import storage
from engine.run.open import Run
from evaluation.config import LogisticConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import counts, extract, list_hash, open_readout, representations
from evaluation.measured import Inputs, Measured
from evaluation.softmax import FitOptions, Softmax, fit
from evaluation.split import hold_out

VERSION = 1
log = logging.getLogger("mim")
open_data: Callable[[LogisticConfig], Labelled] = open_labelled


def strengths(config: LogisticConfig) -> npt.NDArray[np.float64]:
    """The grid of C: powers of ten, evenly spaced in the exponent."""
    return np.logspace(config.c_exponents[0], config.c_exponents[1], config.c_steps)


def top_hits(scores_nc: npt.NDArray[np.float64], labels_n: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.bool_]]:
    """Whether each image's class is the first, and among the first five."""
    match = np.argsort(-scores_nc, axis=1, kind="stable") == labels_n[:, None]
    return {"top1": match[:, 0], "top5": match[:, :5].any(axis=1)}


def measure(run: Run, encoder: Encoder, config: LogisticConfig, inputs: Inputs) -> Measured:
    """Choose C on the part that is put aside, fit it again on all of train, and count on val."""
    readout, data = open_readout(encoder, run.device), inputs.data
    head = representations(readout, config)[0]
    train = extract(readout, encoder, data.train, [head], config, inputs)[head.name]
    val = extract(readout, encoder, data.val, [head], config, inputs)[head.name]
    labels, num_classes = data.train.labels, len(data.train.classes)
    kept, held = hold_out(labels, config.selection_share, config.seed)
    options = FitOptions(max_iterations=config.max_iterations, tolerance=config.tolerance)
    cells: list[dict[str, Any]] = []
    before: Softmax | None = None
    for c in use.each(strengths(config).tolist(), f"logistic {encoder.name}"):
        before = fit(
            train[kept],
            labels[kept],
            num_classes,
            l2=1 / (c * len(kept)),
            device=run.device,
            options=FitOptions(max_iterations=config.max_iterations, tolerance=config.tolerance, start=before),
        )
        found = 100 * float(top_hits(before.scores(train[held]), labels[held])["top1"].mean())
        cells.append({"c": c, "top1": found, "iterations": before.iterations, "converged": before.converged})
    best = max(cells, key=lambda cell: cell["top1"])  # of equal ones the strongest penalty
    final = fit(train, labels, num_classes, l2=1 / (best["c"] * len(train)), device=run.device, options=options)
    if not final.converged:
        log.warning("logistic regression stopped at %d iterations", final.iterations)
    with storage.storage_errors(run.dir):
        storage.write_json(run.dir / "grid.json", cells)
    right = top_hits(final.scores(val), data.val.labels)
    metrics = {name: 100 * float(value.mean()) for name, value in right.items()}
    row = {
        "optimizer": f"L-BFGS, {final.iterations} iterations, C {best['c']:.3g}",
        "grid": {"C": strengths(config).tolist()},
        "selection_set": f"{len(held)} of {len(train)} training images, {best['top1']:.2f} there; then fitted on all",
        **list_hash(data),
    }
    return Measured(metrics, {**head.row(readout), **row}, counts(data), right["top1"])
