"""An evaluation of a random segmentor; as a script under torchrun, every rank writes its result into a folder."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from engine import distributed
from segmentation.data import make_pairs
from segmentation.evaluation import evaluate
from segmentation.mmseg_adapter import build_segmentor, evaluation_pipeline
from tests.segmentation.folders import tiny_config


def evaluate_random_segmentor(root, batch_size=1, **changes):
    torch.set_num_threads(1)
    config = replace(tiny_config(root), **changes)
    segmentor = build_segmentor(config).eval()
    pairs = make_pairs(config, "validation", evaluation_pipeline(config))
    with torch.no_grad():
        return evaluate(
            segmentor,
            pairs,
            batch_size=batch_size,
            num_workers=0,
            device=torch.device("cpu"),
            check_stop=lambda: distributed.sum_over_ranks(torch.zeros(1)) and None,
        )


if __name__ == "__main__":
    root, out = sys.argv[1:]
    with distributed.process_group(torch.device("cpu")):
        scores = evaluate_random_segmentor(root)
        Path(out, f"{distributed.rank()}.json").write_text(json.dumps([scores.means(), scores.per_class(range(150))]))
