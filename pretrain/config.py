"""The configuration of a pre-training run. recipes.py fills it in; `engine.config.check` collects its `problems()`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from engine.data.options import ImageOptions, Unreadable
from pretrain import losses
from pretrain.losses import RegressionKind, Replacement
from pretrain.masking import TokenForm, TokenInit, num_masked

Method = Literal["a2mim", "simmim"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImageOptions):
    """The images and how they are cropped."""

    root: str = ""
    """Folder of images, at any depth; `train/` inside it is taken if there is one. No classes are needed."""
    num_workers: int = 8
    """Loader processes on each rank."""
    unreadable: Unreadable = "stop"
    """What an image that does not decode does to the run; skipping is counted and reported."""
    crop_scale: tuple[float, float] = (0.8, 1.0)
    """Share of the image's area that a random crop takes."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio (width / height) of the crop."""
    flip: float = 0.5
    """Probability of mirroring left and right."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = [] if self.root else ["root is not given: the folder of the images (--data.root DIR)"]
        if self.num_workers < 0:
            found.append(f"num_workers is {self.num_workers}; allowed: 0 or more")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            found.append(f"crop_scale is {self.crop_scale}; allowed: 0 < smallest <= largest <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            found.append(f"crop_ratio is {self.crop_ratio}; allowed: 0 < smallest <= largest")
        found += self.image_problems()
        if not 0 <= self.flip <= 1:
            found.append(f"flip is {self.flip}; allowed: 0 to 1")
        return found


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which part of an image is hidden."""

    cell_size: int = 32
    """Side of a square cell in pixels; a multiple of the stride of the map where the token enters."""
    mask_ratio: float = 0.6
    """Share of the cells hidden, rounded up to whole cells; between 0 and 1, at least one of each kind."""
    fill: Literal["mean", "none"] = "mean"
    """What the encoder's input holds in hidden cells: the image's mean colour, or the image itself (SimMIM as released,
    where only the token hides anything)."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        if self.cell_size < 1:
            found.append(f"cell_size is {self.cell_size}; allowed: 1 or more pixels")
        if not 0 < self.mask_ratio < 1:
            found.append(f"mask_ratio is {self.mask_ratio}; allowed: between 0 and 1, both excluded")
        return found


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """Where and how the learnable mask token enters the encoder."""

    stage: int | str = 0
    """Before which stage (`Backbone.entry`): the published index, e.g. 3 before a ResNet's layer4, or a module name."""
    form: TokenForm = "gated"
    """"replace", "add" or "gated"; see `pretrain.masking.MaskToken`."""
    init: TokenInit = "normal"
    """Truncated normal with std 0.02, or zero (the released ConvNeXt)."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The spatial loss, and A2MIM's frequency loss."""

    kind: RegressionKind = "focal_l1"
    """Element-wise loss on the masked pixels."""
    alpha: float | None = None
    """Steepness of the focal factor (0.2 if not given), or alpha of balanced_l1 (0.5)."""
    gamma: float | None = None
    """Exponent of the focal factor (1 if not given), or gamma of balanced_l1 (1.5)."""
    beta: float = 1.0
    """Where huber and balanced_l1 become linear."""
    activate: Literal["sigmoid", "tanh"] = "sigmoid"
    """Form of the focal factor."""
    residual: bool = False
    """Add the plain loss to the focal one."""
    unmask_weight: float = 0.0
    """Weight of the visible pixels in the spatial loss, 0 to 1."""

    frequency_weight: float = 0.5
    """Weight of the frequency loss in the total; 0 leaves it out."""
    focal: bool = True
    """Focal frequency loss; else `kind` applied to the modulus of the spectral difference (l1 for a kind that is
    neither l1, mse nor focal)."""
    frequency_unmask_weight: float = 1e-3
    """Share of the prediction that visible pixels keep in the frequency loss, 0 to 1."""
    replace: Replacement = "mixed"
    """What the rest of the visible pixels becomes there; see `pretrain.losses.replace_visible`."""
    frequency_alpha: float = 1.0
    """Exponent of the focal weight."""
    average_spectrum: bool = True
    """Average the spectra over the images first (released code); else one spectrum for each image (paper)."""
    spectrum_images: int | None = None
    """How many images share a spectrum and its maximum: the published per-GPU batch, so that the loss does not depend
    on how many devices or accumulation steps there are. A larger micro-batch is cut into groups of it; a smaller one,
    or any if this is none, is one group."""
    log_matrix: bool = True
    """Take the logarithm in the focal weight."""
    batch_matrix: bool = True
    """One maximum of the focal weight for all images and channels; else one for each."""
    reweight: bool = False
    """Multiply the non-focal frequency loss by its own detached value."""

    def criterion(self, *, spectral: bool = False) -> Callable[[Tensor], Tensor]:
        """The element-wise loss, for pixels or for the moduli of the non-focal frequency loss."""
        alpha = {} if self.alpha is None else {"alpha": self.alpha}
        shape = alpha if self.gamma is None else {**alpha, "gamma": self.gamma}
        focal: dict[str, Any] = {**shape, "activate": self.activate, "residual": self.residual}
        functions: dict[str, Callable[[Tensor], Tensor]] = {
            "l1": losses.l1,
            "mse": losses.mse,
            "focal_l1": lambda difference: losses.focal_l1(difference, **focal),
            "focal_mse": lambda difference: losses.focal_mse(difference, **focal),
            "huber": lambda difference: losses.huber(difference, beta=self.beta),
            "charbonnier": losses.charbonnier,
            "balanced_l1": lambda difference: losses.balanced_l1(difference, **shape, beta=self.beta),
        }
        has_spectral_form = self.kind in ("l1", "mse", "focal_l1", "focal_mse")
        return functions["l1" if spectral and not has_spectral_form else self.kind]

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        for name in ("alpha", "gamma", "beta", "frequency_alpha"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"{name} is {value}; allowed: above 0")
        for name in ("unmask_weight", "frequency_unmask_weight"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} is {getattr(self, name)}; allowed: 0 to 1")
        if self.frequency_weight < 0:
            found.append(f"frequency_weight is {self.frequency_weight}; allowed: 0 or more")
        if self.spectrum_images is not None and self.spectrum_images < 1:
            found.append(f"spectrum_images is {self.spectrum_images}; allowed: 1 or more, or none")
        return found


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and which parameters it treats differently."""

    name: Literal["adamw"] = "adamw"
    """AdamW, fused where the device has a fused one."""
    base_learning_rate: float = 3e-4
    """Peak learning rate for `base_batch` images; the peak used is this times batch_size / base_batch."""
    base_batch: int = 512
    """Batch that base_learning_rate is for."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the gradient's first and second moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.05
    """Decoupled weight decay of the parameters that `no_decay` does not name."""
    no_decay: tuple[str, ...] = ()
    """Regular expressions; parameters whose name contains a match have no weight decay."""
    rate_scale: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor): the learning rate of matching parameters is multiplied by the factor."""
    clip_grad: float | None = None
    """Largest norm of the gradient; none: not clipped."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        for name in ("base_learning_rate", "base_batch", "eps"):
            if getattr(self, name) <= 0:
                found.append(f"{name} is {getattr(self, name)}; allowed: above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"betas is {self.betas}; allowed: each from 0 up to but not 1")
        if self.weight_decay < 0:
            found.append(f"weight_decay is {self.weight_decay}; allowed: 0 or more")
        if self.clip_grad is not None and self.clip_grad <= 0:
            found.append(f"clip_grad is {self.clip_grad}; allowed: above 0, or none")
        return found


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, step by step."""

    kind: Literal["cosine", "warmup_times_cosine", "step"] = "warmup_times_cosine"
    """As in engine.training.optim.Schedule; "warmup_times_cosine" is what A2MIM's CNN runs used."""
    warmup_epochs: float = 10
    """Linear warm-up."""
    warmup_start: float = 0.0
    """Share of the peak at which the warm-up of "cosine" and "step" begins."""
    min_rate: float = 1e-5
    """Learning rate at the end of the cosine, absolute, for every parameter group."""
    step_epochs: tuple[int, ...] = ()
    """Epochs at which "step" multiplies the rate by step_factor."""
    step_factor: float = 0.1
    """See step_epochs."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        if self.warmup_epochs < 0:
            found.append(f"warmup_epochs is {self.warmup_epochs}; allowed: 0 or more")
        if not 0 <= self.warmup_start <= 1:
            found.append(f"warmup_start is {self.warmup_start}; allowed: 0 to 1")
        if self.min_rate < 0:
            found.append(f"min_rate is {self.min_rate}; allowed: 0 or more")
        if not 0 < self.step_factor <= 1:
            found.append(f"step_factor is {self.step_factor}; allowed: above 0, up to 1")
        return found


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a pre-training run."""

    model: str
    """A published name (r50, convnext_t, vit_b, ...) or any timm model."""
    method: Method
    """"a2mim" or "simmim"."""
    epochs: int
    """Passes over the training images."""
    batch_size: int = 2048
    """Images in one optimizer step, over all devices and accumulation steps."""
    image_size: int = 224
    """Side of the square crop in pixels; a multiple of mask.cell_size."""
    seed: int = 0
    """Everything random is a function of it."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "bfloat16"
    """Of the forward pass: bfloat16 and float16 under autocast, losses and spectra in float32; on a GPU tf32 multiplies
    float32 numbers with 10 bits of mantissa, float32 exactly."""
    compile: bool = False
    """torch.compile the model."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly: slower, but then a resumed run ends with the same
    bytes as an undisturbed one, as it always does on a CPU."""
    accumulation: int | None = None
    """Micro-batches of a step on each device; none: one."""
    drop_path: float = 0.0
    """Largest stochastic depth rate of the encoder."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; there is one at the start and at the end too."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    visualize_every_epochs: int = 25
    """Epochs between reconstruction panels; 0: only at the end."""
    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """The hidden cells."""
    token: TokenConfig = field(default_factory=TokenConfig)
    """The mask token."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The losses."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over time."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base_learning_rate scaled linearly from base_batch to this batch (Goyal et al. 2017)."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        found = []
        for name in ("epochs", "batch_size", "image_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.visualize_every_epochs < 0:
            found.append(f"visualize_every_epochs is {self.visualize_every_epochs}; allowed: 0 or more")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path is {self.drop_path}; allowed: from 0 up to but not 1")
        if self.accumulation is not None and (self.accumulation < 1 or self.batch_size % self.accumulation):
            found.append(f"accumulation is {self.accumulation}; allowed: a divisor of batch_size {self.batch_size}")
        return found + self._mask_problems() + self._schedule_problems() + self._method_problems()

    def _mask_problems(self) -> list[str]:
        cell, ratio = self.mask.cell_size, self.mask.mask_ratio
        if cell < 1 or self.image_size < 1:
            return []
        if self.image_size % cell:
            lower = self.image_size // cell * cell
            near = f"{lower} or {lower + cell}" if lower else f"{cell}"
            return [f"image_size is {self.image_size}; allowed: a multiple of mask.cell_size {cell}, such as {near}"]
        cells = (self.image_size // cell) ** 2
        if 0 < ratio < 1 and not 0 < num_masked(self.image_size, cell, ratio) < cells:
            hidden = num_masked(self.image_size, cell, ratio)
            return [
                f"mask.mask_ratio is {ratio}, which hides {hidden} of the {cells} cells; allowed: at least one cell "
                f"hidden and one visible, so at most {(cells - 1) / cells:.4f}"
                + (" (image_size must be larger than mask.cell_size)" if cells == 1 else "")
            ]
        return []

    def _schedule_problems(self) -> list[str]:
        found = []
        if self.schedule.warmup_epochs > self.epochs:
            found.append(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs}; allowed: 0 to epochs, {self.epochs}"
            )
        late = [epoch for epoch in self.schedule.step_epochs if not 0 < epoch < self.epochs]
        if self.schedule.kind == "step" and (late or not self.schedule.step_epochs):
            found.append(
                f"schedule.step_epochs is {self.schedule.step_epochs}; allowed: epochs from 1 to {self.epochs - 1}"
            )
        return found

    def _method_problems(self) -> list[str]:
        found = []
        if self.method == "a2mim" and self.mask.fill != "mean":
            found.append(f"mask.fill is {self.mask.fill!r}; allowed with a2mim: 'mean'")
        if self.method == "simmim" and (self.loss.kind != "l1" or self.loss.frequency_weight):
            found.append(
                f"loss.kind is {self.loss.kind!r} and loss.frequency_weight {self.loss.frequency_weight}; "
                "allowed with simmim: 'l1' and 0 (its loss is the L1 distance on masked pixels)"
            )
        return found
