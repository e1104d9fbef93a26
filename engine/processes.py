"""How processes that read images are started."""

import multiprocessing
import sys
from multiprocessing.context import BaseContext

READERS: BaseContext = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
"""On Linux they are copies of this process, as by default before Python 3.14: there at once, with its stop signals
blocked, and gone when it is. Those of a fork server import torch and timm again, seconds in each, and share nothing."""
