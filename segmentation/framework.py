"""How MMSegmentation gets imported: from pip packages alone, or not at all with the command that installs it.

Four of its heads import compiled operators at module level, which the pure-Python mmcv-lite lacks. None of ours uses
them, so while `mmcv.ops` is imported a stand-in takes the place of the compiled module.

The maintained forks (onedl-mmsegmentation 1.4.2, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6 without its compiled part)
keep these import names and work in their place: runs, evaluation and dumped configurations were tried. The official
packages are the ones installed and tested, because onedl-mmcv comes as source only and compiles its operators, which
does not work against torch 2.14: they want C++17, it C++20.
"""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from engine.errors import ConfigError

FRAMEWORK = "mmsegmentation"
PACKAGES = ("mmengine", "mmcv", "mmseg")
"""As they are imported."""
DISTRIBUTIONS = ("mmsegmentation", "mmengine", "mmcv-lite", "opencv-python")
"""As they are installed, for environment.json."""
INSTALL = 'pip install -c constraints.txt -e ".[segmentation]" (make setup does it)'


def import_mmsegmentation() -> None:
    """Import MMSegmentation with everything it registers; quick when that is done already.

    Raises:
        ConfigError: it is not installed, or a system library is missing; says what to install.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"segmentation needs MMSegmentation, but {', '.join(missing)} is not installed: {INSTALL}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the three packages, about each other
        try:
            _import_operators()
            for name in ("mmseg.models", "mmseg.datasets", "mmseg.evaluation"):
                importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"segmentation cannot import MMSegmentation: {_explain(error)}") from error
    import cv2

    cv2.setNumThreads(0)  # its threads would compete with the loader's processes


def framework_version() -> str:
    """MMSegmentation's version, with those of the two packages it stands on: "1.2.2 (mmengine 0.10.7, mmcv 2.1.0)".

    Read from the modules, so that it is right for the forks, whose packages have other names.
    """
    import_mmsegmentation()
    engine, operators, segmentor = (sys.modules[name].__version__ for name in PACKAGES)
    return f"{segmentor} (mmengine {engine}, mmcv {operators})"


def _import_operators() -> None:
    """Import `mmcv.ops`, with the stand-in where there is no compiled module; it is gone again afterwards, so that
    whoever asks whether mmcv is compiled (mmengine does) gets the true answer."""
    importlib.import_module("mmcv")
    if "mmcv.ops" in sys.modules or importlib.util.find_spec("mmcv._ext") is not None:
        return
    stand_in = types.ModuleType("mmcv._ext", "Stands for mmcv's compiled operators, none of which is used here.")
    stand_in.__getattr__ = _refusing  # type: ignore[method-assign]
    sys.modules["mmcv._ext"] = stand_in
    try:
        importlib.import_module("mmcv.ops")
    finally:
        del sys.modules["mmcv._ext"]


def _refusing(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ConfigError(f"{name} needs the compiled mmcv; mmcv-lite, which is installed, has no such operators")

    return refuse


def _explain(error: ImportError) -> str:
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libglib" in text:
        return f"{text}. OpenCV needs this system library (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0)"
    return f"{text}. Reinstall it: {INSTALL}"
