"""Layer decay and weight decay are MMSegmentation's own, parameter by parameter."""

import pytest
from mmseg.engine.optimizers.layer_decay_optimizer_constructor import get_layer_id_for_vit, get_stage_id_for_convnext

from segmentation.config import OptimizerConfig
from segmentation.mmseg_adapter import build_segmentor
from segmentation.optimizer import parameter_groups
from tests.segmentation.test_adapter import small

pytestmark = pytest.mark.mmseg
ENCODER = "backbone.encoder.net."


def rates_and_decays(segmentor, options, rate=1.0):
    groups = parameter_groups(segmentor, options, rate)
    assert all(group["lr"] == group["base_rate"] for group in groups)
    return {
        name: (group["lr"], group["weight_decay"])
        for group in groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }


def test_layer_decay_of_a_vit_is_mmsegmentations():
    segmentor = build_segmentor(small("deit_s"))
    options = OptimizerConfig(layer_decay=0.65, weight_decay=0.05, no_decay="one_dimensional")
    found = rates_and_decays(segmentor, options)
    num_layers = 12 + 2  # what LearningRateDecayOptimizerConstructor makes of num_layers=12
    for name, (rate, _) in found.items():
        if not name.startswith(ENCODER):
            assert rate == 1.0
            continue
        theirs = "backbone." + name.removeprefix(ENCODER).replace("blocks.", "layers.")
        layer = get_layer_id_for_vit(theirs, num_layers)
        assert rate == pytest.approx(0.65 ** (num_layers - layer - 1)), name
    assert found[f"{ENCODER}pos_embed"] == (pytest.approx(0.65**13), 0.0)
    assert found[f"{ENCODER}blocks.11.mlp.fc2.weight"] == (pytest.approx(0.65), 0.05)


@pytest.mark.parametrize(("model", "num_layers"), [("convnext_t", 6), ("test_convnext", 12)])
def test_stage_wise_decay_of_a_convnext_is_mmsegmentations(model, num_layers):
    segmentor = build_segmentor(small(model))
    found = rates_and_decays(segmentor, OptimizerConfig(layer_decay=0.9, stage_layers=num_layers))
    for name, (rate, _) in found.items():
        if name.startswith(ENCODER):
            parts = name.removeprefix(ENCODER).split(".")
            theirs = "backbone.downsample_layers.0"
            if parts[0] == "stages" and parts[2] == "blocks":
                theirs = f"backbone.stages.{parts[1]}.{parts[3]}"
            stage = get_stage_id_for_convnext(theirs, num_layers + 2)
            assert rate == pytest.approx(0.9 ** (num_layers + 2 - stage - 1)), name
        else:
            assert rate == 1.0


def test_weight_decay_rules():
    segmentor = build_segmentor(small("swin_t"))
    table, bias = "layers.0.blocks.0.attn.relative_position_bias_table", "layers.0.blocks.0.mlp.fc1.bias"
    expected = {  # rule: weight decay of the norm, the table, the bias, a weight, the head's norm
        "none": (1.0, 1.0, 1.0, 1.0, 1.0),
        "norms": (0.0, 0.0, 1.0, 1.0, 1.0),
        "one_dimensional": (0.0, 0.0, 0.0, 1.0, 0.0),
    }
    for rule, decays in expected.items():
        found = rates_and_decays(segmentor, OptimizerConfig(weight_decay=1.0, no_decay=rule))
        names = [f"{ENCODER}layers.0.blocks.0.norm1.weight", *(ENCODER + name for name in (table, bias))]
        names += [f"{ENCODER}layers.0.blocks.0.mlp.fc1.weight", "decode_head.bottleneck.bn.weight"]
        assert tuple(found[name][1] for name in names) == decays, rule


def test_all_trainable_parameters_are_in_exactly_one_group():
    config = small("test_vit")
    segmentor = build_segmentor(config)
    groups = parameter_groups(segmentor, config.optimizer, config.learning_rate)
    inside = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = [id(parameter) for parameter in segmentor.parameters() if parameter.requires_grad]
    assert len(inside) == len(set(inside))
    assert set(inside) == set(trainable)
