"""The `sweep` protocol: linear heads on layers x tokens x rates in one pass, the best on a part of train."""

from collections.abc import Callable
from typing import Any

from backbones import Encoder
from backbones.frozen import Readout
from engine.errors import ConfigError
from engine.run import storage
from engine.run.open import Run
from evaluation.config import SweepConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import Representation, counts, layer_number, list_hash, open_readout
from evaluation.heads import Head
from evaluation.linear import trained
from evaluation.measured import Inputs, Measured
from evaluation.probe import Frozen, Probe, on_ranks
from evaluation.split import hold_out

VERSION = 1
__all__ = ["VERSION", "measure", "on_ranks", "open_data", "recipe"]
open_data: Callable[[SweepConfig], Labelled] = open_labelled


def recipe(config: SweepConfig) -> str:
    """Its name: without augmentation it is another protocol."""
    return "sweep" if config.augment == "crop" else "sweep-cached"


def swept(readout: Readout, config: SweepConfig) -> list[Representation]:
    """Every layer with every token that the network has, after its final norm where that fits the layer.

    Raises:
        ConfigError: it has none of the tokens, or not such a layer.
    """
    tokens = [token for token in dict.fromkeys(config.tokens) if "cls" not in token or readout.has_class_token]
    if not tokens:
        raise ConfigError(f"tokens: {readout.backbone.name} has no class token; take --tokens mean")
    layers = [layer_number(readout, layer) for layer in config.layers or range(1, readout.depth + 1)]
    after = config.norm == "after"
    return [
        Representation(layer, token, after and readout.has_norm(layer))
        for layer in dict.fromkeys(layers)
        for token in tokens
    ]


def measure(run: Run, encoder: Encoder, config: SweepConfig, inputs: Inputs) -> Measured:
    """Train all heads, choose one on what was held out, and count its hits on val."""
    data: Labelled = inputs.data
    assert data.train.labels is not None
    readout = open_readout(encoder, run.device)
    wanted = swept(readout, config)
    options = {"standardise": config.standardise}
    heads = [Head(each.name, rate, options=options) for each in wanted for rate in dict.fromkeys(config.rates)]
    kept, held = hold_out(data.train.labels, config.selection_share, config.seed)
    parts = [data.train.subset(positions.tolist()) for positions in (kept, held)]
    probe = Probe(
        run, config, Frozen(readout, encoder, wanted, config.extract_batch), inputs, heads, parts[0], data.val, parts[1]
    )
    metrics = probe.fit()
    chosen = heads[probe.chosen]
    read = next(each for each in wanted if each.name == chosen.reads)
    by_head: list[dict[str, Any]] = [
        {"representation": head.reads, "rate": head.rate, "top1_held_out": accuracy}
        for head, accuracy in zip(heads, probe.by_head, strict=True)
    ]
    with storage.storage_errors(run.dir):
        storage.write_json(run.dir / "grid.json", by_head)
    row = {
        **trained(config),
        "learning_rate": chosen.rate * config.batch_size / 256,
        "grid": {"representations": [each.name for each in wanted], "rates for 256 images": list(config.rates)},
        "selection_set": f"{len(held)} of {len(data.train)} training images; trained on the others",
        **list_hash(data),
    }
    facts = {**counts(data), "layers": _best_of_layers(by_head)}
    return Measured(metrics, {**read.row(readout), **row}, facts, probe.correct)


def _best_of_layers(by_head: list[dict[str, Any]]) -> dict[str, float]:
    """The best accuracy on the held-out part of every representation, over rates: where an encoder is best."""
    best: dict[str, float] = {}
    for cell in by_head:
        name = cell["representation"]
        best[name] = max(best.get(name, 0.0), cell["top1_held_out"])
    return best
