"""What cannot be run is refused in the words that all packages have."""

import pytest

from analysis.config import CkaConfig, LandscapeConfig, RobustnessConfig
from engine.config import check
from engine.errors import ConfigError
from evaluation.config import AttentiveConfig, FewshotConfig, KnnConfig, LogisticConfig, SweepConfig
from evaluation.robustness.config import RobustnessConfig as SetsProtocol


@pytest.mark.parametrize(
    ("kind", "field", "value", "told"),
    [
        (KnnConfig, "crop_pct", 2.0, "crop_pct is 2.0; allowed: above 0, up to 1"),
        (KnnConfig, "image_size", 0, "image_size is 0; allowed: 1 or more, or none"),
        (KnnConfig, "k", (), r"k is \(\); allowed: one or more"),
        (KnnConfig, "temperature", (0.07, 0.0), r"temperature is \(0.07, 0.0\); allowed: above 0"),
        (KnnConfig, "layers", (0,), r"layers is \(0,\); allowed: counted from 1"),
        (LogisticConfig, "c_exponents", (5.0, -6.0), "each at least the one before"),
        (FewshotConfig, "shots", (0,), r"shots is \(0,\); allowed: 1 or more"),
        (SweepConfig, "selection_share", 1.0, "allowed: between 0 and 1, both excluded"),
        (SweepConfig, "rates", (), r"rates is \(\); allowed: one or more"),
        (AttentiveConfig, "warmup_epochs", 90, "warmup_epochs is 90; allowed: below epochs 90"),
        (AttentiveConfig, "layers", (1, 2), r"layers is \(1, 2\); allowed: one"),
        (RobustnessConfig, "grid", 65, "grid is 65; allowed: 1 to 64"),
        (RobustnessConfig, "frequencies", (0.1, 0.1), r"frequencies is \(0.1, 0.1\); allowed: each once, increasing"),
        (CkaConfig, "images", 3, "images is 3; allowed: 4 or more"),
        (LandscapeConfig, "points", 4, "points is 4; allowed: odd numbers"),
    ],
)
def test_one_wording(kind, field, value, told):
    with pytest.raises(ConfigError, match=told):
        check(kind(**{field: value}))


def test_a_set_may_be_given_without_the_folder_of_all():
    protocol = SetsProtocol()
    with pytest.raises(ConfigError, match=r"data\.root is not given: the folder that holds the sets"):
        check(protocol)
    check(SetsProtocol(data=type(protocol.data)(a="imagenet-a")))
