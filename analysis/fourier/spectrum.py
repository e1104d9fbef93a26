"""The spectrum and the variance of feature maps. B batch, C channels, h w height and width of a map."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

_INSIDE_LOG = 1e-6


def num_frequencies(height: int) -> int:
    """Points of the half diagonal of a map: k = 0 .. ceil(h / 2) - 1, which of an even h leaves out Nyquist's."""
    return -(-height // 2)


def frequencies(height: int) -> list[float]:
    """The frequency of each point, in units of pi: 2 k / h. The last is 27/28 for h = 56, 6/7 for 14 and for 7."""
    return [2 * k / height for k in range(num_frequencies(height))]


def log_amplitudes(maps_bchw: Tensor) -> Tensor:
    """Natural log of (|F| + 1e-6) on the diagonal (k, k) of the unnormalised two-dimensional DFT of every map.

    Only the diagonal is asked for, so that two products with the waves of its frequencies are enough.

    Returns:
        (B, C, K) for K = num_frequencies(h), float64.
    """
    height, width = maps_bchw.shape[2:]
    k = torch.arange(num_frequencies(min(height, width)), dtype=torch.float64, device=maps_bchw.device)
    down, right = (
        torch.outer(torch.arange(size, dtype=torch.float64, device=maps_bchw.device), k) * (-2 * torch.pi / size)
        for size in (height, width)
    )
    maps = maps_bchw.double()
    columns = torch.complex(maps @ right.cos(), maps @ right.sin())
    sums: Tensor = (columns * torch.polar(torch.ones_like(down), down)).sum(dim=2)
    return (sums.abs() + _INSIDE_LOG).log()


def spatial_variances(maps_bchw: Tensor) -> Tensor:
    """Unbiased variance over the positions of each map, divisor h w - 1: (B, C), float64."""
    return maps_bchw.double().flatten(2).var(dim=2)


@dataclass
class Spectrum:
    """Sums over images and channels of what is measured of the maps of one depth."""

    name: str = ""
    """Of the place in the network."""
    height: int = 0
    """Of the maps."""
    count: int = 0
    """Maps: images times channels."""
    log_amplitude: Tensor = field(default_factory=lambda: torch.zeros(()))
    """(K,), sum."""
    variance: float = 0.0
    """Sum."""

    def add(self, maps_bchw: Tensor) -> None:
        """Count the maps of some images."""
        self.height = min(maps_bchw.shape[2:])
        self.count += maps_bchw.shape[0] * maps_bchw.shape[1]
        self.log_amplitude = self.log_amplitude + log_amplitudes(maps_bchw).sum(dim=(0, 1)).cpu()
        self.variance += spatial_variances(maps_bchw).sum().item()

    def relative(self) -> list[float]:
        """Mean log amplitude of every frequency minus that of zero frequency."""
        mean = self.log_amplitude / self.count
        return [float(value) for value in mean - mean[0]]

    def mean_variance(self) -> float:
        """Mean over images and channels."""
        return self.variance / self.count
