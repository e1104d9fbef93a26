"""Errors of the machine (full memory, storage, lost ranks) as errors of ours, said so that they can be acted on."""

import errno
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch

from engine.distributed import lost_rank
from engine.errors import CheckpointError, ConfigError, MemoryExhaustedError

# Of storage whichever file it was, and of a file that is named.
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
_NAMED_FILE = {errno.EACCES, errno.EPERM, errno.ENODEV, errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG}
_HOST_MEMORY = re.compile(r"DefaultCPUAllocator: (can't allocate memory|not enough memory)[^.]*")
_COMPILER = re.compile(r"No working C\+\+ compiler.*|\bCompiler: .*|Failed to find C compiler.*|.*\berror: .*")  # lines
_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors writes in Rust


def explain(error: BaseException, settings: Mapping[str, Any] | None = None) -> BaseException:
    """An error as people should see it: one of ours if it is known what it means, else the error itself.

    Args:
        error: any.
        settings: the configuration of the run it happened in, of which batch, image size and accumulation are named.
    """
    if hasattr(error, "exit_code") or not isinstance(error, Exception):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        fitting = getattr(error, "pieces", None)  # engine.loop tried it
        return _out_of_memory(f"{str(error).split('. ')[0]}; peak {peak:.1f} GB", settings or {}, fitting)
    if isinstance(error, MemoryError):
        return _out_of_memory(str(error) or "the operating system gave this process no more", settings or {})
    if isinstance(error, RuntimeError) and (found := _HOST_MEMORY.search(str(error))):
        return _out_of_memory(found.group(), settings or {})
    return _compiler_error(error) or _storage_error(error) or lost_rank(error) or error


def _compiler_error(error: Exception) -> ConfigError | None:
    """What a compiler that torch.compile calls has said."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds.isdisjoint({"BackendCompilerFailed", "CppCompileError", "InvalidCxxCompiler"}):
        return None
    if (said := _COMPILER.search(str(error))) is None:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return ConfigError(
        f"torch.compile could not build its code here ({said.group().strip()}). It needs a C++ compiler and the "
        f"headers of Python {version} (Debian: apt install g++ python{version}-dev); or train without: --compile False"
    )


def _storage_error(error: Exception) -> CheckpointError | None:
    if isinstance(error, OSError):
        named = f" {error.filename!s}" if error.filename is not None else ""
        if error.errno in _STORAGE or (named and error.errno in _NAMED_FILE):
            return CheckpointError(f"cannot read or write{named or ' a file'}: {error.strerror}")
    elif (found := _RUST.search(str(error))) and int(found.group(1)) in _STORAGE:
        return CheckpointError(f"cannot read or write a file: {os.strerror(int(found.group(1)))} ({error})")
    return None


def _out_of_memory(reason: str, settings: Mapping[str, Any], fitting: int | None = None) -> MemoryExhaustedError:
    names = ("batch_size", "image_size", "accumulation")
    where = "".join(f", {name} {settings[name]}" for name in names if settings.get(name) is not None)
    advice = f"--accumulation {fitting or 2 * (settings.get('accumulation', 1))} or more"
    batch_size = settings.get("batch_size")
    if fitting and isinstance(batch_size, int):
        advice += f" (a piece of {batch_size // fitting} fitted just now, forward and backward)"
    return MemoryExhaustedError(
        f"out of memory ({reason}{where}). The batch is not made smaller for you, "
        f"for that would change the result: start again in another run folder with {advice}, "
        "which computes the same global batch in smaller pieces"
    )
