"""The protocols by name: the configuration of each, and the module that measures. Imports no torch.

A protocol's module has

    VERSION: int                                    counts up when its numbers change
    open_data(config) -> Data                       .indices: the image sets that the run insists on, by name
    measure(run, encoder, config, inputs) -> Measured
    on_ranks(config) -> bool                        only where torchrun may start it
    recipe(config) -> str                           only where a setting makes it another protocol: its name then
    load(reference, *, image_size) -> encoder       only where it measures something else than a frozen encoder: with
                                                    the attributes that evaluation.run.Subject lists
"""

from dataclasses import dataclass

from evaluation import config
from evaluation.dense.config import DenseConfig
from evaluation.robustness.config import RobustnessConfig


@dataclass(frozen=True)
class Protocol:
    """A way to measure an encoder."""

    config: type[config.EvaluationConfig]
    """Its docstring is the help; its defaults are the published settings."""
    module: str


PROTOCOLS: dict[str, Protocol] = {
    "features": Protocol(config.FeaturesConfig, "evaluation.features"),
    "knn": Protocol(config.KnnConfig, "evaluation.knn"),
    "linear": Protocol(config.LinearConfig, "evaluation.linear"),
    "sweep": Protocol(config.SweepConfig, "evaluation.sweep"),
    "attentive": Protocol(config.AttentiveConfig, "evaluation.attentive"),
    "logistic": Protocol(config.LogisticConfig, "evaluation.logistic"),
    "fewshot": Protocol(config.FewshotConfig, "evaluation.fewshot"),
    "dense": Protocol(DenseConfig, "evaluation.dense.protocol"),
    "robustness": Protocol(RobustnessConfig, "evaluation.robustness.protocol"),
}
