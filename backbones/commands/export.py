"""`python -m backbones export`: a trained network as another library's own loader reads it."""

import argparse
from pathlib import Path
from typing import Any

TARGETS = ("timm", "hf", "torchvision", "onnx", "detectron2", "mmseg", "mmdet", "mmpretrain", "openmixup")


def add_command(commands: Any) -> None:
    """Add `export` to the commands of `python -m backbones`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export", help="a trained network for another library", description=__doc__
    )
    parser.add_argument(
        "source", type=Path, help="folder of a pre-training or classification run, or a file of weights"
    )
    parser.add_argument("--to", required=True, choices=TARGETS, metavar="TO", help=", ".join(TARGETS))
    parser.add_argument(
        "-o", "--out", required=True, type=Path,
        help="timm, hf: the new folder; others: FILE.pth or FILE.onnx, whose name gets the first digits of its sha256, "
        "or a folder for it",
    )  # fmt: skip
    parser.add_argument(
        "--model", help="the network, where the file does not say it: r50, vit_b, ... or a name of timm"
    )
    parser.add_argument("--image-size", type=int, help="side in pixels that it was built for, where the file says none")
    parser.add_argument("--encoder-only", action="store_true", help="leave out a classifier")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry out a parsed command; returns the exit code."""
    from backbones.weights.export import export

    written = export(
        options.source,
        options.out,
        options.to,
        model=options.model,
        image_size=options.image_size,
        encoder_only=options.encoder_only,
    )
    print(f"{written.path}\n")
    print("\n".join(written.lines))
    for remark in written.remarks:
        print(f"note: {remark}")
    return 0
