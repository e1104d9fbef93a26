"""Shared fixtures."""

import signal

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


def pytest_collection_modifyitems(config, items):
    """What takes minutes runs when it is asked for by its marker."""
    if "study" not in (config.getoption("-m") or ""):
        for item in items:
            if item.get_closest_marker("study"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with -m study"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks are two to three times slower on two threads of a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _signals():
    """A command that a test ran in this process leaves signals ignored, and later children would inherit that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)
