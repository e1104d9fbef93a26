"""The mean corruption error of ImageNet-C (Hendrycks and Dietterich 2019), with its interval over images.

C corruptions, S severities, N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.robustness.facts import ALEXNET_ERRORS, CORRUPTIONS

_AT_ONCE = 64  # resamples drawn together: 50,000 images times this many counts


@dataclass(frozen=True)
class CorruptionError:
    """All in percent; `mce` and `mean_error` are None where one of the 15 corruptions was not measured.

    Args:
        ce: of each corruption of the 15 that was measured: its errors at the five severities over AlexNet's.
        mce: the mean of the 15. Lower is better; AlexNet has 100.
        mean_error: the top-1 error, not divided by AlexNet's, over 15 corruptions and 5 severities: another number,
            which is often mixed with the first.
    """

    ce: dict[str, float]
    mce: float | None
    mean_error: float | None


def corruption_error(errors: Mapping[str, Sequence[float]]) -> CorruptionError:
    """CE_c = sum_s E_sc / sum_s E_sc of AlexNet; mCE = their mean over the 15 corruptions.

    Args:
        errors: of each corruption, top-1 errors in [0, 1] at the severities 1 to 5. Corruptions beyond the 15 do not
            count.
    """
    measured = [name for name in CORRUPTIONS if name in errors]
    ce = {name: 100 * float(np.sum(errors[name]) / np.sum(ALEXNET_ERRORS[name])) for name in measured}
    if len(measured) < len(CORRUPTIONS):
        return CorruptionError(ce, None, None)
    mean_error = 100 * float(np.mean([errors[name] for name in CORRUPTIONS]))
    return CorruptionError(ce, float(np.mean(list(ce.values()))), mean_error)


def mce_interval(
    wrong: Mapping[str, npt.NDArray[np.bool_]], *, resamples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The bootstrap interval of the mCE in percent, over images: a resample takes an image in all its corruptions and
    severities at once, because those are the same picture.

    Args:
        wrong: of each of the 15 corruptions (S, N): whether image n is wrong at a severity, in the same order of images
            everywhere.
        resamples: how many.
        seed: of their draws.
        confidence: share of the resamples inside.
    """
    weights = np.concatenate(
        [np.full(5, 100 / np.sum(ALEXNET_ERRORS[name]) / len(CORRUPTIONS)) for name in CORRUPTIONS]
    )
    # The mCE is linear in the images: of each, what it adds to the sum.
    of_image_n = weights @ np.concatenate([wrong[name] for name in CORRUPTIONS]).astype(np.float64)
    source = np.random.Generator(np.random.Philox(seed))
    num = len(of_image_n)
    means = [
        source.multinomial(num, np.full(num, 1 / num), size=min(_AT_ONCE, resamples - first)) @ of_image_n / num
        for first in range(0, resamples, _AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
