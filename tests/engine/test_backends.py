"""float32 is float32: what a GPU makes of products is chosen by name."""

import pytest
import torch

from engine.errors import ConfigError
from engine.training.state import PRECISIONS, float32_products, set_backends

GPU = torch.device("cuda")  # only named: the flags are the process's


@pytest.fixture(autouse=True)
def _flags():
    matmul, cudnn, tuned = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
    torch.backends.cudnn.benchmark = tuned


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_float32_multiplies_float32_numbers_exactly_on_a_gpu(precision):
    set_backends(precision, GPU)
    exact = precision == "float32"
    assert torch.backends.cuda.matmul.allow_tf32 is not exact
    assert torch.backends.cudnn.allow_tf32 is not exact
    assert float32_products(GPU) == ("float32" if exact else "tf32")
    assert float32_products(torch.device("cpu")) == "float32"


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"fp32.*float32, tf32, bfloat16, float16"):
        set_backends("fp32", torch.device("cpu"))
