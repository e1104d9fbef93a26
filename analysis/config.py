"""What can be asked of each analysis: frozen dataclasses, of which the command line is made. Needs no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from analysis.interactions.sampling import RATIOS, neighbours
from engine.data.options import ImageOptions

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
class DataConfig(ImageOptions):
    """Images in class folders."""

    root: str = ""
    """Folder with train/<class>/ and val/<class>/, or <class>/ alone."""
    split: Literal["train", "val"] = "val"
    """Which part is analysed."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        return [*([] if self.root else ["root is empty; give --data.root DIR"]), *self.image_problems()]


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
    image_size: int = 0
    """Side in pixels of the images; 0: the size each encoder was built for."""
    crop_pct: float = 0.875
    """Share of the resized short side that the centre crop keeps (224 of 256)."""
    batch_size: int = 64
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
        if self.batch_size < 1:
            found.append(f"batch_size is {self.batch_size}; allowed: 1 or more")
        if not 0 < self.crop_pct <= 1:
            found.append(f"crop_pct is {self.crop_pct}; allowed: (0, 1]")
        if self.image_size < 0:
            found.append(f"image_size is {self.image_size}; allowed: 0 (the encoder's own) or more")
        return found


@dataclass(frozen=True, kw_only=True)
class ClassScores(AnalysisConfig):
    """How an encoder's features become scores of classes."""

    readout: Literal["auto", "classifier", "probe"] = "auto"
    """classifier: the one that a fine-tuned run or a file has. probe: a linear one trained here on features of the
    training images. auto: the classifier where there is one for these classes, else the probe."""
    probe_images: int = 5000
    """Most training images that the probe is trained on, equally many of each class."""
    probe_decay: float = 1e-3
    """Weight of the probe's squared weights beside its mean loss."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.probe_images < 1:
            found.append(f"probe_images is {self.probe_images}; allowed: 1 or more")
        if self.probe_decay <= 0:
            found.append(f"probe_decay is {self.probe_decay}; allowed: more than 0")
        return found


@dataclass(frozen=True, kw_only=True)
class InteractionsConfig(ClassScores):
    """Strength of interactions between parts of an image by their order: how many other parts are seen with them.

    Deng et al., ICLR 2022 (arXiv 2111.06236); figures 1, 5, A1 and A2 of A2MIM. The figure is in the published form:
    J against the order as a fraction of n. Published settings: 500 images (a list of 100), 50 pairs, 50 contexts.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(split="train"))
    images: int = 50
    """How many: the first of every class in turn, classes in an order drawn from the seed, none twice."""
    pairs: int = 50
    """Pairs of near cells in each image."""
    contexts: int = 50
    """For each pair and order."""
    grid: int = 14
    """Cells in a row and in a column: n = grid * grid players."""
    orders: tuple[float, ...] = RATIOS
    """Numbers of other cells present, as fractions of n - 2 from 0 to 1."""
    reach: int = 2
    """The cells of a pair are at most so many rows and columns apart."""
    reward: Literal["margin", "log-probability", "logit", "cosine"] = "margin"
    """margin: log p / (1 - p) of the true class. log-probability: log p. logit: as it stands. cosine: of the features
    to those of the whole image, which needs no classifier."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        for name in ("images", "pairs", "contexts", "reach"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if not 2 <= self.grid <= 64:
            found.append(f"grid is {self.grid}; allowed: 2 to 64")
        elif self.reach >= 1 and self.pairs > (most := len(neighbours(self.grid, self.reach))):
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

    images: int = 1000
    """How many, spread over the classes."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        return [*super().problems(), *([] if self.images > 0 else [f"images is {self.images}; allowed: 1 or more"])]


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(ClassScores):
    """Accuracy when parts of the image are dropped or shuffled, or frequencies are filtered out of it."""

    images: int = 0
    """How many validation images, spread over the classes; 0: all."""
    grid: int = 14
    """Patches in a row and in a column for dropping."""
    drop_ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of patches set to the mean colour at random."""
    shuffle_grids: tuple[int, ...] = (1, 2, 4, 7, 14)
    """The image is cut into so many rows and columns, and the pieces are laid in random order."""
    frequencies: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    """Radii of the low-pass and the high-pass filter, as shares of the highest frequency of a row (pi)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.images < 0:
            found.append(f"images is {self.images}; allowed: 0 (all) or more")
        if not 1 <= self.grid <= 64:
            found.append(f"grid is {self.grid}; allowed: 1 to 64")
        if not (self.drop_ratios or self.shuffle_grids or self.frequencies):
            found.append("drop_ratios, shuffle_grids and frequencies are empty; one of them says what to try")
        ranges: tuple[tuple[str, tuple[Any, ...], float, float], ...] = (
            ("drop_ratios", self.drop_ratios, 0, 1),
            ("shuffle_grids", self.shuffle_grids, 1, 64),
            ("frequencies", self.frequencies, 0, 1.5),
        )
        for name, values, low, high in ranges:
            if not all(low <= value <= high for value in values) or list(values) != sorted(set(values)):
                found.append(f"{name} are {values}; allowed: from {low} to {high}, each once, increasing")
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
    images: int = 500
    """How many, spread over the classes."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.images < 4 or self.batch_size < 4:
            found.append(f"images is {self.images} and batch_size {self.batch_size}; allowed: 4 or more")
        return found


@dataclass(frozen=True, kw_only=True)
class CamConfig(ClassScores):
    """Where in the image the evidence for its class is, by the grad-cam package."""

    method: Literal["gradcam", "gradcam++", "xgradcam", "eigencam", "eigengradcam", "layercam"] = "gradcam"
    """Which class activation map."""
    images: int = 6
    """How many, of different classes where there are as many."""
    layer: str = ""
    """Name of a module of the network; by default the norm layer in front of its last features."""
    eigen_smooth: bool = False
    """Keep the first principal component of the map only."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        return [*found, *([] if 0 < self.images <= 100 else [f"images is {self.images}; allowed: 1 to 100"])]


@dataclass(frozen=True, kw_only=True)
class LandscapeConfig(ClassScores):
    """The loss around the trained weights, along random directions scaled filter by filter.

    Li et al., NeurIPS 2018 (arXiv 1712.09913). Biases and norm layers do not move.
    """

    images: int = 200
    """How many, spread over the classes."""
    points: int = 21
    """Along each direction, odd so that the weights themselves are one of them."""
    extent: float = 1.0
    """The directions go from -extent to extent; at 1 a filter has moved by its own norm."""
    plane: bool = False
    """Two directions instead of one: points * points losses."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.images < 1:
            found.append(f"images is {self.images}; allowed: 1 or more")
        if self.points < 3 or self.points % 2 == 0:
            found.append(f"points is {self.points}; allowed: odd, 3 or more")
        if self.extent <= 0:
            found.append(f"extent is {self.extent}; allowed: more than 0")
        return found


ANALYSES: dict[str, type[AnalysisConfig]] = {
    "interactions": InteractionsConfig,
    "fourier": FourierConfig,
    "robustness": RobustnessConfig,
    "cam": CamConfig,
    "landscape": LandscapeConfig,
    "cka": CkaConfig,
}
