"""`python -m detection RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`; see commands.py."""

import sys

from detection.commands import main

if __name__ == "__main__":
    main(sys.argv[1:])
