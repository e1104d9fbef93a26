"""ImageNet (ILSVRC 2012) as people have it: the official tars, Kaggle's zip or folder, or folders with a flat val/.

The official validation images are numbered and lie in one folder. Which class each has is in Kaggle's
LOC_val_solution.csv, or in the development kit: a list of numbers, and a table from number to class folder.
"""

import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.prepare.archives import Member, archive_errors, as_text, members, of_tar, read_files
from benchmarks.prepare.photos import picture
from benchmarks.prepare.writer import Picture
from engine.errors import DataError

SOLUTION = "LOC_val_solution.csv"
NUMBERS, TABLE = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
IMAGENET100_SHA256 = "79f3f1552ccc478ce24bd934b4573625db584ddc1f4643ae23c994a94cb11397"

_TRAIN = re.compile(r"(?:^|/)train/(?P<class>n\d{8})/(?P<name>[^/]+\.JPEG)$")
_TRAIN_TAR = re.compile(r"(?:^|/)(?P<class>n\d{8})\.tar$")
_VAL = re.compile(r"(?:^|/)(?:val/(?:(?P<class>n\d{8})/)?)?(?P<name>ILSVRC2012_val_\d{8})(?:_n\d{8})?\.JPEG$")


def imagenet(sources: Sequence[Path], classes: Collection[str] | None = None) -> Iterator[Picture]:
    """Pictures of ImageNet, of all classes or of some.

    Raises:
        DataError: the source is damaged, or holds flat validation images but nothing that says their classes.
    """
    solution: dict[str, str] | None = None
    seen: set[str] = set()  # a folder may hold an archive and what was unpacked from it
    for source in sources:
        for member in members(source):
            match = _VAL.search(member.name)
            if match:
                if match["class"] is None and solution is None:
                    solution = read_solution(sources)
                label = match["class"] or _class_of(match["name"], solution or {})
                found = iter([(f"val/{label}/{match['name']}.JPEG", label, member)])
            else:
                found = _training_files(member, source, classes)
            for path, label, file in found:
                if (classes is None or label in classes) and path not in seen:
                    seen.add(path)
                    yield picture(path, file)


def imagenet100(sources: Sequence[Path]) -> Iterator[Picture]:
    """The 100 classes of Tian et al. (Contrastive Multiview Coding, 2020), from any form of ImageNet."""
    return imagenet(sources, frozenset(imagenet100_classes()))


def imagenet100_classes() -> list[str]:
    """The shipped list.

    Raises:
        DataError: it is not the published one any more.
    """
    data = resources.files("benchmarks.prepare").joinpath("imagenet100.txt").read_bytes()
    if hashlib.sha256(data).hexdigest() != IMAGENET100_SHA256:
        raise DataError("benchmarks/prepare/imagenet100.txt is not the published list any more: restore it")
    return data.decode().split()


def _training_files(member: Member, source: Path, classes: Collection[str] | None) -> Iterator[tuple[str, str, Member]]:
    """A training image, or all of a class's tar (ILSVRC2012_img_train.tar is a tar of a thousand tars)."""
    if match := _TRAIN.search(member.name):
        yield f"train/{match['class']}/{match['name']}", match["class"], member
    elif match := _TRAIN_TAR.search(member.name):
        label = match["class"]
        if classes is not None and label not in classes:
            return
        with archive_errors(source), member.open() as file, tarfile.open(fileobj=file) as archive:
            for inner in of_tar(archive, source):
                yield f"train/{label}/{inner.name.rpartition('/')[2]}", label, inner


def read_solution(sources: Sequence[Path]) -> dict[str, str]:
    """Name of a validation image without suffix -> class folder.

    Raises:
        DataError: neither Kaggle's file nor the development kit is there, or they are not what they should be.
    """
    files = read_files(sources, [SOLUTION, NUMBERS, TABLE], optional=True)
    if SOLUTION in files:
        return _kaggle_solution(as_text(files[SOLUTION], SOLUTION))
    if NUMBERS in files and TABLE in files:
        return _devkit_solution(as_text(files[NUMBERS], NUMBERS), files[TABLE])
    raise DataError(
        f"{', '.join(map(str, sources))}: the validation images lie in one folder, and nothing says which class "
        f"each has. Put Kaggle's {SOLUTION} or the development kit (ILSVRC2012_devkit_t12.tar.gz) beside them"
    )


def _kaggle_solution(text: str) -> dict[str, str]:
    """Lines `ILSVRC2012_val_00048981,n03995372 85 1 499 272`: the class stands before the first box."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if len(row) == 2 and row[0] != "ImageId"]
    except csv.Error as error:
        raise DataError(f"{SOLUTION}: not a table ({error})") from error
    if not rows or not all(re.match(r"n\d{8}( |$)", row[1]) for row in rows):
        raise DataError(f"{SOLUTION}: expected lines `<image>,<class> <box>`")
    return {name: prediction.split()[0] for name, prediction in rows}


def _devkit_solution(numbers: str, table: bytes) -> dict[str, str]:
    import scipy.io  # a second to import

    try:
        synsets = scipy.io.loadmat(io.BytesIO(table), squeeze_me=True)["synsets"]
        folders: dict[int, Any] = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        listed = [int(line) for line in numbers.split()]
        return {f"ILSVRC2012_val_{i:08d}": folders[number] for i, number in enumerate(listed, 1)}
    except Exception as error:  # whatever bytes can make a reader of MATLAB's format raise
        raise DataError(f"the development kit cannot be read ({type(error).__name__}: {error})") from error


def _class_of(name: str, solution: dict[str, str]) -> str:
    if name not in solution:
        raise DataError(f"{name}.JPEG: nothing says which class it has; {len(solution):,} other images are listed")
    return solution[name]
