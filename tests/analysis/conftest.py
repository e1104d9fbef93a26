"""A small data set, and encoders in run folders."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three classes of six images each, brighter from class to class; the same for training and validation."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate("abc"):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = generator.integers(70 * label, 70 * label + 100, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root
