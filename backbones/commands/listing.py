"""`python -m backbones list`: which networks there are, and what a pre-training does with each."""

import argparse
from typing import Any

from backbones.catalogue import COLUMNS, Network, find


def add_command(commands: Any) -> None:
    """Add `list` to the commands of `python -m backbones`."""
    listing = commands.add_parser(
        "list", help="networks, their maps, and the pre-training that fits each", description=__doc__
    )
    listing.add_argument("pattern", nargs="?", help="names, as in 'resnet*d'; else the smallest of each file of timm")
    listing.add_argument("--family", help="resnet, convnext, vit, swin, other, or a file of timm such as efficientnet")
    listing.add_argument("--pretrainable", action="store_true", help="leave out those that cannot be pre-trained")
    listing.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    print(_table(find(options.pattern, family=options.family, pretrainable=options.pretrainable)))
    return 0


def _table(networks: list[Network]) -> str:
    rows = [list(COLUMNS.values())]
    rows += [[str(getattr(network, name)) for name in COLUMNS] for network in networks]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    usable = [network for network in networks if not network.problem]
    lines += [f"{network.name}: {network.problem}" for network in networks if network.problem]
    files = len({network.file for network in usable})
    lines.append(
        f"{len(usable)} of {len(networks)} can be pre-trained, of {files} files of timm. Below A2MIM and SimMIM:"
    )
    lines.append("token stage/mask cell in pixels; * parts of the image go round the token, so fill the input too.")
    return "\n".join(lines)
