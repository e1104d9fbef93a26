"""`python -m analysis interactions | fourier | robustness | cam | landscape | cka`: see --help."""

import sys
from collections.abc import Sequence

from analysis.command import parse
from engine.cli import guard
from engine.errors import StopRequested
from engine.training.stop import StopFlag


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; leaves with the exit code of what happened."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    with guard(debug):
        asked = parse([argument for argument in arguments if argument != "--debug"])
        with StopFlag(at_once=True) as stop:
            try:
                from analysis.compare import compare  # imports torch, for seconds

                written = compare(asked)
            except Exception as error:
                if stop.asked:  # whatever what was interrupted made of it
                    raise StopRequested(
                        f"stopped by {stop.reason}; what was measured is kept: the same command goes on"
                    ) from error
                raise
            stop.ignore()
        for path in written:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
