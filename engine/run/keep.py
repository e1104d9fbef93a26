"""What a finished run keeps of its checkpoints: the weights of the last one."""

import logging
from pathlib import Path

from engine.run import checkpoint, storage

log = logging.getLogger("mim")


def keep_weights(run_dir: Path) -> None:
    """Reduce the checkpoints of a finished run to the weights of the last one.

    The manifest says first that the optimizer's state is gone, with its size and hash, so that a kill at any time
    leaves a good checkpoint. A storage that refuses is named, no more.
    """
    folder = checkpoint.newest(run_dir)
    if folder is None:
        return
    try:
        manifest = storage.read_object(folder / "manifest.json")
        if entry := manifest["files"].pop("optimizer.pt", None):
            manifest["dropped"] = {"optimizer.pt": entry}
            storage.write_json(folder / "manifest.json", storage.sealed(manifest))
        storage.remove(folder / "optimizer.pt")
        for older in (run_dir / "checkpoints").glob("[0-9]*"):
            if older.name.isdecimal() and int(older.name) < int(folder.name):
                doomed = older.with_name(f".{older.name}.partial")  # no checkpoint; the next start removes it
                older.rename(doomed)
                storage.remove(doomed)
    except OSError as error:
        log.warning("%s: what a finished run no longer needs cannot be removed: %s", folder, error)


def last_weights(run_dir: Path) -> Path:
    """Where the weights of the newest checkpoint folder are."""
    return run_dir / "checkpoints" / f"{checkpoint.last_step(run_dir):08d}" / "model.safetensors"
