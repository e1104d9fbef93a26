"""Seven numbered images predicted; as a script under torchrun, every rank writes what it knows into a folder."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from detection.evaluation import predict_all
from engine import distributed

PREDICTED_IMAGES = 7


class Numbered(torch.utils.data.Dataset):
    def __len__(self):
        return PREDICTED_IMAGES

    def __getitem__(self, key):
        return {"image_id": key.index, "image": torch.full((3, 4, 4), key.index)}


class MeanColour:
    """Detects the whole image with its mean as score."""

    def __call__(self, model, batch):
        return [
            {"image_id": s["image_id"], "label": 0, "bbox": [0, 0, 4, 4], "score": float(model(s["image"].float()))}
            for s in batch
        ]

    def own_numbers(self):
        return {}


class Mean(nn.Module):
    def forward(self, image):
        return image.mean()


def predict_images():
    return predict_all(
        MeanColour(),
        Mean(),
        Numbered(),
        batch_size=2,
        num_workers=0,
        check_stop=lambda: distributed.sum_over_ranks(torch.zeros(1)) and None,
    )


if __name__ == "__main__":
    with distributed.process_group(torch.device("cpu")):
        Path(sys.argv[1], f"{distributed.rank()}.json").write_text(json.dumps(predict_images()))
