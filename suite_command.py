"""`mim COMMAND ...`, what an installed suite is called by: each command is `python -m` of the package of that name."""

import difflib
import os
import runpy
import sys
from collections.abc import Sequence

COMMANDS = {
    "pretrain": "pre-train a backbone by masked image modelling",
    "classification": "fine-tune for, predict or evaluate classes of images",
    "detection": "the same for boxes and masks",
    "segmentation": "the same for label maps",
    "evaluation": "what a frozen encoder is worth: k-NN, probes, robustness",
    "analysis": "why: interactions, Fourier, attribution maps, loss landscapes",
    "benchmarks": "all of it for a model beside training from scratch; studies, data sets, speed",
    "backbones": "networks and weights: list, import, export, released files",
    "slurm": "the same runs as jobs of a cluster",
    "results": "tables, figures and the page of run folders",
    "verify": "decode every image of a folder and list the bad ones",
}
_MODULES = {"verify": "engine.verify"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command with the arguments behind it; its exit code is the process's.

    Args:
        argv: command line without the program's name.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listed = "\n".join(f"  {command:{width}}  {what}" for command, what in COMMANDS.items())
        try:
            print(f"usage: mim COMMAND ...\n       mim COMMAND --help\n\ncommands:\n{listed}", flush=True)
        except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.4) or list(COMMANDS)
        print(f"error: no command {name!r}; nearest: {', '.join(near)} (mim --help lists all)", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"mim {name}", *arguments[1:]]
    runpy.run_module(_MODULES.get(name, name), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
