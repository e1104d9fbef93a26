"""`python -m evaluation PROTOCOL ENCODER... --data.root DIR`: what frozen encoders are worth, in one table."""

import sys
from collections.abc import Sequence

from engine import cli
from engine.training.stop import StopFlag
from evaluation.command import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with cli.guard("--debug" in arguments):
        asked = parse([argument for argument in arguments if argument != "--debug"])
        with StopFlag(at_once=True) as stop:
            from evaluation.run import evaluate_all  # imports torch, which --help does without

            print(evaluate_all(asked), flush=True)
            stop.ignore()
    return 0


if __name__ == "__main__":
    sys.exit(main())
