"""`python -m backbones import`: anybody's file of weights as one that every --init takes."""

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Add `import` to the commands of `python -m backbones`."""
    from backbones.weights.origins import ORIGINS

    command = commands.add_parser(
        "import",
        help="read anybody's file of weights, say what is in it, and write it as one of ours",
        description=f"{__doc__} Whose it is and of which network, its names and shapes tell. Nothing in it is run.",
    )
    command.add_argument("source", metavar="FILE", help="a file, a run folder, or released:NAME")
    command.add_argument("--from", dest="origin", choices=ORIGINS, help="whose it is, to be checked against its names")
    command.add_argument("--model", help="of which network it is, by a published or timm name")
    command.add_argument("--image-size", type=int, help="pixels the network is for; tables of positions are resized")
    command.add_argument("--ema", action="store_true", help="take the averaged copy of the weights")
    command.add_argument("--allow-partial", action="store_true", help="let what is missing begin at random weights")
    command.add_argument(
        "-o", "--output", type=Path, help="file to write, ending in .safetensors; else only the report"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report and write the file; returns the exit code."""
    from backbones.weights.importing import check_output, import_weights, save_imported

    if options.output is not None:
        check_output(options.output)
    imported = import_weights(
        options.source,
        model=options.model,
        origin=options.origin,
        ema=options.ema,
        image_size=options.image_size,
        allow_partial=options.allow_partial,
    )
    print(imported.report)
    if options.output is not None:
        save_imported(imported, options.output)
        print(f"written     {options.output}")
    return 0
