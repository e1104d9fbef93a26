"""Kept memory is used again: measured in page faults, in processes of their own."""

import sys

import pytest

from tests.helpers import run_code

# Ten steps that each fill 160 MB of activations and free them: blocks that otherwise come from the kernel every time.
FAULTS = """
import resource, sys, torch
from engine.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
def step():
    activations = [torch.ones(size) for size in (10_000_000, 20_000_000, 5_000_000, 5_000_000)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    kept, number = run_code(FAULTS, how).stdout.split()
    return kept, int(number)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_blocks_are_used_again_with_fewer_page_faults():
    _, as_it_comes = faults("default")
    kept, ours = faults("kept")
    assert kept == "True"
    assert ours < as_it_comes / 2, (ours, as_it_comes)
