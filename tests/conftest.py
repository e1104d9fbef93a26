"""Shared fixtures."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks are two to three times slower on two threads of a busy machine."""
    torch.set_num_threads(1)
