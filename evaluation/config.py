"""The configuration of each protocol, and what all of them share. Imports no torch: help texts use it."""

from dataclasses import dataclass, field
from typing import Literal

from engine.data.options import ImageOptions

Token = Literal["auto", "cls", "mean", "cls+mean"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImageOptions):
    """Where the images are and how they are read."""

    root: str = ""
    """Folder holding train/<class>/ and val/<class>/ (the ImageNet layout)."""
    num_workers: int = 4
    """Reader processes; 0 reads in the process itself."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = [] if self.root else ["root: not given: the folder that holds train/ and val/ (--data.root DIR)"]
        if self.num_workers < 0:
            found.append(f"num_workers: {self.num_workers} is below 0")
        return found + self.image_problems()


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What every protocol has. The first three fields are the command's: it fills them in for each encoder."""

    init: str = ""
    """The encoder, as it was asked for."""
    model: str = ""
    """The network that it is."""
    digest: str = ""
    """sha256 of its tensors."""
    image_size: int | None = None
    """Side in pixels of the centre crop that the encoder sees; by default the size it was pre-trained at."""
    crop_pct: float = 0.875
    """image_size over the short side that an image is resized to before the crop (224 of 256)."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Of the resize."""
    seed: int = 0
    """Everything random is a function of it: draws, order, initial weights, the bootstrap."""
    precision: Precision = "float32"
    """Of the encoder's forward pass; features, distances and statistics are float32 or float64."""
    bootstrap: int = 1000
    """Resamplings of the images behind each 95 % interval."""
    data: DataConfig = field(default_factory=DataConfig)

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = []
        if self.image_size is not None and self.image_size < 1:
            found.append(f"image_size: {self.image_size} is below 1")
        if not 0 < self.crop_pct <= 1:
            found.append(f"crop_pct: {self.crop_pct} is outside (0, 1]")
        if self.bootstrap < 1:
            found.append(f"bootstrap: {self.bootstrap} is below 1")
        return found


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(EvaluationConfig):
    """One pass over train/ and val/ of every layer asked for; the other protocols then read what is cached.

    Beside the numbers on disk it gives RankMe (Garrido et al. 2023), the effective rank of the training features.
    """

    layers: tuple[int, ...] = (-1,)
    """Layers counted from 1; -1 is the last, -2 the one before it. A Transformer's are its blocks, other networks' the
    maps that timm lists."""
    token: Token = "auto"
    """"cls", the class token; "mean" over patches or over the cells of a map; "cls+mean", one after the other; "auto":
    cls where the network has one, else mean."""
    norm: Literal["before", "after"] = "before"
    """Features before or after the network's final norm, the headline of the two; where there is a norm, k-NN reports
    both: an MAE ViT-B has 35.6 before it and 16.1 after it."""
    extract_batch: int = 64
    """Images in one forward pass. Part of the configuration because rounding may depend on it."""
    stored: Literal["float32", "float16"] = "float32"
    """Type of the cached numbers."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if not self.layers or 0 in self.layers:
            found.append(f"layers: {self.layers}; layers are counted from 1, or from the end by -1, -2, ...")
        if self.extract_batch < 1:
            found.append(f"extract_batch: {self.extract_batch} is below 1")
        return found


@dataclass(frozen=True, kw_only=True)
class KnnConfig(FeaturesConfig):
    """k nearest neighbours by cosine, votes exp(s / T) (Wu et al. 2018; DINO's protocol): no training at all.

    Headline: k = 20, T = 0.07, at the first of the layers. The whole grid of k and T is in grid.json, and the best of
    it is a column of its own: it is chosen on the images it is reported on. MAE ViT-B: 35.57 before, 16.14 after the
    final norm; DINO ViT-B 71.61 and 71.45 (ImageNet-1k, efficient-probing's logs).
    """

    k: tuple[int, ...] = (20, 5, 10, 15, 50, 100, 200)
    """Numbers of neighbours; the first is the headline."""
    temperature: tuple[float, ...] = (0.07, 0.1, 0.2)
    """T; the first is the headline."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if not self.k or min(self.k) < 1:
            found.append(f"k: {self.k}; allowed: whole numbers from 1")
        if not self.temperature or min(self.temperature) <= 0:
            found.append(f"temperature: {self.temperature}; allowed: above 0")
        return found


@dataclass(frozen=True, kw_only=True)
class LogisticConfig(FeaturesConfig):
    """L2 logistic regression on features by L-BFGS in float64, no augmentation (DINOv2's, DINOv3's protocol).

    C from 10^linspace(-6, 5, 45), each fit starting from the one before; the best on a tenth of train, then fitted on
    all of train. The validation set chooses nothing.
    """

    c_exponents: tuple[float, float] = (-6.0, 5.0)
    """Powers of ten between which C is tried."""
    c_steps: int = 45
    """How many values of C."""
    max_iterations: int = 1000
    """Of L-BFGS."""
    tolerance: float = 1e-12
    """Largest component of the gradient at which L-BFGS ends."""
    selection_share: float = 0.1
    """Part of every class of train that C is chosen on."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        found += [f"{n}: {getattr(self, n)} is below 1" for n in ("c_steps", "max_iterations") if getattr(self, n) < 1]
        if not -300 <= self.c_exponents[0] <= self.c_exponents[1] <= 300:
            found.append(f"c_exponents: {self.c_exponents} is not smallest <= largest")
        if not 0 < self.selection_share < 1:
            found.append(f"selection_share: {self.selection_share} is outside (0, 1)")
        return found


@dataclass(frozen=True, kw_only=True)
class FewshotConfig(FeaturesConfig):
    """Logistic regression on 1, 2 and 5 images of each class, mean and spread over draws (MSN's protocol).

    Features less their own mean and of length 1; no intercept; penalty `strength` over the number of images. MSN fits
    with cyanure, this with L-BFGS to the minimum. MSN's own lists of ImageNet are not drawn here: draws.json has the
    images of each draw.
    """

    shots: tuple[int, ...] = (1, 2, 5)
    """Images of each class; the first is the headline."""
    draws: int = 3
    """How often they are drawn."""
    strength: float = 0.00025
    """Of the penalty, over the number of images (MSN's default; its example with 5 images has 0.0025)."""
    max_iterations: int = 300
    """Of L-BFGS."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        found += [f"{n}: {getattr(self, n)} is below 1" for n in ("draws", "max_iterations") if getattr(self, n) < 1]
        if not self.shots or min(self.shots) < 1:
            found.append(f"shots: {self.shots}; allowed: whole numbers from 1")
        if not self.strength > 0:
            found.append(f"strength: {self.strength} is not above 0")
        return found
