"""A process whose loader workers still read leaves when it is told to."""

import subprocess
import sys

from tests.helpers import ROOT, environment

_LEAVE_EARLY = """
import sys
import numpy as np
from torch.utils.data import Dataset
from engine.sampler import LoaderOptions, SampleKey, make_batches

class Large(Dataset):
    def __getitem__(self, key):
        return np.zeros(100_000, np.uint8)

options = LoaderOptions(num_workers=1, collate=list)
stream = make_batches(Large(), lambda step: [SampleKey(0, step)], range(100), options)
next(stream)
sys.exit(75)  # `stream` lives on, as it does in the traceback of the error that ends a stopped run
"""


def test_batches_that_nobody_closes_do_not_keep_the_process_from_leaving():
    done = subprocess.run(
        [sys.executable, "-c", _LEAVE_EARLY],
        env=environment(),
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 75, done.stderr
