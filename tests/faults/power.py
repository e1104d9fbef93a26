"""What a power cut leaves of a folder, without cutting anything: only what was fsynced is still there."""

import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2  # the journal is not written out, as when the power fails


class ForgetfulDisk:
    """Sees every fsync below a folder, and can lay out what a disk would hold that kept nothing else.

    The harshest disk that POSIX allows: the content of a file is what it was at its last fsync (empty without one), the
    names in a folder are those of the folder's last fsync.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._fsync = root, os.fsync
        self.moments = 0
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._saved: list[tuple[dict[int, bytes], dict[int, dict[str, tuple[int, bool]]]]] = []
        monkeypatch.setattr(os, "fsync", self._seen)

    def _seen(self, handle: int) -> None:
        self._fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if not path.is_relative_to(self.root):
            return
        number = os.fstat(handle).st_ino
        if path.is_dir():
            self._names[number] = {p.name: (p.lstat().st_ino, p.is_dir()) for p in path.iterdir()}
        else:
            self._content[number] = path.read_bytes()
        self._saved.append((dict(self._content), dict(self._names)))
        self.moments = len(self._saved)

    def lay_out(self, moment: int, target: Path) -> None:
        """The folder as it was on the disk after so many fsyncs."""
        content, names = self._saved[moment - 1]

        def write(number: int, folder: Path) -> None:
            folder.mkdir(parents=True)
            for name, (inner, is_folder) in names.get(number, {}).items():
                if is_folder:
                    write(inner, folder / name)
                else:
                    (folder / name).write_bytes(content.get(inner, b""))

        write(self.root.stat().st_ino, target)


@contextmanager
def ext4(place: Path) -> Iterator[Path]:
    """An ext4 file system of 48 MB on a loop device; skips the test where this machine does not let us make one."""
    image, folder = place / "image", place / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device with ext4 here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)


def cut_power(folder: Path) -> None:
    """Stop a mounted ext4 as if its power failed, and mount it again."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, ctypes.c_uint32(NOLOGFLUSH))
    finally:
        os.close(handle)
    subprocess.run(["umount", folder], check=True)
    subprocess.run(["mount", "-o", "loop", folder.parent / "image", folder], check=True)
