"""An archive from the network, only where the user asked for it: continued where it stopped, its size checked."""

from pathlib import Path

from backbones.errors import WeightsFileError
from backbones.weights.download import download as into_folder
from engine.errors import DataError
from engine.run.storage import storage_errors


def download(url: str, target: Path) -> None:
    """Fetch `url` into `target`; what an earlier try left in `<target>.partial` is continued.

    Raises:
        DataError: the server cannot be reached, refuses, or the transfer ends early; or the disk is full.
        CheckpointError: the folder cannot be made.
    """
    with storage_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        into_folder(url, target, lambda whole: "")
    except WeightsFileError as error:
        raise DataError(f"{str(error).rstrip('.')}; the same command continues what there is of it") from error
