"""Weights into networks and out of them: everything fits, or nothing is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from backbones.encoder import Backbone
from backbones.errors import WeightsError

from .files import WeightsFile, open_weights, write_weights
from .fit import Fit, first_few, fit_file
from .keymaps import State


@dataclass(frozen=True)
class LoadReport:
    """What load_weights did."""

    source: str
    convention: str
    """Whose names the file used."""
    num_loaded: int
    missing: tuple[str, ...] = ()
    """Tensors of the network that keep their fresh values: the new head that was allowed to."""
    dropped: tuple[str, ...] = ()
    """Tensors of the file that have no place in the network: an old head, decoder, mask token, averaged copies."""
    changed: tuple[str, ...] = ()
    """What was renamed or resized on the way, one sentence each."""
    description: dict[str, Any] = field(default_factory=dict)
    """How the weights were made, if the file says so."""

    def __str__(self) -> str:
        parts = [f"{self.num_loaded} tensors from {self.source} ({self.convention} names)"]
        parts += [f"{len(self.missing)} new: {first_few(self.missing)}"] if self.missing else []
        parts += [f"{len(self.dropped)} left out: {first_few(self.dropped)}"] if self.dropped else []
        return "; ".join([*parts, *self.changed])


def load_weights(
    net: nn.Module, source: str | Path, *, allow_missing: Sequence[str] = (), ema: bool = False
) -> LoadReport:
    """Load a run folder's encoder or a file of weights into `net` (a Backbone or a timm model).

    `allow_missing` are the prefixes of the new head, which may be absent from the file or of another shape there
    (another number of classes); `source` and `ema` are open_weights'.

    What differs for a known reason is adapted, and the report says so: position embeddings of another image size are
    resized (bicubic), relative position bias tables of another window size too (near offsets keep their place, as BEiT
    and SimMIM do it, by linear interpolation); the final norm is renamed between `norm` and `fc_norm` (a ViT that pools
    before its norm has the latter, published files use one name for both); one bias table shared by all blocks (the
    official SimMIM) fills the tables of all blocks.

    Raises WeightsError, with counts and names, if a tensor is missing, has no place in `net` (except an old classifier,
    a decoder or a mask token), has another shape, or holds what no network can have there: infinite values or NaN,
    variances below zero, integers, booleans, complex or eight-bit numbers for floating-point ones. Then `net` is
    unchanged. Raises WeightsFileError for a bad file.
    """
    return load_file(net, open_weights(source, ema=ema), source, allow_missing=allow_missing)


def load_file(
    net: nn.Module, file: WeightsFile, source: str | Path, *, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Load what open_weights has read from `source`; otherwise as load_weights."""
    fit = fit_file(net, file, source, allow_missing=allow_missing)
    _raise_mismatches(fit, file, source)
    fit.target.load_state_dict(fit.fitting, strict=False)
    return LoadReport(
        source=str(source),
        convention=file.convention,
        num_loaded=len(fit.fitting),
        missing=fit.new,
        dropped=tuple(sorted([*file.dropped, *fit.left_out])),
        changed=(*file.remarks, *fit.changed),
        description=file.description,
    )


def read_weights(source: str | Path, *, ema: bool = False) -> tuple[State, dict[str, Any]]:
    """The tensors of a run folder or a file under timm's names, and its description ({} for other people's files).

    Arguments and errors as for open_weights.
    """
    file = open_weights(source, ema=ema)
    return file.state, file.description


def save_backbone(path: str | Path, net: nn.Module, description: Mapping[str, Any]) -> None:
    """Write the encoder `net` (a Backbone or a timm model) under timm's names to a safetensors file, atomically.

    `description` (method, epochs, mean, std, versions, ...: anything JSON) is the header's one key, `backbone`; a
    Backbone adds its name and image size. The same content gives the same bytes in every process.
    """
    if isinstance(net, Backbone):
        description = {"name": net.name, "image_size": net.image_size, **description}
        net = net.net
    write_weights(path, net.state_dict(), description)


def _raise_mismatches(fit: Fit, file: WeightsFile, source: str | Path) -> None:
    """Raise WeightsError if there are problems, with what the file says about itself."""
    problems = fit.problems
    if not problems:
        return
    name = file.description.get("name")
    made = f", which describes itself as {name}" if name else ""
    listed = "; ".join(f"{len(names)} {kind}: {first_few(names)}" for kind, names in problems.items())
    advice = f" Take --model {name} for them, or weights of this network." if name else ""
    raise WeightsError(
        f"{source} ({file.convention} names{made}) does not fit {type(fit.target).__name__}: {listed}. Nothing was "
        f"loaded.{advice}"
    )
