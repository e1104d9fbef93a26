"""The units of depth of any network: its state after each residual branch, seen where the network really adds it.

The first unit is what goes into the first residual block; then, for ResNets and ConvNeXts, the state after each block
(behind the activation that follows the sum), for Transformers that after each attention and each MLP, with whatever
scale the network puts on its branches. No list of architectures: one forward pass tells which sums are residual.
Networks without any, or that keep their positions in an order of their own, are seen at the maps that timm names.
B batch, C channels, h w map height and width.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from backbones.encoder import Backbone
from backbones.errors import BackboneError
from backbones.layout import Layout, find_layout

See = Callable[[str, Tensor], None]
"""Takes the name of a unit and its maps (B, C, h, w)."""
_ADDITIONS = frozenset([torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__])


@dataclass
class _Call:
    """One call of a module: what it was given, and the sums written in its forward."""

    name: str
    number: int
    kind: type
    given: Tensor | None
    shortcuts: list[Tensor] = field(default_factory=list)
    """What may be the trunk of a sum: the input, what modules made of it directly, earlier sums."""
    sums: list[tuple[int, Tensor]] = field(default_factory=list)
    """Number of the sum in the pass, and its result."""
    is_residual: bool = False
    output: Tensor | None = None


class _Watch(TorchFunctionMode):
    """Follows one forward pass: which module is at work, and which sums of two tensors of one shape it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[_Call] = []
        self.num_sums = 0
        self._calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _ADDITIONS and self.stack and _are_alike(args):
            self.on_sum(self.stack[-1], args[:2], result)
            self.num_sums += 1
        return result

    def on_sum(self, call: _Call, terms: tuple[Tensor, Tensor], result: Tensor) -> None:
        """A sum was written by a module."""

    def on_enter(self, call: _Call) -> None:
        """A module begins."""

    def on_leave(self, call: _Call) -> None:
        """A module has returned `call.output`."""

    @contextmanager
    def following(self, net: nn.Module) -> Iterator[None]:
        """Inside, the forward passes of `net` are followed."""
        handles = []
        for name, module in net.named_modules():
            handles.append(module.register_forward_pre_hook(self._entering(name, type(module))))
            handles.append(module.register_forward_hook(self._leaving))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, name: str, kind: type) -> Callable[[nn.Module, Any], None]:
        def enter(_: nn.Module, inputs: Any) -> None:
            given = next((value for value in inputs if isinstance(value, Tensor)), None)
            self.stack.append(_Call(name, self._calls[name], kind, given))
            self._calls[name] += 1
            self.on_enter(self.stack[-1])

        return enter

    def _leaving(self, _: nn.Module, __: Any, output: Any) -> None:
        call = self.stack.pop()
        call.output = output if isinstance(output, Tensor) else None
        self.on_leave(call)


def _are_alike(args: Any) -> bool:
    if len(args) < 2 or not (isinstance(args[0], Tensor) and isinstance(args[1], Tensor)):
        return False
    learned = isinstance(args[0], nn.Parameter) or isinstance(args[1], nn.Parameter)
    return not learned and args[0].shape == args[1].shape and args[0].dim() >= 3


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


class _Probe(_Watch):
    """Finds the calls with residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def on_enter(self, call: _Call) -> None:
        call.shortcuts = [] if call.given is None else [call.given]

    def on_sum(self, call: _Call, terms: tuple[Tensor, Tensor], result: Tensor) -> None:
        call.is_residual |= any(_is_same(term, shortcut) for term in terms for shortcut in call.shortcuts)
        call.sums.append((self.num_sums, result))
        call.shortcuts.append(result)

    def on_leave(self, call: _Call) -> None:
        outer = self.stack[-1] if self.stack else None
        if call.output is None:
            return
        if outer is not None and call.given is not None and outer.given is not None:
            outer.shortcuts += [call.output] if _is_same(call.given, outer.given) else []
        if call.sums:
            call.sums = [(n, result) for n, result in call.sums if result.numel() == call.output.numel()]
            if call.sums:
                self.calls.append(call)


@dataclass(frozen=True)
class _Plan:
    """Which events of a forward pass are units: sums by their number, calls by name and number."""

    start: tuple[str, int]
    sums: dict[int, str]
    outputs: frozenset[tuple[str, int]]


class Units:
    """The units of depth of a network, found with one forward pass on noise.

    Args:
        backbone: in evaluation mode, on its device.
        image_size: side in pixels of the images it will see.

    Raises BackboneError if the network shows no maps at all.
    """

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        self._backbone = backbone
        weight = next(backbone.parameters())
        noise = torch.randn(2, backbone.in_channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(weight)
        self._plan = self._find(noise)
        if self._plan is not None and not self._agrees(noise):
            self._plan = None

    @property
    def are_residual(self) -> bool:
        """Whether they are the states after residual branches, not the maps that timm names."""
        return self._plan is not None

    def run(self, images_bchw: Tensor, see: See) -> None:
        """Run the network and hand out its units from shallow to deep, while it runs: nothing is kept.

        Args:
            images_bchw: normalised.
            see: is called with each.
        """
        if self._plan is None:
            for name, features in self._named_maps(images_bchw):
                see(name, features)
            return
        with _Seeing(self._plan, lambda name, state: see(name, self._map(state, name))).following(self._backbone.net):
            self._backbone(images_bchw)

    def _find(self, images_bchw: Tensor) -> _Plan | None:
        probe = _Probe()
        with torch.no_grad(), probe.following(self._backbone.net):
            self._backbone(images_bchw)
        kinds = {call.kind for call in probe.calls if call.is_residual}
        # A block that changes the width has no plain shortcut, but others of its class do.
        calls = [call for call in probe.calls if call.kind in kinds and self._layout(call.sums[-1][1]) is not None]
        if not calls:
            return None
        first = min(calls, key=lambda call: call.sums[0][0])
        sums = {n: f"{call.name}[{place}]" for call in calls for place, (n, _) in enumerate(call.sums[:-1])}
        return _Plan((first.name, first.number), sums, frozenset((call.name, call.number) for call in calls))

    def _agrees(self, images_bchw: Tensor) -> bool:
        """Whether tokens are kept row by row: then every map that timm gives is one of the units."""
        states: list[Tensor] = []
        is_map = True

        def keep(name: str, state: Tensor) -> None:
            nonlocal is_map
            layout = self._layout(state)
            is_map &= layout is not None and layout.kind != "tokens"
            states.append(self._map(state, name).clone())

        assert self._plan is not None
        try:
            with torch.no_grad(), _Seeing(self._plan, keep).following(self._backbone.net):
                self._backbone(images_bchw)
        except BackboneError:
            return False
        if is_map:
            return True
        with torch.no_grad():
            maps = [features for _, features in self._named_maps(images_bchw)]
        alike = [[state for state in states if state.shape == each.shape] for each in maps]
        return any(alike) and all(
            any(torch.allclose(each, state, rtol=1e-3, atol=1e-4) for state in found)
            for each, found in zip(maps, alike, strict=True)
            if found
        )

    def _named_maps(self, images_bchw: Tensor) -> Iterator[tuple[str, Tensor]]:
        net = self._backbone.net
        maps = net.forward_intermediates(images_bchw, norm=False, output_fmt="NCHW", intermediates_only=True)
        names = [str(info["module"]) if "module" in info else f"map {n}" for n, info in enumerate(net.feature_info)]
        yield from zip(names, maps, strict=False)

    def _layout(self, state: Tensor) -> Layout | None:
        net = self._backbone.net
        is_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        prefix = int(getattr(net, "num_prefix_tokens", 0))
        try:
            layout = find_layout(state.shape, num_prefix=prefix, channels_last=is_last, where=self._backbone.name)
        except BackboneError:
            return None
        return layout if min(layout.grid) > 1 else None

    def _map(self, state: Tensor, name: str) -> Tensor:
        layout = self._layout(state)
        if layout is None:
            raise BackboneError(
                f"{self._backbone.name}: {name} gives {tuple(state.shape)}, which is no map of features."
            )
        return layout.to_map(state)


class _Seeing(_Watch):
    """Hands out the units of a plan."""

    def __init__(self, plan: _Plan, see: See) -> None:
        super().__init__()
        self._plan, self._see = plan, see

    def on_enter(self, call: _Call) -> None:
        if (call.name, call.number) == self._plan.start and call.given is not None:
            self._see("input of the blocks", call.given)

    def on_sum(self, call: _Call, terms: tuple[Tensor, Tensor], result: Tensor) -> None:
        if self.num_sums in self._plan.sums:
            self._see(self._plan.sums[self.num_sums], result)

    def on_leave(self, call: _Call) -> None:
        if (call.name, call.number) in self._plan.outputs and call.output is not None:
            self._see(call.name, call.output)
