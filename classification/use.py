"""`python -m classification predict|evaluate RUN ...`: what a finished run makes of one's own images, and its accuracy
on another data set."""

import csv
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from classification.augment import as_picture, evaluation_transform, normalise
from classification.build import is_convolutional
from classification.classifier import Classifier, load_classifier
from classification.config import ClassificationConfig, DataConfig
from classification.data import LabelledImages, find_images
from classification.evaluation import evaluate as evaluate_images
from engine import use
from engine.data.images import ImageIndex, index_images, read_image
from engine.data.options import DEFAULT_OPTIONS, ImageOptions, bands_of
from engine.data.scan import some
from engine.data.split import split_folder
from engine.distributed import pick_device
from engine.errors import ConfigError, DataError
from engine.figures import save_png
from engine.run import storage
from engine.training.state import PRECISIONS

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports its font cache
_NUM_SHOWN = 40  # rows on the terminal; the file has all
_NUM_BEST = 5
_SHEET = (4, 6)  # rows and columns of pictures


@dataclass(frozen=True)
class Guess:
    """The most probable classes of an image, best first."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(asked: use.Predict) -> None:
    """Print a table of the images with their most probable class, write predictions.csv with the five best, and draw
    the images with them in sheets.

    Raises:
        ConfigError, WeightsError: RUN holds no classifier.
        DataError: an image cannot be read; the others have been predicted.
    """
    classifier = load_classifier(asked.run)
    mean, std = classifier.statistics
    options = asked.as_asked(dataclasses.replace(_data_options(asked.run), mean=mean, std=std))
    with storage.storage_errors(asked.out.parent):
        asked.out.mkdir(parents=True, exist_ok=True)
    network = classifier.network.to(pick_device())
    guesses: list[Guess] = []

    @torch.inference_mode()
    def predict_one(image: use.Image) -> None:
        transform = evaluation_transform(classifier.augment, options.bands)
        array = transform(as_picture(read_image(image.path, options)))
        logits: Tensor = network(normalise(array[None].to(pick_device()), classifier.statistics))
        best = logits[0].float().softmax(dim=0).topk(min(_NUM_BEST, len(classifier.classes)))
        names = tuple(classifier.classes[number] for number in best.indices.tolist())
        guesses.append(Guess(image.path, names, tuple(best.values.tolist())))

    try:
        use.predict_each(asked.images, predict_one, asked.options)
    finally:
        if guesses:
            _write(guesses, asked, options)


def _write(guesses: list[Guess], asked: use.Predict, options: DataConfig) -> None:
    print(table(guesses[:_NUM_SHOWN]))
    more = f"and {len(guesses) - _NUM_SHOWN:,} more; " if len(guesses) > _NUM_SHOWN else ""
    path = asked.out / "predictions.csv"
    shown = asked.pictures and options.bands == 3  # arrays of other channels are no pictures to whoever looks
    with storage.storage_errors(asked.out.parent):
        write_csv(path, guesses)
        sheets = draw_sheets(guesses, asked.out / "pictures", options) if shown else []
    pictures = f", pictures in {sheets[0].parent}" if sheets else ""
    whose, num_best = "its" if len(guesses) == 1 else "their", len(guesses[0].classes)
    best = f"{num_best} best classes" if num_best > 1 else "only class"
    print(f"{more}all of {use.counted(len(guesses), 'image')} with {whose} {best} in {path}{pictures}")


def table(guesses: list[Guess]) -> str:
    """Image, class and probability in columns."""
    widths = [max(len(str(guess.path)) for guess in guesses), max(len(guess.classes[0]) for guess in guesses)]
    return "\n".join(
        f"{guess.path!s:{widths[0]}}  {guess.classes[0]:{widths[1]}}  {100 * guess.probabilities[0]:5.1f} %"
        for guess in guesses
    )


def write_csv(path: Path, guesses: list[Guess]) -> None:
    """image,class_1,probability_1,class_2,..."""
    columns = [f"{name}_{i + 1}" for i in range(len(guesses[0].classes)) for name in ("class", "probability")]
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        for guess in guesses:
            pairs = zip(guess.classes, guess.probabilities, strict=True)
            cells = [cell for name, value in pairs for cell in (_no_formula(name), f"{value:.6f}")]
            writer.writerow([_no_formula(str(guess.path)), *cells])


def _no_formula(text: str) -> str:
    """A spreadsheet takes cells that begin so for formulas."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def draw_sheets(guesses: list[Guess], folder: Path, options: ImageOptions = DEFAULT_OPTIONS) -> list[Path]:
    """The images, read as `options` say, with their class and its probability, twenty-four to a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    size = _SHEET[0] * _SHEET[1]
    paths = []
    for number, first in enumerate(range(0, len(guesses), size)):
        part = guesses[first : first + size]
        rows = -(-len(part) // _SHEET[1])
        figure = Figure(figsize=(2.0 * _SHEET[1], 2.3 * rows), layout="constrained")
        for i, guess in enumerate(part):
            axes = figure.add_subplot(rows, _SHEET[1], i + 1)
            thumbnail = Image.fromarray(read_image(guess.path, options))
            thumbnail.thumbnail((256, 256))
            axes.imshow(np.asarray(thumbnail))
            axes.set_title(f"{guess.classes[0]}  {100 * guess.probabilities[0]:.0f} %", fontsize=9)
            axes.set_xlabel(guess.path.name, fontsize=6)
            axes.set_xticks([])
            axes.set_yticks([])
        paths.append(folder / f"{number:04}.png")
        save_png(figure, paths[-1])
    return paths


def evaluate(asked: use.Evaluate) -> dict[str, float]:
    """Top-1 and top-5 accuracy over DIR/val/<class>/, or DIR/<class>/ where there is no val/.

    Raises:
        ConfigError, WeightsError: RUN holds no classifier.
        DataError: the folder is missing or empty, or has classes that the run was not trained for.
    """
    config: ClassificationConfig = asked.config
    classifier = load_classifier(asked.run)
    index = _validation_images(asked)
    network, device = classifier.network.to(pick_device()), pick_device()
    dtype = PRECISIONS[config.precision] if asked.run.is_dir() else torch.float32
    if is_convolutional(network, len(classifier.statistics[0])):  # as the run evaluated it: rounding depends on it
        network.to(memory_format=torch.channels_last)

    def scores(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            logits: Tensor = network(normalise(images, classifier.statistics))
        return logits

    return evaluate_images(
        scores,
        LabelledImages(
            with_classes(index, classifier),
            evaluation_transform(classifier.augment, bands_of(classifier.statistics[0])),
            config.seed,
        ),
        batch_size=config.data.evaluation_batch_size,
        num_workers=config.data.num_workers,
        device=device,
        check_stop=lambda: None,
    )


def _validation_images(asked: use.Evaluate) -> ImageIndex:
    """Those of the folder for validation; without one, all of another data set, and of the run's own the share that it
    did not train on."""
    data = asked.config.data
    folder = split_folder(Path(data.root), "val")
    if folder is None and data.val_share and Path(data.root).resolve() == _trained_on(asked.run):
        return find_images(data)[1]
    return index_images(folder or data.root, labelled=True, options=data, unreadable="stop")


def _trained_on(run: Path) -> Path | None:
    return Path(_data_options(run).root).resolve() if run.is_dir() else None


def with_classes(index: ImageIndex, classifier: Classifier) -> ImageIndex:
    """The images with the labels of the classes that were trained; some of these may have no image.

    Raises:
        DataError: there are other classes.
    """
    assert index.labels is not None
    if unknown := [name for name in index.classes if name not in classifier.classes]:
        raise DataError(f"{index.root}: no classes of this run: {some(unknown)}; it knows {some(classifier.classes)}")
    numbers = np.array([classifier.classes.index(name) for name in index.classes], dtype=np.int64)
    return dataclasses.replace(index, labels=numbers[index.labels], classes=classifier.classes)


def _data_options(run: Path) -> DataConfig:
    """How the run read its images: a classifier file by itself does not say."""
    if not run.is_dir():
        return DataConfig()
    try:
        return use.stored_config(run, "classification", ClassificationConfig).data
    except ConfigError:
        return DataConfig()
