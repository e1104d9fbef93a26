"""The `attentive` protocol: the efficient probe on patch tokens or the cells of a map."""

from collections.abc import Callable

from backbones import Encoder
from engine.run.open import Run
from evaluation.config import AttentiveConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import Representation, layer_number, open_readout
from evaluation.heads import Head
from evaluation.linear import one_head
from evaluation.measured import Inputs, Measured
from evaluation.probe import Frozen, on_ranks

VERSION = 1
__all__ = ["VERSION", "measure", "on_ranks", "open_data", "recipe"]
open_data: Callable[[AttentiveConfig], Labelled] = open_labelled


def recipe(config: AttentiveConfig) -> str:
    """Its name: without augmentation it is another protocol."""
    return "attentive" if config.augment == "crop" else "attentive-cached"


def measure(run: Run, encoder: Encoder, config: AttentiveConfig, inputs: Inputs) -> Measured:
    """Train the probe and count on val."""
    readout = open_readout(encoder, run.device)
    layer = layer_number(readout, config.layers[0])
    read = Representation(layer, "patches", config.norm == "after" and readout.has_norm(layer))
    options = {"queries": config.queries, "d_out": config.d_out}
    head = Head(read.name, config.base_learning_rate, "efficient", options)
    return one_head(run, config, Frozen(readout, encoder, [read], config.extract_batch), inputs, head)
