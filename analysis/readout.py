"""From an encoder to scores of classes: the classifier it was fine-tuned with, or a linear probe on frozen features."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from analysis.config import ClassScores
from analysis.images import Images, choose, index_split
from backbones import build_classifier, load_weights
from backbones.encoder import built_size, is_fixed_size
from backbones.source import Encoder, weights_digest
from backbones.weights.files import open_weights
from classification.classifier import FILE, load_classifier
from engine.data.scan import some
from engine.errors import ConfigError, DataError
from engine.run.storage import write_atomic

log = logging.getLogger("mim")
_HEADS = ("head.fc.weight", "head.weight", "fc.weight", "classifier.weight")
_STEPS = 200  # of L-BFGS; it stops where nothing changes any more


@dataclass(frozen=True)
class Readout:
    """What gives scores.

    Args:
        network: normalised images (B, 3, H, W) -> scores (B, K), in evaluation mode.
        columns: for each class of the data set, its column of the scores.
        name: what it is, as people read it.
        digest: of its tensors, the encoder's included; "" where the encoder's own digest and the settings say all.
    """

    network: nn.Module
    columns: tuple[int, ...]
    name: str
    digest: str = ""


class Pooled(nn.Module):
    """An encoder's features as a vector: the mean over the positions of its last map, (B, 3, H, W) -> (B, C)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone = encoder.backbone

    def forward(self, images_bchw: Tensor) -> Tensor:
        """Features of images."""
        features: Tensor = self.backbone(images_bchw)
        return features.mean(dim=(2, 3))


class _Probed(nn.Module):
    def __init__(self, pooled: Pooled, linear: nn.Linear) -> None:
        super().__init__()
        self.pooled, self.linear = pooled, linear

    def forward(self, images_bchw: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.pooled(images_bchw))
        return scores


def own_classifier(encoder: Encoder, classes: tuple[str, ...], image_size: int) -> Readout | None:
    """The classifier that the encoder's run or file holds, if it is one for these classes.

    A run knows its classes by name, and may know more than are asked about. Of other people's files only the number is
    known: it has to be that of the data set, whose folders must stand in the order that they were trained in (for
    ImageNet-1k the order of their names).

    Raises:
        ConfigError: the run was trained for other classes, or for images of another size that it cannot change.
    """
    place = Path(encoder.reference)
    path = place / FILE if place.is_dir() else place
    if path.name == FILE and path.is_file():
        found = load_classifier(path)
        if unknown := [name for name in classes if name not in found.classes]:
            raise ConfigError(
                f"{path} knows no classes {some(unknown)}; it was trained for {some(found.classes)}. "
                "--readout probe trains a linear probe for these"
            )
        if is_fixed_size(found.network) and built_size(found.network) != image_size:
            raise ConfigError(
                f"{path} takes images of {built_size(found.network)} pixels only, not {image_size}: leave --image-size "
                "out, or take --readout probe"
            )
        columns = tuple(found.classes.index(name) for name in classes)
        return Readout(found.network, columns, "its classifier", weights_digest(found.network.state_dict()))
    if not encoder.source or place.is_dir():
        return None
    state = open_weights(encoder.source).state
    head = next((state[name] for name in _HEADS if name in state), None)
    if head is None or len(head) != len(classes):
        return None
    network = build_classifier(encoder.backbone.name, len(head), image_size=image_size)
    load_weights(network, encoder.source)
    return Readout(
        network.eval(), tuple(range(len(head))), "the classifier in its file", weights_digest(network.state_dict())
    )


def readout_of(
    encoder: Encoder, config: ClassScores, classes: tuple[str, ...], cache: Path, device: torch.device
) -> Readout:
    """What gives the scores of classes that `config.readout` asks for.

    Args:
        encoder: on the device.
        config: says which, and how a probe is trained.
        classes: of the data set.
        cache: folder in which features of the training images are kept.
        device: of the encoder.

    Raises:
        ConfigError: there is no such classifier.
        DataError: there are no training images for a probe, or of other classes.
    """
    size = config.image_size or encoder.image_size
    own = None if config.readout == "probe" else own_classifier(encoder, classes, size)
    if own is not None:
        return own
    if config.readout == "classifier":
        raise ConfigError(
            f"{encoder.reference} holds no classifier for the {len(classes)} classes of {config.data.root}: fine-tune "
            "it (python -m classification), or take --readout probe"
        )
    if len(classes) < 2:
        raise DataError(f"{config.data.root} has one class folder, {classes[0]}: a probe needs two or more")
    index = index_split(config.data, "train")
    if index.classes != classes:
        raise DataError(
            f"{index.root} has other classes than the images that are analysed, so that no probe can be trained"
        )
    chosen = choose(index, config.probe_images, config.seed)
    images = Images(index, chosen, size, config.crop_pct, encoder.mean, encoder.std, config.seed)
    pooled = Pooled(encoder)
    features, labels = _features(pooled, images, config, cache, encoder.digest, device)
    linear = fit_probe(features, labels, len(classes), decay=config.probe_decay).to(device)
    accuracy = (linear(features.to(device)).argmax(dim=1).cpu() == labels).double().mean().item()
    name = f"a linear probe on features of {len(images):,} training images ({100 * accuracy:.1f} % of them right)"
    log.info("%s: %s", encoder.name, name)
    return Readout(_Probed(pooled, linear).eval(), tuple(range(len(classes))), name)


def _features(
    pooled: Pooled, images: Images, config: ClassScores, cache: Path, digest: str, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (N, C) and labels (N,), float32, from the cache where these very ones are there."""
    facts = [digest, images.index.digest, list(images.positions), images.image_size, images.crop_pct]
    facts += [list(images.mean), list(images.std), config.precision]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    path = cache / f"{key[:32]}.safetensors"
    try:
        kept = safetensors.torch.load_file(path)
        return kept["features"], kept["labels"]
    except (FileNotFoundError, SafetensorError, KeyError):
        pass
    found, labels = [], []
    dtype = next(pooled.parameters()).dtype
    with torch.inference_mode():
        for pixels, label in images.batches(config.batch_size):
            found.append(pooled(images.normalise(pixels.to(device)).to(dtype)).float().cpu())
            labels.append(label)
    tensors = {"features": torch.cat(found), "labels": torch.cat(labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.torch.save(tensors))
    return tensors["features"], tensors["labels"]


def fit_probe(features_nc: Tensor, labels_n: Tensor, num_classes: int, *, decay: float) -> nn.Linear:
    """Multinomial logistic regression on standardised features, which is one optimum: nothing is drawn.

    Args:
        features_nc: of the training images.
        labels_n: their classes.
        num_classes: K.
        decay: weight of the squared weights beside the mean cross-entropy.

    Returns:
        A layer that takes features as they are, standardisation folded in.
    """
    features = features_nc.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    scaled = (features - mean) / deviation
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scaled @ weight.T + bias, labels_n) + decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    layer = nn.Linear(features.shape[1], num_classes)
    with torch.no_grad():
        layer.weight.copy_(weight / deviation)
        layer.bias.copy_(bias - weight @ (mean / deviation))
    return layer.requires_grad_(False)
