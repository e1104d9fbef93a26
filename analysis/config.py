"""What can be asked of each analysis: frozen dataclasses, of which the command line is made. Needs no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import tyro

from analysis.interactions.sampling import RATIOS, neighbours
from engine.fields import Count, Natural, Positive, Range, Share, UpToOne
from engine.groups import RootOptions

Told: Any = tyro.conf.Suppress
"""Fields that the command fills in, one run folder for each encoder."""

REWARDS = ("margin", "log-probability", "logit", "cosine")
_COARSE = {
    "bfloat16": "8 bits of mantissa",
    "float16": "11 bits of mantissa",
    "tf32": "products with 10 bits of mantissa",
}
_COARSE |= {"bf16": _COARSE["bfloat16"], "fp16": _COARSE["float16"], "half": _COARSE["float16"]}


@dataclass(frozen=True, kw_only=True)
class DataConfig(RootOptions):
    """Images in class folders."""

    HOLDS: ClassVar[str] = "the folder with train/<class>/ and val/<class>/, or <class>/ alone"

    root: str = ""
    """Folder with train/<class>/ and val/<class>/, or <class>/ alone."""
    split: Literal["train", "val"] = "val"
    """Which part is analysed."""


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """What every analysis has."""

    init: Annotated[str, Told] = ""
    """The encoder, as backbones.load_encoder spells it."""
    model: Annotated[str, Told] = ""
    """Its network."""
    digest: Annotated[str, Told] = ""
    """sha256 of its tensors (and of its classifier's, where that is used): results are kept by it."""
    data: DataConfig = field(default_factory=DataConfig)
    image_size: Natural = 0
    """Side in pixels of the images; 0: the size each encoder was built for."""
    crop_pct: UpToOne = 0.875
    """Share of the resized short side that the centre crop keeps (224 of 256)."""
    batch_size: Count = 64
    """Images in one forward pass: memory grows with it."""
    precision: str = "float32"
    """float32 (multiplied exactly, no TF32) or float64."""
    seed: int = 1
    """Of everything that is drawn."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = []
        if self.precision in _COARSE:
            found.append(
                f"precision is {self.precision}; allowed: float32, float64. With "
                f"{_COARSE[self.precision]} an interaction, "
                "a difference of nearly equal numbers, is lost: measured strengths are 5 to 82 times too large"
            )
        elif self.precision not in ("float32", "float64"):
            found.append(f"precision is {self.precision!r}; allowed: float32, float64")
        return found


@dataclass(frozen=True, kw_only=True)
class ClassScores(AnalysisConfig):
    """How an encoder's features become scores of classes."""

    readout: Literal["auto", "classifier", "probe"] = "auto"
    """classifier: the one that a fine-tuned run or a file has. probe: a linear one trained here on features of the
    training images. auto: the classifier where there is one for these classes, else the probe."""
    probe_images: Count = 5000
    """Most training images that the probe is trained on, equally many of each class."""
    probe_decay: Positive = 1e-3
    """Weight of the probe's squared weights beside its mean loss."""


@dataclass(frozen=True, kw_only=True)
class InteractionsConfig(ClassScores):
    """Strength of interactions between parts of an image by their order: how many other parts are seen with them.

    Deng et al., ICLR 2022 (arXiv 2111.06236); figures 1, 5, A1 and A2 of A2MIM. The figure is in the published form:
    J against the order as a fraction of n. Published settings: 500 images (a list of 100), 50 pairs, 50 contexts.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(split="train"))
    images: Count = 50
    """How many: the first of every class in turn, classes in an order drawn from the seed, none twice."""
    pairs: Count = 50
    """Pairs of near cells in each image."""
    contexts: Count = 50
    """For each pair and order."""
    grid: Annotated[int, Range(2, 64)] = 14
    """Cells in a row and in a column: n = grid * grid players."""
    orders: tuple[float, ...] = RATIOS
    """Numbers of other cells present, as fractions of n - 2 from 0 to 1."""
    reach: Count = 2
    """The cells of a pair are at most so many rows and columns apart."""
    reward: Literal["margin", "log-probability", "logit", "cosine"] = "margin"
    """margin: log p / (1 - p) of the true class. log-probability: log p. logit: as it stands. cosine: of the features
    to those of the whole image, which needs no classifier."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        sensible = 2 <= self.grid <= 64 and self.reach >= 1
        if sensible and self.pairs > (most := len(neighbours(self.grid, self.reach))):
            found.append(
                f"pairs is {self.pairs}; a {self.grid} x {self.grid} grid has {most} within {self.reach} cells"
            )
        if not self.orders or not all(0 <= order <= 1 for order in self.orders):
            found.append(f"orders are {self.orders}; allowed: fractions of n - 2 = {self.grid**2 - 2} from 0 to 1")
        elif list(self.orders) != sorted(set(self.orders)):
            found.append(f"orders are {self.orders}; allowed: each once, increasing")
        if self.seed + 1000 * self.images >= 2**31:
            found.append(
                f"seed is {self.seed}; with {self.images} images it must stay below {2**31 - 1000 * self.images}"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class FourierConfig(AnalysisConfig):
    """Which frequencies the feature maps of each depth hold, and how much they vary.

    Park and Kim, ICLR 2022 (arXiv 2202.06709); figures A3 and A4 of A2MIM: relative log amplitude at the highest
    frequency and feature variance against the depth, and the whole spectrum of every depth. Published: 6,656 validation
    images.
    """

    images: Count = 1000
    """How many, spread over the classes."""


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(ClassScores):
    """Accuracy when parts of the image are dropped or shuffled, or frequencies are filtered out of it."""

    images: Natural = 0
    """How many validation images, spread over the classes; 0: all."""
    grid: Annotated[int, Range(1, 64)] = 14
    """Patches in a row and in a column for dropping."""
    drop_ratios: tuple[Share, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of patches set to the mean colour at random."""
    shuffle_grids: tuple[Annotated[int, Range(1, 64)], ...] = (1, 2, 4, 7, 14)
    """The image is cut into so many rows and columns, and the pieces are laid in random order."""
    frequencies: tuple[Annotated[float, Range(0, 1.5)], ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    """Radii of the low-pass and the high-pass filter, as shares of the highest frequency of a row (pi)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if not (self.drop_ratios or self.shuffle_grids or self.frequencies):
            found.append("drop_ratios, shuffle_grids and frequencies are empty; one of them says what to try")
        for name in ("drop_ratios", "shuffle_grids", "frequencies"):
            values = list(getattr(self, name))
            if values != sorted(set(values)):
                found.append(f"{name} is {getattr(self, name)}; allowed: each once, increasing")
        return found


@dataclass(frozen=True, kw_only=True)
class CkaConfig(AnalysisConfig):
    """How alike the layers of two encoders are: linear centred kernel alignment, 0 to 1.

    Kornblith et al., ICML 2019 (arXiv 1905.00414), in the unbiased minibatch form of Nguyen et al., ICLR 2021. Every
    encoder after the first is compared with the first; a single one with itself.
    """

    other: Annotated[str, Told] = ""
    """The encoder it is compared with."""
    other_digest: Annotated[str, Told] = ""
    """sha256 of that one's tensors."""
    images: Annotated[int, Range(4)] = 500
    """How many, spread over the classes."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        return found if self.batch_size >= 4 else [*found, f"batch_size is {self.batch_size}; allowed: 4 or more"]


@dataclass(frozen=True, kw_only=True)
class CamConfig(ClassScores):
    """Where in the image the evidence for its class is, by the grad-cam package."""

    method: Literal["gradcam", "gradcam++", "xgradcam", "eigencam", "eigengradcam", "layercam"] = "gradcam"
    """Which class activation map."""
    images: Annotated[int, Range(1, 100)] = 6
    """How many, of different classes where there are as many."""
    layer: str = ""
    """Name of a module of the network; by default the norm layer in front of its last features."""
    eigen_smooth: bool = False
    """Keep the first principal component of the map only."""


@dataclass(frozen=True, kw_only=True)
class LandscapeConfig(ClassScores):
    """The loss around the trained weights, along random directions scaled filter by filter.

    Li et al., NeurIPS 2018 (arXiv 1712.09913). Biases and norm layers do not move.
    """

    images: Count = 200
    """How many, spread over the classes."""
    points: Annotated[int, Range(3)] = 21
    """Along each direction, odd so that the weights themselves are one of them."""
    extent: Positive = 1.0
    """The directions go from -extent to extent; at 1 a filter has moved by its own norm."""
    plane: bool = False
    """Two directions instead of one: points * points losses."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        return found if self.points % 2 else [*found, f"points is {self.points}; allowed: odd numbers"]


ANALYSES: dict[str, type[AnalysisConfig]] = {
    "interactions": InteractionsConfig,
    "fourier": FourierConfig,
    "robustness": RobustnessConfig,
    "cam": CamConfig,
    "landscape": LandscapeConfig,
    "cka": CkaConfig,
}
