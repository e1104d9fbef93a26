"""Frozen encoders beside their fine-tuning: measured on the same labels and images, told with intervals."""

from dataclasses import replace

import pytest
import torch

import pretrain.recipes
from backbones import load_encoder
from backbones.source import weights_digest
from benchmarks.plan import Stage
from benchmarks.probes import report, table
from classification.data import open_data
from classification.train import train
from evaluation.config import DataConfig, KnnConfig
from evaluation.data import open_labelled
from pretrain.build import build_model
from pretrain.train import train as pretrain_train
from tests.classification.folders import make_folder, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"), num_train=16)


def test_a_probe_reads_the_images_that_fine_tuning_reads(root):
    config = tiny_config(root, seed=3)
    config = replace(config, data=replace(config.data, train_fraction=0.25))
    data = DataConfig(root=str(root), train_fraction=0.25)
    measured = open_labelled(KnnConfig(seed=3, data=data))
    trained, validated = open_data(config)
    assert list(measured.train.paths) == list(trained.index.paths)
    assert list(measured.val.paths) == list(validated.index.paths)
    assert len(measured.train) == 12


@pytest.mark.parametrize("method", ["simmim", "a2mim"])
def test_pre_training_begins_from_the_untrained_network_that_it_is_paired_with(method):
    config = replace(pretrain.recipes.demo("test_resnet", method), seed=3)
    torch.manual_seed(config.seed)
    begun = build_model(config).encoder
    assert weights_digest(begun.net.state_dict()) == load_encoder("random:test_resnet@3").digest


def test_every_fine_tuned_share_gets_its_probes(root, tmp_path, capsys):
    first = pretrain.recipes.demo("test_resnet", "simmim")
    first = replace(first, epochs=1, batch_size=24, precision="float32", image_size=32, init="none")
    first = replace(first, data=replace(first.data, root=str(root), num_workers=0))
    tuned = tiny_config(root, epochs=1, batch_size=12, evaluate_every=1)
    few = replace(tuned.data, train_fraction=0.5)
    pretrain_train(first, tmp_path / "p")
    stages = [Stage("p", "pretrain", "demo", first)]
    for name, init in (("scratch", "none"), ("simmim", str(tmp_path / "p"))):
        config = replace(tuned, init=init, data=few)
        train(config, tmp_path / name)
        stages.append(Stage(name, "classification", "demo", config, needs=("p",) if name == "simmim" else ()))
    report(stages, tmp_path, "tiny", ("knn", "logistic"))
    said = (tmp_path / "tiny-probes.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    assert rows[0] == ["labels", "method", "fine-tuned", "k-NN, frozen", "logistic, frozen"]
    assert [row[:2] for row in rows[2:]] == [["0.5", "from scratch"], ["0.5", "SimMIM"]]
    assert all(0 <= float(cell.split()[0]) <= 100 for row in rows[2:] for cell in row[2:])
    assert "untrained network" in capsys.readouterr().out


def test_differences_have_intervals_from_three_seeds_on():
    three = {("from scratch", 1.0, "k"): {0: 50.0, 1: 52.0, 2: 51.0}, ("A2MIM", 1.0, "k"): {0: 60.0, 1: 62.5, 2: 61.0}}
    assert "61.17 ± 1.26 (+10.17 [+9.45, +10.88])" in table(three)
    one = {("from scratch", 1.0, "k"): {0: 50.0}, ("A2MIM", 1.0, "k"): {0: 60.0}}
    assert "60.00 (+10.00~)" in table(one)
