"""Checkpoints: complete and verified, or ignored. Nothing in them can execute code when loaded.

checkpoints/<step, 8 digits>/  model.safetensors  optimizer.pt  [ema.safetensors]  manifest.json     checkpoints/LATEST
"""

import json
import logging
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import safetensors.torch
import torch

from engine.errors import CheckpointError
from engine.run import storage

SUITE_VERSION = "0.1.0"
KEEP = 2
log = logging.getLogger("mim")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A training state between two steps.

    `training` holds tensors and plain numbers only: the optimizer's state, meters and a gradient scaler.
    `metrics_offset` is the length of metrics.jsonl in bytes at this step.
    """

    step: int
    model: Tensors
    training: dict[str, Any]
    metrics_offset: int
    ema: Tensors | None = None


def save(run_dir: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint and prune older ones; an intact one of the same step is left as it is.

    What is on disk if the power fails:
      while files are written: `.<step>.partial`, which no reader looks at and the next start removes;
      after the manifest and the fsyncs: the same, complete;
      after the rename: the new checkpoint, with LATEST still naming the one before (readers order by step number);
      after LATEST: all of it. Only then are older checkpoints removed.

    Raises:
        CheckpointError: the storage is full or not writable; older checkpoints are untouched.
    """
    root = run_dir / "checkpoints"
    final, partial = root / f"{snapshot.step:08d}", root / f".{snapshot.step:08d}.partial"
    if final.exists() and fault(final) is None:
        return final
    need = sum(t.numel() * t.element_size() for t in snapshot.model.values()) * 3
    with storage.storage_errors(run_dir, need):
        root.mkdir(exist_ok=True)
        try:
            partial.mkdir(exist_ok=True)
            _write_files(partial, snapshot)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        storage.fsync_directory(root)
        storage.write_atomic(root / "LATEST", final.name)
        _verified[final] = _signature(final)
        _prune(root)
    return final


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    files = {"model.safetensors": _write_tensors(folder / "model.safetensors", snapshot.model)}
    if snapshot.ema is not None:
        files["ema.safetensors"] = _write_tensors(folder / "ema.safetensors", snapshot.ema)
    out = storage.HashingFile(folder / "optimizer.pt")
    try:
        torch.save(snapshot.training, cast(IO[bytes], out))
    except RuntimeError as error:
        raise (out.error or error) from error
    finally:
        files["optimizer.pt"] = out.close()
    manifest = {
        "suite_version": SUITE_VERSION,
        "step": snapshot.step,
        "metrics_offset": snapshot.metrics_offset,
        "files": files,
    }
    storage.write_json(folder / "manifest.json", manifest)
    storage.fsync_directory(folder)


def _write_tensors(path: Path, tensors: Tensors) -> dict[str, Any]:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    out = storage.HashingFile(path)
    try:
        out.write(safetensors.torch.save(contiguous))
    finally:
        entry = out.close()
    return entry


def _prune(root: Path) -> None:
    """Keep the newest intact checkpoints. A broken one never counts as kept, so the last good one stays."""
    intact = [folder for folder in _folders(root) if fault(folder) is None]
    for folder in intact[KEEP:]:
        shutil.rmtree(folder)


def _folders(root: Path) -> list[Path]:
    """Checkpoint folders, newest first by step number: clocks and modification times do not matter."""
    return sorted((p for p in root.glob("[0-9]*") if p.name.isdigit() and p.is_dir()), key=lambda p: -int(p.name))


_verified: dict[Path, tuple[Any, ...]] = {}  # folders whose content was hashed in this process, with their stat then


def _signature(folder: Path) -> tuple[Any, ...]:
    stats = [(p.name, p.stat()) for p in sorted(folder.iterdir())]
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


def fault(folder: Path) -> str | None:
    """Why a checkpoint folder cannot be used, or None if it is complete and its hashes agree.

    Raises:
        CheckpointError: a newer version of the suite wrote it.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files, version = manifest["files"], manifest["suite_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"manifest.json is missing or unreadable ({type(error).__name__})"
    if _version(version) > _version(SUITE_VERSION):
        raise CheckpointError(f"{folder}: written by version {version}, this is {SUITE_VERSION}: update to read it")
    signature = _signature(folder)
    if _verified.get(folder) == signature:
        return None
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes, the manifest says {entry['size']}"
        if storage.sha256_of(path) != entry["sha256"]:
            return f"{name} sha256 differs"
    _verified[folder] = signature
    return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def newest(run_dir: Path) -> Path | None:
    """The newest intact checkpoint, or None if the run never wrote one. Each broken one is logged with the reason.

    Raises:
        CheckpointError: there are checkpoints and none is intact; a run never starts over silently.
    """
    root = run_dir / "checkpoints"
    latest = root / "LATEST"
    named = latest.read_text().strip() if latest.is_file() else ""
    folders = _folders(root)
    if folders and not (named.isdigit() and (root / named).is_dir()):
        log.warning("%s is missing or names no checkpoint: using the newest intact one", latest)
    rejected = []
    for folder in folders:
        reason = fault(folder)
        if reason is None:
            return folder
        rejected.append(f"{folder.name}: {reason}")
        log.warning("skipping %s: %s", folder.name, reason)
    if rejected:
        raise CheckpointError(f"no usable checkpoint in {root}:\n  " + "\n  ".join(rejected))
    return None


def load(folder: Path) -> Snapshot:
    """Read a checkpoint that `newest` has verified, to the CPU.

    Raises:
        CheckpointError: it contains something other than tensors and plain values.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    try:
        training = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{folder / 'optimizer.pt'} contains code and was not written by this suite: refused"
        ) from error
    ema = folder / "ema.safetensors"
    return Snapshot(
        step=manifest["step"],
        model=safetensors.torch.load_file(folder / "model.safetensors"),
        training=training,
        metrics_offset=manifest["metrics_offset"],
        ema=safetensors.torch.load_file(ema) if ema.is_file() else None,
    )


def load_model_state(run_dir: Path) -> tuple[Tensors, int]:
    """The model weights of a run's newest intact checkpoint and their step.

    Raises:
        CheckpointError: the folder holds no usable checkpoint.
    """
    folder = newest(run_dir)
    if folder is None:
        raise CheckpointError(f"{run_dir} holds no checkpoint")
    return safetensors.torch.load_file(folder / "model.safetensors"), int(folder.name)


def remove_partial(run_dir: Path) -> None:
    """Remove what a save left that was killed half-way."""
    for leftover in (*run_dir.glob(".*.partial"), *(run_dir / "checkpoints").glob(".*.partial")):
        log.info("removing %s, left by an interrupted save", leftover)
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
