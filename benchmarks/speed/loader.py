"""Images per second of one core: the pre-training loader against a plain torchvision and Pillow pipeline."""

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms

from benchmarks.speed.timing import Comparison, Contender, compare, timing
from engine.data.images import ImageArray, index_images, read_image
from engine.data.index import ImageIndex
from engine.data.order import SampleKey
from engine.processes import READERS
from pretrain.data import PretrainDataset, collate
from pretrain.targets import IMAGENET_MEAN, IMAGENET_STD, Normalise, fill_masked

HEIGHT, WIDTH = 375, 500
CELL_SIZE, MASK_RATIO = 32, 0.6
BATCH_SIZE = 16
CPU = torch.device("cpu")


def photo_like(seed: int, height: int = HEIGHT, width: int = WIDTH) -> ImageArray:
    """Coloured noise with the falling spectrum of photographs, so that a JPEG of it is about as long as one of them.

    Returns:
        RGB uint8 (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    shape = (3, height, width // 2 + 1)
    spectra = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.25
    grey, *colours = np.fft.irfft2(spectra, s=(height, width))
    planes = [(grey + 0.25 * colour) / grey.std() for colour in (colours[0], 0 * grey, colours[1])]
    pixels: ImageArray = np.clip(np.stack(planes, -1) * 55 + 120, 0, 255).astype(np.uint8)
    return pixels


def write_photos(folder: Path, num_images: int) -> None:
    """Write generated JPEGs of 500x375 pixels, quality 90, about 90 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num_images):
        Image.fromarray(photo_like(i)).save(folder / f"{i:04d}.jpg", quality=90)


class PlainPipeline(Dataset[dict[str, Tensor]]):
    """What one would write first: Pillow decodes, torchvision crops, flips and normalises, each image is masked alone.

    Args:
        index: the images.
        image_size: side of the crop in pixels.
        scale: smallest and largest area of the crop.
    """

    def __init__(self, index: ImageIndex, image_size: int, scale: tuple[float, float]) -> None:
        self.index, self.side = index, image_size // CELL_SIZE
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(image_size, scale=scale),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor]:
        """{"image": filled float32 (3, S, S), "target": before filling, "mask": (1, S, S)}."""
        with Image.open(self.index.path(key.index)) as image:
            target = self.transform(image.convert("RGB"))
        hidden = torch.randperm(self.side**2)[: int(np.ceil(self.side**2 * MASK_RATIO))]
        mask = torch.zeros(self.side**2)
        mask[hidden] = 1
        mask = mask.view(1, self.side, self.side).repeat_interleave(CELL_SIZE, 1).repeat_interleave(CELL_SIZE, 2)
        filled = target * (1 - mask) + target.mean((1, 2), keepdim=True) * mask
        return {"image": filled, "target": target, "mask": mask}


def loader_speed(folder: Path, *, image_size: int, scale: tuple[float, float], pairs: int) -> Iterator[Comparison]:
    """Compare the two on the images of a folder: in this process and in a worker process, and the decoders alone.

    One thread each. "with the device's part" adds normalising and filling the batch, which a run does on the device.
    """
    index = index_images(folder, labelled=False)
    ours = PretrainDataset(index=index, image_size=image_size, scale=scale, cell_size=CELL_SIZE, mask_ratio=MASK_RATIO)
    plain = PlainPipeline(index, image_size, scale)
    normalise = Normalise()

    def finish(batch: dict[str, Tensor]) -> None:
        fill_masked(normalise(batch["image"]), batch["mask"])

    reference = _in_process("torchvision and Pillow", plain, default_collate)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield compare("loader, in process", _in_process("uint8 loader", ours, collate), reference, pairs=pairs)
        whole = _in_process("uint8 loader with the device's part", ours, collate, finish)
        yield compare("loader, in process", whole, reference, pairs=pairs)
        a, b = _in_worker("uint8 loader", ours, collate), _in_worker("torchvision and Pillow", plain, default_collate)
        yield compare("loader, one worker", a, b, pairs=pairs)
        yield compare("decoding", _decoding("engine.data.images", index, read_image), _pillow(index), pairs=pairs)
    finally:
        torch.set_num_threads(threads)


def _keys(num_images: int) -> Iterator[list[SampleKey]]:
    """Batches for ever, each use of an image another epoch."""
    for start in count(0, BATCH_SIZE):
        yield [SampleKey(*divmod(i, num_images)) for i in range(start, start + BATCH_SIZE)]


def _in_process(
    name: str,
    dataset: Any,
    join: Callable[[list[Any]], Any],
    finish: Callable[[Any], None] | None = None,
) -> Contender:
    keys = _keys(len(dataset))

    def batch() -> None:
        joined = join([dataset[key] for key in next(keys)])
        if finish is not None:
            finish(joined)

    return Contender(name=name, run=timing(batch, num_images=BATCH_SIZE, device=CPU))


def _in_worker(name: str, dataset: Any, join: Callable[[list[Any]], Any], num_batches: int = 8) -> Contender:
    """Time from the first batch's arrival to the last one's: the worker's start is left out."""

    def run() -> float:
        batches = [keys for keys, _ in zip(_keys(len(dataset)), range(num_batches), strict=False)]
        arrived = []
        for _ in DataLoader(
            dataset, batch_sampler=batches, num_workers=1, multiprocessing_context=READERS, collate_fn=join
        ):
            arrived.append(time.perf_counter())
        return (arrived[-1] - arrived[0]) / ((num_batches - 1) * BATCH_SIZE)

    return Contender(name=name, run=run)


def _decoding(name: str, index: ImageIndex, decode: Callable[[str], Any]) -> Contender:
    keys = _keys(len(index))

    def batch() -> None:
        for key in next(keys):
            decode(index.path(key.index))

    return Contender(name=name, run=timing(batch, num_images=BATCH_SIZE, device=CPU))


def _pillow(index: ImageIndex) -> Contender:
    def decode(path: str) -> ImageArray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    return _decoding("Pillow", index, decode)
