"""A dumped configuration is run by MMSegmentation's own tools."""

import json
from dataclasses import replace
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from backbones import build_backbone, save_backbone
from segmentation.__main__ import main
from segmentation.dump import dump_config
from segmentation.mmseg_adapter import build_segmentor
from segmentation.optimizer import SuiteOptimizerConstructor, parameter_groups
from segmentation.recipes import RECIPES
from tests.helpers import ROOT, run_python
from tests.segmentation.folders import tiny_config
from tests.segmentation.test_adapter import small

pytestmark = pytest.mark.mmseg
TRAIN = Path(mmseg.__file__).parent / ".mim" / "tools" / "train.py"


def test_mmsegmentations_train_tool_runs_a_dumped_configuration(root, tmp_path):
    save_backbone(tmp_path / "encoder.safetensors", build_backbone("test_resnet", image_size=48), {})
    config = tiny_config(root, iterations=2, evaluate_every=2, checkpoint_every=2, precision="float32")
    config = replace(
        config,
        init=str(tmp_path / "encoder.safetensors"),
        schedule=replace(config.schedule, warmup_iterations=1),
    )
    dump_config(config, tmp_path / "dumped.py")
    command = [TRAIN, tmp_path / "dumped.py", "--work-dir", tmp_path / "work"]
    done = run_python("-W", "ignore", *command, timeout=300, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr[-3000:]
    (log,) = (tmp_path / "work").glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert any("mIoU" in row for row in rows), rows
    assert (tmp_path / "work" / "iter_2.pth").is_file()


@pytest.mark.parametrize(
    ("recipe", "model"), [("upernet-160k", "convnext_s"), ("upernet-160k", "vit_b"), ("fcn-160k", "r50")]
)
def test_the_command_dumps_a_recipe(recipe, model, tmp_path, capsys):
    arguments = [recipe, "--model", model, "--dump-config", str(tmp_path / "out.py")]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--data.root", "/data/ADEChallengeData2016", "--init", "none"])
    assert left.value.code == 0
    assert str(tmp_path / "out.py") in capsys.readouterr().out
    config = Config.fromfile(tmp_path / "out.py", import_custom_modules=False)
    assert config.train_cfg.max_iters == 160_000
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == 150
    assert config.train_dataloader.dataset.options.root == "/data/ADEChallengeData2016"
    assert len(config.tta_pipeline[1].transforms[0]) == 6, "the scales of multi-scale testing"
    assert config.tta_model.type == "SegTTAModel"
    assert config.optim_wrapper.optimizer.lr == RECIPES[recipe](model).learning_rate
    assert not (ROOT / "out").exists()


def test_weights_named_from_here_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small("test_resnet", init="weights.safetensors")
    dump_config(replace(config, data=replace(config.data, root="/data")), tmp_path / "out.py")
    dumped = Config.fromfile(tmp_path / "out.py", import_custom_modules=False)
    assert dumped.model.backbone.init == str(tmp_path / "weights.safetensors")


def test_a_dump_without_a_file_name_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        main(["demo", "--dump-config"])
    assert left.value.code == 2
    assert "needs the name of a Python file" in capsys.readouterr().err


def test_the_runner_gets_the_same_parameter_groups(tmp_path):
    config = small("test_vit")
    config = replace(config, optimizer=replace(config.optimizer, layer_decay=0.7))
    dump_config(replace(config, data=replace(config.data, root="/data")), tmp_path / "out.py")
    dumped = Config.fromfile(tmp_path / "out.py", import_custom_modules=False).optim_wrapper
    segmentor = build_segmentor(config)
    constructor = SuiteOptimizerConstructor(
        {k: v for k, v in dumped.items() if k not in ("constructor", "paramwise_cfg", "type", "dtype")},
        dumped.paramwise_cfg,
    )
    theirs = constructor(segmentor).optimizer.param_groups
    ours = parameter_groups(segmentor, config.optimizer, config.learning_rate)
    assert [(g["names"], g["lr"], g["weight_decay"]) for g in theirs] == [
        (g["names"], g["lr"], g["weight_decay"]) for g in ours
    ]
