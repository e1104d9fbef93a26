"""The `knn` protocol: votes of the nearest neighbours (Wu et al. 2018, as DINO measures it)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import Encoder
from engine.run import storage
from engine.run.open import Run
from evaluation.config import KnnConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import Representation, counts, extract, list_hash, open_readout, representations
from evaluation.measured import Inputs, Measured
from evaluation.measures import hits, votes
from evaluation.neighbours import nearest

VERSION = 1
open_data: Callable[[KnnConfig], Labelled] = open_labelled


def grid(
    bank: npt.NDArray[Any],
    queries: npt.NDArray[Any],
    bank_labels: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    *,
    config: KnnConfig,
    device: Any,
) -> list[dict[str, Any]]:
    """Every cell of k and T: {"k", "temperature", "top1", "top5", "top5_dino", "correct"}, the headline's first."""
    similarities, places = nearest(bank, queries, max(config.k), device)
    neighbours, num_classes = bank_labels[places], int(max(bank_labels.max(), labels.max())) + 1
    cells = []
    for k in dict.fromkeys(config.k):
        for temperature in dict.fromkeys(config.temperature):
            scores = votes(similarities, neighbours, k=k, temperature=temperature, num_classes=num_classes)
            right = hits(scores, labels, k)
            accuracy = {name: 100 * float(value.mean()) for name, value in right.items()}
            cells.append({"k": k, "temperature": temperature, **accuracy, "correct": right["top1"]})
    return cells


def measure(run: Run, encoder: Encoder, config: KnnConfig, inputs: Inputs) -> Measured:
    """k-NN accuracy at the headline's representation, at each other one, and at the best cell of the grid."""
    readout, data = open_readout(encoder, run.device), inputs.data
    wanted = representations(readout, config)
    banks = extract(readout, encoder, data.train, wanted, config, inputs)
    queries = extract(readout, encoder, data.val, wanted, config, inputs)
    cells = {
        each: grid(
            banks[each.name], queries[each.name], data.train.labels, data.val.labels, config=config, device=run.device
        )
        for each in wanted
    }
    _write(run, cells)
    head, best = wanted[0], max(cells[wanted[0]], key=lambda cell: cell["top1"])
    first = cells[head][0]
    metrics = {name: first[name] for name in ("top1", "top5", "top5_dino")}
    metrics["top1_best_of_grid"] = best["top1"]
    metrics |= {f"top1_{each.label(head)}": cells[each][0]["top1"] for each in wanted[1:]}
    row = {"k": first["k"], "temperature": first["temperature"], "similarity": "cosine", **list_hash(data)}
    row["grid"] = {"k": list(config.k), "temperature": list(config.temperature)}
    row["selection_set"] = f"none; best of grid on val: k {best['k']}, T {best['temperature']}"
    return Measured(metrics, {**head.row(readout), **row}, counts(data), first["correct"])


def _write(run: Run, cells: Mapping[Representation, Sequence[dict[str, Any]]]) -> None:
    """grid.json: every cell of every representation."""
    shown = {
        each.name: [{name: value for name, value in cell.items() if name != "correct"} for cell in rows]
        for each, rows in cells.items()
    }
    with storage.storage_errors(run.dir):
        storage.write_json(run.dir / "grid.json", shown)
