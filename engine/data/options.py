"""What every task lets its user say about image files: fields of the data group of each task's configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

from engine.fields import NotNegative, Range

Unreadable = Literal["stop", "skip"]
"""What to do at a file that is not a whole image: stop the run, or take another image in its place."""

Exif = Literal["ignore", "apply", "stop"]
"""What to do with the EXIF orientation of a photo: take the pixels as stored, turn them, or refuse the photo."""

MAX_PIXELS = 89_478_485
"""Largest width x height accepted by default (where Pillow starts to warn): decoding stays below 1 GB of memory."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How image files are found and read."""

    unreadable: Unreadable = "stop"
    """What to do at a training image that cannot be decoded: "stop", or "skip" to use a substitute and count it. A
    validation image that cannot be decoded always stops the run: accuracy over other images is another number."""
    max_unreadable: NotNegative = 0.001
    """How many images "skip" may skip before it stops the run after all: below 1 a share of the training set, from 1 on
    a number of images."""
    exclude: str = ""
    """A list of images to leave out, one path a line, as `python -m engine.verify DIR --list FILE` writes it: relative
    to data.root or to the folder that was verified, or absolute. It holds for validation images too."""
    exif: Exif = "ignore"
    """What to do with a photo's EXIF orientation: "ignore" reads the pixels as stored, as torchvision and timm do and
    so every published recipe; "apply" turns the photo upright; "stop" refuses it."""
    max_pixels: Annotated[int, Range(1, 2**31)] = MAX_PIXELS
    """Largest picture accepted, width times height; a larger one counts as unreadable. One pixel takes about 10 bytes
    of memory while it is decoded."""

    @property
    def bands(self) -> int:
        """How many channels a picture is read with: 3, RGB, in the absence of other statistics."""
        return 3

    def problems(self) -> list[str]:
        """What cannot be run, one line each, beside what is outside its range."""
        return self.image_problems()

    def image_problems(self) -> list[str]:
        """What of these fields cannot be run as given, beside what is outside its range."""
        if 0 <= self.max_unreadable < 1 or self.max_unreadable % 1 == 0:
            return []
        return [f"max_unreadable is {self.max_unreadable}; allowed: a share below 1, or a whole number of images"]

    def accepts_unreadable(self, num_bad: int, num_images: int) -> bool:
        """Whether "skip" goes on with this many bad images among `num_images`."""
        return num_bad <= (self.max_unreadable if self.max_unreadable >= 1 else self.max_unreadable * num_images)


def bands_of(mean: tuple[float, ...]) -> int:
    """How many channels pictures are read with, by the mean of each: RGB for three values and for one, which is that of
    grey made of RGB; else as many as there are values."""
    return 3 if len(mean) in (1, 3) else len(mean)


def in_channels(mean: tuple[float, ...]) -> dict[str, int]:
    """timm's option for a network of images of other channels than three."""
    return {} if len(mean) == 3 else {"in_chans": len(mean)}


DEFAULT_OPTIONS = ImageOptions()
