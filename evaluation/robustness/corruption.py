"""The mean corruption error of ImageNet-C (Hendrycks and Dietterich 2019).

C corruptions, S severities, N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.robustness.facts import ALEXNET_ERRORS, CORRUPTIONS


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


def of_each_image(wrong: Mapping[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """What each image adds to the mCE (N,), of which the mCE is 100 times the mean.

    The mCE is linear in the images, so a bootstrap over images is one over these numbers: a resample takes an image in
    all its corruptions and severities at once, because those are the same picture.

    Args:
        wrong: of each of the 15 corruptions (S, N): whether image n is wrong at a severity, in the same order of images
            everywhere.
    """
    scale = {name: 1 / np.sum(ALEXNET_ERRORS[name]) / len(CORRUPTIONS) for name in CORRUPTIONS}
    parts = np.stack([scale[name] * wrong[name].sum(axis=0) for name in CORRUPTIONS])
    of_each: npt.NDArray[np.float64] = parts.sum(axis=0)
    return of_each
