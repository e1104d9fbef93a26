"""The configuration of the robustness protocol: where each set is. Imports no torch."""

from dataclasses import dataclass, field
from typing import ClassVar

from engine.fields import Count
from evaluation.config import DataConfig, EvaluationConfig

SETS = ("imagenet", "a", "r", "sketch", "v2", "v2_threshold", "v2_top", "c")


@dataclass(frozen=True, kw_only=True)
class SetsConfig(DataConfig):
    """Where the sets are and how they are read. One that is not given is looked for below root by its name."""

    HOLDS: ClassVar[str] = "the folder that holds the sets"

    root: str = ""
    """Folder that holds the sets as their archives unpack: imagenet-a/, imagenet-r/, sketch/,
    imagenetv2-matched-frequency-format-val/, ImageNet-C/, val/, real.json; or one of them."""
    imagenet: str = ""
    """ImageNet's validation images, val/<wnid>/, or the folder that holds val/: for ReaL, and for the images of A's and
    R's classes."""
    real: str = ""
    """ReaL's real.json; without it timm's copy of it."""
    a: str = ""
    """ImageNet-A."""
    r: str = ""
    """ImageNet-R."""
    sketch: str = ""
    """ImageNet-Sketch."""
    v2: str = ""
    """ImageNet-V2, matched frequency."""
    v2_threshold: str = ""
    """ImageNet-V2, threshold 0.7."""
    v2_top: str = ""
    """ImageNet-V2, top images."""
    c: str = ""
    """ImageNet-C."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        given = any(getattr(self, name) for name in SETS)
        return [line for line in super().problems() if not (given and line.startswith("root is not given"))]


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(EvaluationConfig):
    """A fine-tuned classifier on ImageNet-C, A, R, Sketch, V2 and with ReaL's labels, each by its own rule.

    ENCODER is a classifier here: RUN_DIR or classifier.safetensors of `python -m classification`, a folder or file of
    timm (config.json beside model.safetensors), or timm:NAME from its cache. It is tested as its own evaluation is:
    size, crop, interpolation, mean and deviation. The sets stand below --data.root as their authors ship them.

    A and R: best of the set's 200 classes, and the same on ImageNet's images of those classes (clean). V2 and Sketch:
    best of all classes. ReaL: right if among the labels, images without one left out. C: mCE over the 15 corruptions
    against AlexNet, lower is better, pictures not resized at 224; the mean error beside it is another number.
    Check: timm's resnet50.a1 at 224 has V2 68.47, R 40.42, A 9.97, Sketch 29.64, ReaL 85.71.
    """

    batch_size: Count = 125
    """Images in one forward pass. Part of the configuration because rounding may depend on it."""
    data: SetsConfig = field(default_factory=SetsConfig)

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = super().problems()
        own = EvaluationConfig()
        for name in ("crop_pct", "interpolation"):
            if getattr(self, name) != getattr(own, name):
                found.append(f"{name}: a classifier is tested with what stands in its own file: leave it out")
        return found
