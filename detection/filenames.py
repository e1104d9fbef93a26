"""The names that an annotation file gives its images, and the files they mean."""

import posixpath
from collections.abc import Iterable
from pathlib import Path


class FileNames:
    """The image files of a folder, found by the names that labelling tools write.

    Args:
        folder: of the images.
        paths: of the files, relative to it, with forward slashes.
    """

    def __init__(self, folder: Path, paths: Iterable[str]) -> None:
        self.folder = folder
        self._paths = set(paths)

    def find(self, name: str) -> str | None:
        """The path that `name` means: itself, also as ./name, with backslashes, or below other folders (/data/name).

        None where there is no such file, or the name leads out of the folder.
        """
        if name in self._paths:
            return name
        plain = posixpath.normpath(name.replace("\\", "/"))
        parts = plain.split("/")
        if ".." in parts:
            return None
        ends = ("/".join(parts[first:]) for first in range(len(parts)))
        return next((end for end in ends if end in self._paths), None)

    def why_not(self, name: str) -> str:
        """The sentence about a name that `find` does not find."""
        if ".." in posixpath.normpath(name.replace("\\", "/")).split("/"):
            return f"its file_name {name!r} leads out of {self.folder}: write names relative to that folder"
        path = self.folder / name
        try:
            there = path.is_file()
        except (OSError, ValueError) as error:  # too long a name, a zero byte, a folder that may not be entered
            reason = getattr(error, "strerror", None) or error
            return f"its file_name {name[:60]!r} cannot be looked for in {self.folder} ({reason}): write another"
        if there:
            how = "its name begins with a dot" if path.name.startswith(".") else f"{path.suffix or 'no suffix'}"
            return f"{path} is there, but is not among the images that are read ({how}): convert or rename it"
        alike = next((other for other in self._paths if other.lower() == name.lower()), None)
        if alike:
            return f"{path} is missing; there is {alike}, in other letters: write the name as the file has it"
        elsewhere = [other for other in self._paths if other.endswith(f"/{posixpath.basename(name)}")]
        if elsewhere:
            more = f" and {len(elsewhere) - 1:,} more" if len(elsewhere) > 1 else ""
            return (
                f"{path} is missing; there is {min(elsewhere)}{more}: write the names with their folders, or say which "
                "folder holds them (--data.train-images, --data.val-images)"
            )
        return f"{path} is missing: put it there, or take the image and its annotations out of the file"
