"""The configuration of each protocol, and what all of them share. Imports no torch: help texts use it."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from engine.fields import Count, Natural, NotNegative, Part, Positive, Range, UpToOne
from engine.groups import DataOptions, Precision

Token = Literal["auto", "cls", "mean", "cls+mean"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(DataOptions):
    """Where the images are and how they are read."""

    HOLDS: ClassVar[str] = "the folder that holds train/ and val/"

    root: str = ""
    """Folder holding train/<class>/ and val/<class>/ (the ImageNet layout), or with `val_share` <class>/ alone."""
    num_workers: Natural = 4
    """Reader processes, at most as many as there are cores; 0 reads in the process itself."""
    train_fraction: UpToOne = 1.0
    """Part of each class's training images to use: a subset that depends on the seed alone, the same one as in
    classification."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What every protocol has. The first three fields are the command's: it fills them in for each encoder."""

    SOME: ClassVar[tuple[str, ...]] = ()
    """Fields of which there must be one value or more."""

    init: str = ""
    """The encoder, as it was asked for."""
    model: str = ""
    """The network that it is."""
    digest: str = ""
    """sha256 of its tensors."""
    image_size: Count | None = None
    """Side in pixels of the centre crop that the encoder sees; by default the size it was pre-trained at."""
    crop_pct: UpToOne = 0.875
    """image_size over the short side that an image is resized to before the crop (224 of 256)."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Of the resize."""
    seed: Natural = 0
    """Everything random is a function of it: draws, order, initial weights, the bootstrap."""
    precision: Precision = "float32"
    """Of the encoder's forward pass; features, distances and statistics are float32 or float64."""
    bootstrap: Count = 1000
    """Resamplings of the images behind each 95 % interval."""
    data: DataConfig = field(default_factory=DataConfig)

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        empty = (name for name in self.SOME if not getattr(self, name))
        return [f"{name} is (); allowed: one or more" for name in empty]


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
    extract_batch: Count = 128
    """Images in one forward pass. Part of the configuration because rounding may depend on it."""
    stored: Literal["float32", "float16"] = "float32"
    """Type of the cached numbers."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if not self.layers or 0 in self.layers:
            found.append(f"layers is {self.layers}; allowed: counted from 1, or from the end by -1, -2, ...")
        return found


@dataclass(frozen=True, kw_only=True)
class KnnConfig(FeaturesConfig):
    """k nearest neighbours by cosine, votes exp(s / T) (Wu et al. 2018; DINO's protocol): no training at all.

    Headline: k = 20, T = 0.07, at the first of the layers. The whole grid of k and T is in grid.json, and the best of
    it is a column of its own: it is chosen on the images it is reported on. MAE ViT-B: 35.57 before, 16.14 after the
    final norm; DINO ViT-B 71.61 and 71.45 (ImageNet-1k, efficient-probing's logs).
    """

    SOME: ClassVar[tuple[str, ...]] = ("k", "temperature")

    k: tuple[Count, ...] = (20, 5, 10, 15, 50, 100, 200)
    """Numbers of neighbours; the first is the headline."""
    temperature: tuple[Positive, ...] = (0.07, 0.1, 0.2)
    """T; the first is the headline."""


@dataclass(frozen=True, kw_only=True)
class LogisticConfig(FeaturesConfig):
    """L2 logistic regression on features by L-BFGS in float64, no augmentation (DINOv2's, DINOv3's protocol).

    C from 10^linspace(-6, 5, 45), each fit starting from the one before; the best on a tenth of train, then fitted on
    all of train. The validation set chooses nothing.
    """

    c_exponents: Annotated[tuple[float, float], Range(-300, 300, rising=True)] = (-6.0, 5.0)
    """Powers of ten between which C is tried."""
    c_steps: Count = 45
    """How many values of C."""
    max_iterations: Count = 1000
    """Of L-BFGS."""
    tolerance: float = 1e-12
    """Largest component of the gradient at which L-BFGS ends."""
    selection_share: Part = 0.1
    """Part of every class of train that C is chosen on."""


@dataclass(frozen=True, kw_only=True)
class FewshotConfig(FeaturesConfig):
    """Logistic regression on 1, 2 and 5 images of each class, mean and spread over draws (MSN's protocol).

    Features less their own mean and of length 1; no intercept; penalty `strength` over the number of images. MSN fits
    with cyanure, this with L-BFGS to the minimum. MSN's own lists of ImageNet are not drawn here: draws.json has the
    images of each draw.
    """

    SOME: ClassVar[tuple[str, ...]] = ("shots",)

    shots: tuple[Count, ...] = (1, 2, 5)
    """Images of each class; the first is the headline."""
    draws: Count = 3
    """How often they are drawn."""
    strength: Positive = 0.00025
    """Of the penalty, over the number of images (MSN's default; its example with 5 images has 0.0025)."""
    max_iterations: Count = 300
    """Of L-BFGS."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(FeaturesConfig):
    """What is trained on frozen features in the one training loop; batch norm of the encoder in evaluation mode."""

    norm: Literal["before", "after"] = "after"
    """Features before or after the network's final norm."""
    epochs: Count = 90
    """Passes over the training images."""
    batch_size: Count = 4096
    """Images per step."""
    accumulation: Count = 1
    """Forward-backward passes per step."""
    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    """LARS adapts matrices, not biases; momentum is 0.9."""
    base_learning_rate: Positive = 0.1
    """For 256 images; the rate is proportional to the batch."""
    weight_decay: NotNegative = 0.0
    """Of matrices."""
    warmup_epochs: Natural = 10
    """Of linear rise from 0; then half a cosine to 0."""
    crop: Literal["mae", "torchvision"] = "mae"
    """Random crops of 8 to 100 % of the area: "mae" draws once and cuts to the image, "torchvision" draws ten times."""
    augment: Literal["crop", "none"] = "crop"
    """"none" trains on cached features of the centre crop: minutes instead of hours, under a name of its own."""
    evaluate_every: Count = 10
    """Epochs between evaluations; the last one is always evaluated, and is the headline."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    log_every: Count = 50
    """Steps between lines of training metrics."""

    @property
    def learning_rate(self) -> float:
        """The absolute peak learning rate."""
        return self.base_learning_rate * self.batch_size / 256

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.warmup_epochs >= max(self.epochs, 1):
            found.append(f"warmup_epochs is {self.warmup_epochs}; allowed: below epochs {self.epochs}")
        return found


@dataclass(frozen=True, kw_only=True)
class LinearConfig(ProbeConfig):
    """MAE's linear probe: BatchNorm without affine parameters and a linear layer, LARS, 90 epochs, crops and flips.

    The class token after the final norm (or the mean, --token mean; a CNN's pooled map). He et al. 2022; the released
    code: rate 0.1 per 256, batch 16384, warm-up 10, no decay. Reached on ImageNet-1k: MAE ViT-B 67.8, L 76.0 (50
    epochs), H 77.2. Last epoch; the best one is a column of its own.
    """

    batch_size: Count = 16384
    """Images per step."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(ProbeConfig):
    """Linear heads on every layer, token and learning rate at once in one pass; the best on a tenth of train is the
    answer (DINOv2's heads, CAPI's choice). Finds SimMIM's best layer, which is not its last.

    Thirteen rates, SGD, 10 epochs, no warm-up. Unlike DINOv2's, heads standardise what they read (BatchNorm without
    affine parameters), so that a rate means the same for every layer and network; heads train on the other nine tenths.
    """

    SOME: ClassVar[tuple[str, ...]] = ("rates", "tokens")

    layers: tuple[int, ...] = ()
    """Layers counted from 1, or from the end by -1, -2, ...; none: all."""
    tokens: tuple[Literal["cls", "mean", "cls+mean"], ...] = ("cls", "mean")
    """Those of them that the network has."""
    epochs: Count = 10
    """Passes over the training images."""
    batch_size: Count = 1024
    """Images per step."""
    optimizer: Literal["lars", "sgd", "adamw"] = "sgd"
    """Momentum is 0.9."""
    warmup_epochs: Natural = 0
    """Of linear rise from 0; then half a cosine to 0."""
    crop: Literal["mae", "torchvision"] = "torchvision"
    """Random crops of 8 to 100 % of the area: "mae" draws once and cuts to the image, "torchvision" draws ten times."""
    rates: tuple[Positive, ...] = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
    """Learning rates for 256 images, in place of base_learning_rate."""
    standardise: bool = True
    """Whether heads standardise what they read."""
    selection_share: Part = 0.1
    """Part of every class of train that the head is chosen on."""

    @property
    def learning_rate(self) -> float:
        """The highest of the absolute peak learning rates."""
        return max(self.rates, default=0.0) * self.batch_size / 256

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        return [line for line in super().problems() if self.layers or not line.startswith("layers")]


@dataclass(frozen=True, kw_only=True)
class AttentiveConfig(ProbeConfig):
    """The efficient probe: learned queries attend to patch tokens, or to the cells of a CNN's last map; no key
    projection (Psomas et al. 2026).

    32 queries, LARS, rate 0.1 per 256, batch 4096, 90 epochs, warm-up 10. On ImageNet-1k: MAE ViT-B 75.46 where its
    linear probe has 67.78, SimMIM ViT-B 64.86 and 47.15; their numbers are of the best epoch, here a column of its own.
    """

    queries: Count = 32
    """Learned queries; they divide the values."""
    d_out: Count = 1
    """The values have D / d_out numbers."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        one = len(self.layers) == 1
        return [*super().problems(), *([] if one else [f"layers is {self.layers}; allowed: one"])]
