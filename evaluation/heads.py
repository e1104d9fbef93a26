"""What probes train on frozen features: linear heads, the efficient probe, and many heads side by side.

B batch, L positions, D numbers of a feature, Q queries, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.errors import ConfigError

_BN_EPS = 1e-6


class LinearHead(nn.Module):
    """BatchNorm without affine parameters, then a linear layer drawn from a normal of 0.01, cut at 2 (He et al. 2022,
    MAE's probe): (B, D) -> (B, C)."""

    def __init__(self, dim: int, num_classes: int, *, standardise: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False, eps=_BN_EPS) if standardise else nn.Identity()
        self.linear = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features_bd: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.linear(self.norm(features_bd))
        return logits


class EfficientProbe(nn.Module):
    """Multi-query cross attention without key projection, then BatchNorm and a linear layer (Psomas et al. 2026).

    a_q = softmax(tokens @ query_q / sqrt(D)); query q weights the q-th of Q groups of the values, which are tokens @ V
    without bias, D / d_out wide; the groups stand one after the other.
    """

    def __init__(self, dim: int, num_classes: int, *, queries: int = 32, d_out: int = 1) -> None:
        super().__init__()
        if dim % d_out or dim // d_out % queries:
            fitting = [q for q in range(1, queries + 1) if dim % d_out == 0 and dim // d_out % q == 0]
            known = f"queries {fitting[-1]}" if fitting else "d_out 1"
            raise ConfigError(
                f"queries {queries}, d_out {d_out}: features of {dim} numbers do not divide by them: take {known}"
            )
        self.query = nn.Parameter(torch.randn(1, queries, dim) * 0.02)
        self.value = nn.Linear(dim, dim // d_out, bias=False)
        self.norm = nn.BatchNorm1d(dim // d_out, affine=False, eps=_BN_EPS)
        self.linear = nn.Linear(dim // d_out, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def pool(self, tokens_bld: Tensor) -> Tensor:
        """(B, D / d_out)."""
        batch, num, dim = tokens_bld.shape
        attention_bql = (self.query @ tokens_bld.transpose(1, 2) / math.sqrt(dim)).softmax(-1)
        values_bqlg = self.value(tokens_bld).view(batch, num, self.query.shape[1], -1).transpose(1, 2)
        pooled: Tensor = (attention_bql[:, :, None] @ values_bqlg).reshape(batch, -1)
        return pooled

    def forward(self, tokens_bld: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.linear(self.norm(self.pool(tokens_bld)))
        return logits


@dataclass(frozen=True)
class Head:
    """One head of a probe.

    Args:
        reads: name of the representation that it is given.
        rate: peak learning rate for 256 images a step.
        kind: which module.
        options: further arguments of it.
    """

    reads: str
    rate: float
    kind: Literal["linear", "efficient"] = "linear"
    options: Mapping[str, Any] | None = None

    def build(self, dim: int, num_classes: int) -> nn.Module:
        """The module for features of `dim` numbers."""
        cls = LinearHead if self.kind == "linear" else EfficientProbe
        return cls(dim, num_classes, **(self.options or {}))


class Heads(nn.Module):
    """Heads side by side, each by itself: no gradient of one reaches another."""

    def __init__(self, heads: Sequence[Head], dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        self.reads = [head.reads for head in heads]
        self.dims = dict(dims)
        self.heads = nn.ModuleList(head.build(dims[head.reads], num_classes) for head in heads)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Logits (B, C) of each head; features (B, D), or (B, L * D) of positions."""
        out = []
        for head, name in zip(self.heads, self.reads, strict=True):
            values = features[name]
            wide = isinstance(head, EfficientProbe)
            out.append(head(values.view(len(values), -1, self.dims[name]) if wide else values))
        return out


def parameter_groups(
    model: Heads, heads: Sequence[Head], *, batch_size: int, weight_decay: float
) -> list[dict[str, Any]]:
    """Weights and others of each head at its rate times batch_size / 256. LARS adapts matrices only, decayed or not,
    as MAE's does; nothing but matrices decays."""
    groups = []
    for number, head in enumerate(heads):
        rate = head.rate * batch_size / 256
        for matrices in (True, False):
            named = {
                f"heads.{number}.{n}": p for n, p in model.heads[number].named_parameters() if (p.ndim > 1) == matrices
            }
            if named:
                groups.append(
                    {
                        "params": list(named.values()),
                        "names": list(named),
                        "lr": rate,
                        "base_rate": rate,
                        "weight_decay": weight_decay if matrices else 0.0,
                        "always_adapt": matrices,
                    }
                )
    return groups
