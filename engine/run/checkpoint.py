"""Checkpoints: complete and verified, or ignored. Nothing in them can execute code when loaded.

checkpoints/<step, 8 digits>/  model.safetensors  optimizer.pt  [ema.safetensors]  manifest.json     checkpoints/LATEST
"""

import logging
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError

from engine.errors import CheckpointError
from engine.run import storage
from engine.run.metrics import history_fault, make_durable

SUITE_VERSION = "0.1.0"
KEEP = 2
EARLY_KEYS = {"suite_version", "step", "metrics_offset", "files"}  # of a manifest without a hash of its own
log = logging.getLogger("mim")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A training state between two steps.

    `training` holds tensors and plain numbers only: the optimizer's state, meters and a gradient scaler; {} where a
    finished run kept its weights alone.
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
      before the manifest: the lines of metrics.jsonl that it counts on;
      after the manifest and the fsyncs: the same, complete;
      after the rename: the new checkpoint, with LATEST still naming the one before (readers order by step number);
      after LATEST: all of it. Only then are older checkpoints removed.

    Raises:
        CheckpointError: the storage is full or not writable, or lines of metrics.jsonl are gone; older checkpoints are
            untouched.
    """
    root = run_dir / "checkpoints"
    final, partial = root / f"{snapshot.step:08d}", root / f".{snapshot.step:08d}.partial"
    need = sum(t.numel() * t.element_size() for t in snapshot.model.values()) * 3
    with storage.storage_errors(run_dir, need):
        metrics_sha256 = make_durable(run_dir / "metrics.jsonl", snapshot.metrics_offset)
        if fault(final) is None and _manifest(final).get("metrics_sha256", metrics_sha256) == metrics_sha256:
            return final
        root.mkdir(exist_ok=True)
        storage.fsync_directory(run_dir)
        try:
            storage.remove(partial)
            partial.mkdir()
            _write_files(partial, snapshot, metrics_sha256)
            storage.remove(final)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        storage.fsync_directory(root)
        storage.write_atomic(root / "LATEST", final.name)
    _verified[final] = _signature(final)
    prune(run_dir)
    return final


def _write_files(folder: Path, snapshot: Snapshot, metrics_sha256: str) -> None:
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
        "metrics_sha256": metrics_sha256,
        "files": files,
    }
    storage.write_json(folder / "manifest.json", storage.sealed(manifest))
    storage.fsync_directory(folder)


def _write_tensors(path: Path, tensors: Tensors) -> dict[str, Any]:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    out = storage.HashingFile(path)
    try:
        out.write(safetensors.torch.save(contiguous))
    finally:
        entry = out.close()
    return entry


def prune(run_dir: Path) -> None:
    """Keep the newest KEEP checkpoints that a run could continue from, and every newer one.

    A broken one never counts as kept, so the last good one stays. A folder is renamed before it is emptied: what a kill
    leaves of it is no checkpoint, and the next start removes it. A storage that refuses to remove is named, no more.
    """
    kept = 0
    for folder in _folders(run_dir / "checkpoints"):
        try:
            if kept < KEEP:
                kept += _unusable(folder, run_dir / "metrics.jsonl", []) is None
                continue
            doomed = folder.with_name(f".{folder.name}.partial")
            storage.remove(doomed)
            folder.rename(doomed)
            storage.remove(doomed)
        except (OSError, CheckpointError) as error:
            log.warning("%s is no longer needed, but cannot be removed: %s", folder, error)


def _folders(root: Path) -> list[Path]:
    """Checkpoint folders, newest first by step number: clocks and modification times do not matter."""
    return sorted((p for p in root.glob("[0-9]*") if p.name.isdecimal()), key=lambda p: -int(p.name))


def last_step(run_dir: Path) -> int:
    """The step of the newest checkpoint folder, intact or not; 0 if there is none."""
    return max((int(folder.name) for folder in _folders(run_dir / "checkpoints")), default=0)


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
        return _fault(folder)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _fault(folder: Path) -> str | None:
    odd = next((p for p in (folder, *_parts(folder)) if p.is_symlink()), None)
    if odd is not None:
        return f"{odd.name} is a link, which is not followed"
    try:
        manifest = storage.read_object(folder / "manifest.json")
    except FileNotFoundError:
        return "manifest.json is missing"
    except (OSError, ValueError) as error:
        return f"manifest.json cannot be read ({error})"
    reason = _manifest_fault(folder, manifest)
    signature = _signature(folder)
    if reason is not None or _verified.get(folder) == signature:
        return reason
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes, the manifest says {entry['size']}"
        if storage.sha256_of(path) != entry["sha256"]:
            return f"{name} sha256 differs"
    _verified[folder] = signature
    return None


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _manifest_fault(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Why a manifest cannot be believed. Those of early checkpoints have no hash of their own, and no other key."""
    version, step, offset = (manifest.get(name) for name in ("suite_version", "step", "metrics_offset"))
    sealed = storage.is_sealed(manifest) or manifest.keys() == EARLY_KEYS
    try:
        newer = _version(version) > _version(SUITE_VERSION)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        return f"manifest.json: suite_version is {version!r}"
    if newer and (sealed or not _one_bit_apart(str(version), SUITE_VERSION)):  # a newer one may seal it otherwise
        raise CheckpointError(f"{folder}: written by version {version}, this is {SUITE_VERSION}: update to read it")
    if not sealed:
        return f"manifest.json was changed: its sha256 differs (it says step {step!r})"
    if type(step) is not int or step != int(folder.name):
        return f"manifest.json says step {step!r}"
    if type(offset) is not int or offset < 0:
        return f"manifest.json: metrics_offset is {offset!r}"
    files = manifest.get("files")
    dropped = manifest.get("dropped", {})
    if not isinstance(files, dict) or not {"model.safetensors", "optimizer.pt"} <= {*files, *dropped}:
        return "manifest.json does not list its files"
    for name, entry in files.items():
        if not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys() or Path(name).name != name:
            return f"manifest.json: the entry of {name} is {entry!r}"
    return None


def _one_bit_apart(one: str, other: str) -> bool:
    pairs = list(zip(one.encode(), other.encode(), strict=False))
    return len(one) == len(other) and sum((a ^ b).bit_count() for a, b in pairs) == 1


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint without fault."""
    return storage.read_object(folder / "manifest.json")


def _unusable(folder: Path, metrics: Path, evaluations: list[int]) -> str | None:
    """Why a run cannot continue from a checkpoint: its own fault, or what metrics.jsonl lacks."""
    reason = fault(folder)
    if reason is not None:
        return reason
    try:
        manifest = _manifest(folder)
    except (OSError, ValueError) as error:
        return f"manifest.json cannot be read ({error})"
    before = [step for step in evaluations if step < manifest["step"]]
    return history_fault(metrics, manifest["metrics_offset"], manifest.get("metrics_sha256"), before)


def newest(run_dir: Path, evaluations: list[int] | None = None) -> Path | None:
    """The newest intact checkpoint, or None if the run never wrote one. Each broken one is logged with the reason.

    Args:
        run_dir: of the run.
        evaluations: the steps after which the run evaluates, if it is to be continued: metrics.jsonl must then hold
            what it held at the checkpoint, all evaluations included. None for the weights alone.

    Raises:
        CheckpointError: there are checkpoints and none is intact; a run never starts over silently.
    """
    root = run_dir / "checkpoints"
    folders = _folders(root)
    if folders and not _names_one(root):
        log.warning("%s is missing or names no checkpoint: using the newest intact one", root / "LATEST")
    rejected = []
    for folder in folders:
        metrics = run_dir / "metrics.jsonl"
        reason = fault(folder) if evaluations is None else _unusable(folder, metrics, evaluations)
        if reason is None:
            return folder
        rejected.append(f"{folder.name}: {reason}")
        log.warning("skipping %s: %s", folder.name, reason)
    if rejected:
        raise CheckpointError(f"no usable checkpoint in {root}:\n  " + "\n  ".join(rejected))
    return None


def _names_one(root: Path) -> bool:
    try:
        named = (root / "LATEST").read_text().strip() if (root / "LATEST").is_file() else ""
    except (OSError, ValueError):
        return False
    return named.isdecimal() and (root / named).is_dir()


def load(folder: Path) -> Snapshot:
    """Read a checkpoint that `newest` has verified, to the CPU.

    Raises:
        CheckpointError: it contains something other than tensors and plain values, or can no longer be read.
    """
    try:
        manifest = _manifest(folder)
        training = {}
        if "optimizer.pt" in manifest["files"]:
            training = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        ema = folder / "ema.safetensors"
        return Snapshot(
            step=manifest["step"],
            model=safetensors.torch.load_file(folder / "model.safetensors"),
            training=training,
            metrics_offset=manifest["metrics_offset"],
            ema=safetensors.torch.load_file(ema) if ema.is_file() else None,
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{folder / 'optimizer.pt'} contains code and was not written by this suite: refused"
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error


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
    """Remove what a save, or a removal, left that was killed half-way."""
    for leftover in (*run_dir.glob(".*.partial"), *run_dir.glob("*/.*.partial")):
        log.info("removing %s, left by an interrupted save", leftover)
        storage.remove(leftover)
