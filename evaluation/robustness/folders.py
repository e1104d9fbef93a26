"""Where the robustness sets are: the folders as their authors' archives unpack, anywhere below one root.

ImageNet-C   <corruption>/<severity>/<wnid>/ILSVRC2012_val_........JPEG, the corruptions beside each other or in the
             folders of their archives (noise/, blur/, weather/, digital/, extra/)
ImageNet-A   imagenet-a/<wnid>/*.jpg           ImageNet-R       imagenet-r/<wnid>/*.jpg
Sketch       sketch/<wnid>/*.JPEG              ImageNet-V2      imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg
ImageNet     val/<wnid>/*.JPEG, for ReaL and the clean partners of A and R; ReaL's labels are real.json
"""

from pathlib import Path

from engine.errors import DataError
from evaluation.robustness.config import SETS, SetsConfig
from evaluation.robustness.facts import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

_DEEPEST = 3  # folders below the root in which a set is looked for
_NAMES = {
    "a": ("imagenet-a", "imageneta"),
    "r": ("imagenet-r", "imagenetr"),
    "sketch": ("sketch", "imagenet-sketch", "imagenetsketch"),
    "v2": (
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2-matched-frequency",
        "imagenet-v2-matched-frequency",
        "imagenetv2",
        "imagenet-v2",
    ),
    "v2_threshold": ("imagenetv2-threshold0.7-format-val", "imagenetv2-threshold0.7"),
    "v2_top": ("imagenetv2-top-images-format-val", "imagenetv2-topimages-format-val", "imagenetv2-top-images"),
    "c": ("imagenet-c", "imagenetc"),
}


def find_folders(options: SetsConfig) -> dict[str, Path]:
    """Set -> its folder (real: its file), of those that are given or found.

    Raises:
        DataError: one that is given does not exist, one is there twice, or none is there.
    """
    given = {name: getattr(options, name) for name in (*SETS, "real")}
    found = {name: Path(value) for name, value in given.items() if value}
    for name, path in found.items():
        if not (path.is_file() if name == "real" else path.is_dir()):
            raise DataError(f"data.{name}: {path}: no such {'file' if name == 'real' else 'folder'}")
    if options.root:
        found = {**_below(Path(options.root)), **found}
    if "imagenet" in found and (found["imagenet"] / "val").is_dir():
        found["imagenet"] /= "val"
    if not found.keys() - {"real"}:
        raise DataError(
            f"{options.root}: none of the sets is here: imagenet-a, imagenet-r, sketch, "
            f"imagenetv2-matched-frequency-format-val, ImageNet-C (or a corruption such as {CORRUPTIONS[0]}) or val; "
            "give a folder of another name by --data.a DIR, --data.c DIR, ..."
        )
    return {name: found[name] for name in (*SETS, "real") if name in found}


def _below(root: Path) -> dict[str, Path]:
    """The sets whose folders stand below a root, or are the root."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    places: dict[str, list[Path]] = {}
    _look(root, places, _DEEPEST)
    if len(parents := {path.parent for path in places.get("c", [])}) == 1 and len(places["c"]) > 1:
        places["c"] = list(parents)  # noise/, blur/, ... beside each other
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    for name, paths in twice.items():
        shown = " and ".join(map(str, paths[:2]))
        option = f"--data.{name} {'FILE' if name == 'real' else 'DIR'}"
        raise DataError(f"{root} holds {name} twice, {shown}: say which by {option}")
    return {name: paths[0] for name, paths in places.items()}


def _look(folder: Path, places: dict[str, list[Path]], depth: int) -> None:
    name = _plain((folder.resolve() if folder.name in ("", "..") else folder).name)
    children = _folders(folder)
    if (folder / "real.json").is_file():
        places.setdefault("real", []).append(folder / "real.json")
    if any(child.name in CORRUPTIONS + EXTRA_CORRUPTIONS for child in children):
        places.setdefault("c", []).append(folder)
        return
    key = next((key for key, names in _NAMES.items() if name in names), None)
    inner = [child for child in children if any(_plain(child.name) in names for names in _NAMES.values())]
    if key is None and name == "val":
        key = "imagenet"
    if key == "c":
        places.setdefault("c", []).append(folder)
        return
    if key is not None and not inner:
        places.setdefault(key, []).append(folder)
        return
    if depth and len(children) < 100:  # class folders are not looked into
        for child in children:
            _look(child, places, depth - 1)


def find_corruptions(root: Path) -> dict[str, Path]:
    """Corruption -> its folder of severities, of the 15 and the extra four, below ImageNet-C's folder.

    Raises:
        DataError: there is none, one is there twice, or one lacks a severity.
    """
    places: dict[str, list[Path]] = {}
    for folder in [root, *_folders(root)]:
        for child in [folder] if folder.name in CORRUPTIONS + EXTRA_CORRUPTIONS else _folders(folder):
            if child.name in CORRUPTIONS + EXTRA_CORRUPTIONS and child not in places.setdefault(child.name, []):
                places[child.name].append(child)
    if not places:
        raise DataError(
            f"{root}: no corruption here, such as {CORRUPTIONS[0]}/1/<wnid>/; ImageNet-C's archives unpack to them"
        )
    for name, paths in places.items():
        if len(paths) > 1:
            raise DataError(f"{root} holds {name} twice: {paths[0]} and {paths[1]}")
        severities = sorted(child.name for child in _folders(paths[0]))
        if severities != [str(severity) for severity in SEVERITIES]:
            raise DataError(f"{paths[0]}: its folders are {', '.join(severities) or 'none'}, not the severities 1 to 5")
    return {name: places[name][0] for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS) if name in places}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
