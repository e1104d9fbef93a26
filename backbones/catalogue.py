"""What is known of the networks of timm: measured once, kept in networks.csv, printed by `python -m backbones list`.

networks.csv holds the smallest network of every file of timm, for the version in constraints.txt; others are measured
when they are asked for.
"""

import csv
import fnmatch
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .architectures import find_architecture
from .errors import BackboneError

FILE = Path(__file__).with_name("networks.csv")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One line of the list; all text, so that a file gives it back unchanged."""

    name: str
    family: str
    """Whose published rules it follows (family.py)."""
    file: str
    """Of timm, that it comes from."""
    parameters: str
    """Of its encoder, in millions."""
    image_size: str
    """224, or the size that it is made for, in pixels."""
    strides: str = ""
    """Of the maps that detectors and segmentors get."""
    entries: str = ""
    """Where a mask token may enter: index:stride."""
    a2mim: str = ""
    """Token stage and cell size of the default A2MIM pre-training, as stage/cell."""
    simmim: str = ""
    """The same for SimMIM; with a star where parts of the image go round the token, and its input must be filled."""
    problem: str = ""
    """Why it cannot be pre-trained; empty if it can."""


def measure(name: str) -> Network:
    """The line of one network, by forward passes on shapes.

    Raises BackboneError if no network has this name.
    """
    from .suggest import shapes_of, suggest, usable_entries

    architecture = find_architecture(name)
    known = {"name": name, "family": architecture.family, "file": _file(architecture.timm_name)}
    first = 0 if architecture.family in ("vit", "swin") else 3
    try:
        backbone = shapes_of(name)
        parameters = f"{sum(weight.numel() for weight in backbone.net.parameters()) / 1e6:.1f}"
        entries = usable_entries(backbone)
        a2mim, simmim = suggest(name, first), suggest(name, 0)
    except BackboneError as error:
        return Network(**known, parameters="", image_size="", problem=str(error).partition(". `python")[0])
    shown = list(entries.items())[:5]
    more = " ..." if len(entries) > 5 else ""
    return Network(
        **known,
        parameters=parameters,
        image_size=str(backbone.image_size),
        strides=" ".join(map(str, backbone.strides)),
        entries=" ".join(f"{k}:{entry.stride}" for k, entry in shown) + more,
        a2mim=f"{a2mim.stage}/{a2mim.cell_size}",
        simmim=f"{simmim.stage}/{simmim.cell_size}{'' if simmim.hides else '*'}",
    )


def _file(timm_name: str) -> str:
    if ":" in timm_name:  # one's own
        return timm_name.partition(":")[0]
    import timm

    return str(timm.model_entrypoint(timm_name).__module__.rpartition(".")[2])


def kept() -> list[Network]:
    """The lines of networks.csv."""
    with FILE.open(newline="") as file:
        return [Network(**row) for row in csv.DictReader(file)]


def keep(networks: Iterable[Network]) -> None:
    """Write networks.csv."""
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Network)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(network) for network in sorted(networks, key=lambda network: network.file))


def find(pattern: str | None = None, *, family: str | None = None, pretrainable: bool = False) -> list[Network]:
    """The networks whose name matches `pattern` (as in `resnet*d`), of a family or a file of timm.

    Without a pattern those of networks.csv. What is not in it is measured, in a second or a few for each.
    """
    networks = {network.name: network for network in kept()}
    if pattern is not None:
        import timm

        names = [name for name in timm.list_models() if fnmatch.fnmatch(name, pattern)]
        if not names:
            names = [pattern]  # a published name, one's own class, or an error that names the nearest
        networks = {name: networks[name] if name in networks else measure(name) for name in names}
    return [
        network
        for network in networks.values()
        if family in (None, network.family, network.file) and not (pretrainable and network.problem)
    ]


COLUMNS = {
    "name": "network",
    "parameters": "M parameters",
    "image_size": "pixels",
    "strides": "strides",
    "entries": "entries",
    "a2mim": "A2MIM",
    "simmim": "SimMIM",
    "family": "family",
}


def markdown(networks: Iterable[Network]) -> str:
    """The networks as a table."""
    lines = [" | ".join(COLUMNS.values()), " | ".join("---" for _ in COLUMNS)]
    for network in networks:
        values = asdict(network)
        cells = [values[name] for name in COLUMNS]
        if network.problem:
            cells[2:-1] = [network.problem, "", "", "", ""]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def write_page(path: Path) -> None:
    """Put the table of networks.csv at the end of docs/backbones.md, in place of the one there."""
    text = path.read_text().partition("\n| network |")[0]
    path.write_text(f"{text.rstrip()}\n\n{markdown(kept())}\n")
