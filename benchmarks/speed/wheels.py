"""The packages that a Python with torch and timm lacks to run the suite, as wheels to carry where there is no network.

`wheels.py download DIR` fills a folder (here, with a network); `wheels.py install DIR TARGET` installs from it what the
Python that runs this lacks, or has in an older version, into a folder for PYTHONPATH. Needs nothing but pip.
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NEEDED = (
    *("timm", "tyro", "docstring_parser", "typeguard", "rich", "markdown-it-py", "mdurl", "pygments", "simplejpeg"),
    *("pandas", "python-dateutil", "tabulate", "pycocotools", "faster-coco-eval", "matplotlib", "contourpy", "cycler"),
    *("fonttools", "kiwisolver", "pyparsing", "tifffile"),
)
SEGMENTATION = (
    *("mmengine", "mmcv-lite", "mmsegmentation", "addict", "ftfy", "regex", "prettytable", "wcwidth", "termcolor"),
    *("yapf", "platformdirs"),
)
TESTS = ("pytest", "iniconfig", "pluggy", "hypothesis", "sortedcontainers")
# Not carried: OpenCV, for its size (without it segmentation is left out); TensorBoard, SciPy, orjson and Great Tables,
# which only curves and tables need.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)] + ["manylinux2014_x86_64"]


def download(folder: Path) -> None:
    """Wheels of CPython 3.12 on Linux x86-64, in the versions of constraints.txt; what lay there before goes."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.whl"):
        path.unlink()
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    where = ["-q", "--disable-pip-version-check", "-d", str(folder), "-c", str(CONSTRAINTS)]
    _pip("download", *where, *options, *platforms, *NEEDED, *SEGMENTATION, *TESTS)
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"{len(list(folder.glob('*.whl')))} wheels, {size / 2**20:.0f} MiB in {folder}")


def install(folder: Path, target: Path) -> int:
    """Install into `target` the wheels whose package is missing here or older; returns 2 if the suite cannot run."""
    wheels = [str(path) for path in sorted(folder.glob("*.whl")) if _is_wanted(path)]
    if wheels:
        options = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
        _pip("install", *options, "--target", str(target), *wheels)
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()
    missing = [name for name in ("torch", "torchvision", *NEEDED) if _installed(name) is None]
    if missing:
        print(
            f"error: {sys.executable} lacks {', '.join(missing)}, and {folder} does not hold them: run "
            "`make wheelhouse` where there is a network and bring the folder along; torch must be installed here",
            file=sys.stderr,
        )
        return 2
    print(f"{len(wheels)} packages from {folder}, the rest as installed")
    return 0


def _is_wanted(wheel: Path) -> bool:
    name, version = wheel.name.split("-")[:2]
    here = _installed(name)
    return here is None or _release(here) < _release(version)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "download":
        download(Path(sys.argv[2]))
    else:
        sys.exit(install(Path(sys.argv[2]), Path(sys.argv[3])))
