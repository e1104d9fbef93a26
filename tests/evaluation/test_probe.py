"""Probes: the published efficient probe, MAE's LARS and crops, and every protocol that trains, on a frozen encoder."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from backbones import load_encoder
from backbones.source import weights_digest
from engine.errors import ConfigError
from engine.groups import OptimizerOptions
from engine.training import optim
from evaluation.config import LinearConfig
from evaluation.crops import crop_box
from evaluation.data import open_labelled
from evaluation.heads import EfficientProbe, Head, Heads, parameter_groups
from evaluation.run import evaluate_all, evaluate_one, for_encoder
from tests.evaluation.test_command import ENCODERS, ask, write_images
from tests.helpers import ROOT

PUBLISHED = ROOT / "tests/data/golden2/protocols/efficient_probing"
LARS = ROOT / "tests/data/golden2/optim/lars.json"
GOLDEN = json.loads(PUBLISHED.with_suffix(".json").read_text())["cases"]
NAMES = {"0.cls_token": "query", "0.v.weight": "value.weight", "2.weight": "linear.weight", "2.bias": "linear.bias"}


def golden_probe(case, dtype):
    probe = EfficientProbe(case["dim"], case["classes"], queries=case["queries"], d_out=case["d_out"]).to(dtype)
    state = probe.state_dict()
    for _, name, shape, _, mean, std, seed in case["recipe"]:
        values = np.float32(mean + std * np.random.RandomState(seed).standard_normal(np.prod(shape)).reshape(shape))
        state[NAMES[name]] = torch.from_numpy(values).to(dtype)
    probe.load_state_dict(state)
    seed = int(case["tokens_rule"].split("(")[1].rstrip(")"))
    tokens = np.random.RandomState(seed).standard_normal((case["batch"], case["tokens"], case["dim"]))
    return probe, torch.from_numpy(np.float32(tokens)).to(dtype).requires_grad_()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_the_efficient_probe_is_the_published_one(case):
    prefix = f"{case['name']}/"
    every = load_file(PUBLISHED.with_suffix(".safetensors"))
    stored = {name.removeprefix(prefix): tensor for name, tensor in every.items() if name.startswith(prefix)}
    probe, tokens = golden_probe(case, torch.float64)
    assert sum(p.numel() for p in probe.parameters()) == case["n_params"]
    pooled = probe.pool(tokens)
    logits = probe(tokens)
    loss = F.cross_entropy(logits, torch.tensor(case["labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(case["fp64"]["loss"], rel=1e-10)
    gradients = {f"grad/{theirs}": probe.get_parameter(ours).grad for theirs, ours in NAMES.items()}
    found = {"pooled": pooled, "logits": logits, "grad_tokens/0": tokens.grad[0], **gradients}
    found["logits_eval_after_one_step"] = probe.eval()(tokens)
    assert found.keys() == stored.keys()
    for name, expected in stored.items():
        limit = 1e-6 * float(expected.abs().max())
        np.testing.assert_allclose(found[name].detach(), expected.double(), atol=limit, rtol=0)
    single, tokens = golden_probe(case, torch.float32)
    assert F.cross_entropy(single(tokens), torch.tensor(case["labels"])).item() == pytest.approx(
        case["fp64"]["loss"], rel=1e-5
    )


def test_queries_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="features of 96 numbers do not divide by them: take queries 4"):
        EfficientProbe(96, 3, queries=5)
    with pytest.raises(ConfigError, match="take d_out 1"):
        EfficientProbe(96, 3, d_out=7)


def test_groups_have_rates_by_the_batch_and_adapt_matrices_only():
    heads = [Head("a", 0.1), Head("a", 0.2)]
    model = Heads(heads, {"a": 5}, 3)
    groups = parameter_groups(model, heads, batch_size=16384, weight_decay=0.5)
    assert [group["base_rate"] for group in groups] == pytest.approx([6.4, 6.4, 12.8, 12.8])
    assert [group["always_adapt"] for group in groups] == [True, False, True, False]
    assert [group["weight_decay"] for group in groups] == [0.5, 0, 0.5, 0]


def test_ten_steps_of_lars_are_those_of_the_released_linear_probe():
    problem, (case,) = (json.loads(LARS.read_text())[name] for name in ("problem", "cases"))
    weights = {}
    for i, (name, shape) in enumerate(problem["parameters"]):
        drawn = np.random.RandomState(80000 + i).standard_normal(np.prod(shape)).reshape(shape)
        start = np.float32((name == "norm.weight") + 0.5 * drawn) * (name != "zero.weight")
        weights[name] = torch.nn.Parameter(torch.from_numpy(start).double())
    settings = {"weight_decay": 0.0, "lr": 6.4, "base_rate": 6.4}
    groups = [{"params": [p], "names": [n], "always_adapt": p.ndim > 1, **settings} for n, p in weights.items()]
    optimizer = optim.build(OptimizerOptions(name="lars"), groups, 6.4)
    for step, expected in enumerate(case["steps_float64"]):
        for i, weight in enumerate(weights.values()):
            drawn = np.random.RandomState(81000 + 100 * step + i).standard_normal(weight.numel())
            weight.grad = torch.from_numpy(np.float32(problem["scales"][step] * drawn)).double().view_as(weight)
        optimizer.step()
        for name, weight in weights.items():
            np.testing.assert_allclose(weight.detach().reshape(-1), expected["values"][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("one_try", [True, False])
def test_crops_are_inside_and_one_try_reaches_beyond_what_fits(one_try):
    source = np.random.default_rng(0)
    boxes = np.array([crop_box(source, 300, 100, one_try=one_try) for _ in range(500)])
    assert (boxes[:, 0] + boxes[:, 2] <= 300).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 100).all()
    assert boxes.min() >= 0
    ratios = boxes[:, 2] / boxes[:, 3]
    assert (ratios.max() > 1.4) == one_try  # torchvision never leaves 3/4 to 4/3; cut to the image, MAE's does


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), counts=(("train", 10), ("val", 2)))


SHORT = ("--epochs", "3", "--batch-size", "9", "--warmup-epochs", "1", "--checkpoint-every", "100")


def summary(where, recipe):
    return json.loads(next(where.glob(f"{recipe}-*/finished.json")).read_text())


def test_linear_trains_on_crops_and_leaves_the_encoder_as_it_was(images, tmp_path, caplog):
    asked = ask("linear", ENCODERS[:1], images, tmp_path, *SHORT, "--evaluate-every", "2")
    evaluate_all(asked)
    assert "stays near its initial weights: on few images take --optimizer sgd" in caplog.text
    found = summary(tmp_path, "linear")
    assert {"top1", "top5", "top1_low", "top1_high", "top1_best"} == found["metrics"].keys()
    assert found["row"]["epoch"] == "last"
    assert found["row"]["learning_rate"] == pytest.approx(0.1 * 9 / 256)
    lines = [json.loads(line) for line in next(tmp_path.glob("linear-*/metrics.jsonl")).read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "val"] == [6, 9]
    checkpoint = next(tmp_path.glob("linear-*/checkpoints/00000009"))
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 30_000  # the head alone
    encoder = load_encoder(ENCODERS[0], image_size=64)
    config = for_encoder(LinearConfig(**{**vars(asked.config), "epochs": 2}), encoder)
    evaluate_one("linear", encoder, config, open_labelled(config), tmp_path / "other", tmp_path / "features")
    assert weights_digest(encoder.backbone.net.state_dict()) == encoder.digest


def test_sweep_finds_a_head_on_what_it_holds_out(images, tmp_path):
    more = ["--rates", "0.001", "0.3", "--augment", "none", "--layers", "2", "-1"]
    evaluate_all(ask("sweep", ENCODERS[2:], images, tmp_path, *SHORT[:-2], "--epochs", "20", *more))
    found = summary(tmp_path, "sweep")
    assert found["recipe"] == "sweep-cached"
    cells = json.loads(next(tmp_path.glob("sweep-*/grid.json")).read_text())
    assert len(cells) == 2 * 2 * 2
    best = max(cells, key=lambda cell: cell["top1_held_out"])
    assert found["metrics"]["top1_held_out"] == best["top1_held_out"]
    assert found["row"]["learning_rate"] == pytest.approx(best["rate"] * 9 / 256)
    assert found["row"]["selection_set"].startswith("3 of 30 training images")
    assert found["layers"].keys() == {f"layer{k}-{token}-after" for k in (2, 6) for token in ("cls", "mean")}
    assert found["metrics"]["top1"] == 100  # a class is a colour


def test_attentive_reads_the_cells_of_a_map(images, tmp_path):
    evaluate_all(ask("attentive", ENCODERS[1:2], images, tmp_path, *SHORT, "--augment", "none", "--queries", "8"))
    found = summary(tmp_path, "attentive")
    assert (found["recipe"], found["row"]["token"]) == ("attentive-cached", "cells of the map")
    evaluate_all(
        ask("attentive", ENCODERS[2:], images, tmp_path / "b", *SHORT[:1], "1", *SHORT[2:4], "--warmup-epochs", "0")
    )
    found = summary(tmp_path / "b", "attentive")
    assert (found["recipe"], found["row"]["token"], found["row"]["final_norm"]) == ("attentive", "patches", True)
