"""Shared fixtures."""

import pytest
import torch

from engine.training.state import set_backends


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Where numbers are compared with published ones: here, and on a GPU if there is one, in exact float32."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        set_backends("float32", torch.device("cuda"))
    return torch.device(request.param)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks are two to three times slower on two threads of a busy machine."""
    torch.set_num_threads(1)
