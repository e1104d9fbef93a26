"""Which family a network is: one answer for every module of timm, in every recipe and table."""

from typing import Any

import pytest
import timm

from backbones import PUBLISHED, BackboneError, WeightsError, WeightsFileError, family
from benchmarks.plan import recipes_of
from engine.errors import SuiteError
from pretrain.methods import find_method
from results.tables.sheets import family as heading
from segmentation.recipes import demo
from tests.helpers import run_code

BY_FAMILY = {
    "resnet": {"resnet", "resnetv2", "res2net", "resnest", "sknet"},
    "convnext": {"convnext"},
    "vit": {
        *("vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam"),
        *("naflexvit", "deit", "beit", "eva", "cait", "convit", "xcit", "deepseek_vit", "gemma4_vit", "qwen3_vit"),
    },
    "swin": {"swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"},
}
MODULES: dict[str, str] = {}  # file of timm -> one of its networks
for _name in timm.list_models():
    MODULES.setdefault(timm.model_entrypoint(_name).__module__.rpartition(".")[2], _name)

FINE_TUNING = {
    "resnet": ("rsb-a2", "mask-rcnn-fpn-1x-spark", "whole"),
    "convnext": ("convnext-ft", "mask-rcnn-fpn-1x-spark", "whole"),
    "vit": ("vit-ft", "mask-rcnn-vit-1x", "slide"),
    "swin": ("swin-ft", "mask-rcnn-fpn-1x-spark", "whole"),
    "other": ("rsb-a2", "mask-rcnn-fpn-1x-spark", "whole"),
}
HEADINGS = {"resnet": "ResNet", "convnext": "ConvNeXt", "vit": "ViT", "swin": "Swin"}


def expected(module: str) -> str:
    return next((name for name, modules in BY_FAMILY.items() if module in modules), "other")


@pytest.mark.parametrize("module", MODULES)
def test_every_recipe_and_table_gives_a_network_of_each_timm_module_the_same_family(module):
    name, wanted = MODULES[module], expected(module)
    assert family(name) == wanted
    pre_training: Any = find_method("a2mim").for_family(wanted, "r50").options  # of a network that needs no measuring
    assert (pre_training.token.stage == 0) == (wanted in ("vit", "swin"))
    fine_tuning, detector, mode = FINE_TUNING[wanted]
    assert recipes_of("classification").recipe_for(name) == ("deit-ft" if name.startswith("deit") else fine_tuning)
    assert recipes_of("detection").recipe_for(name) == detector
    assert demo(name).evaluation.mode == mode
    assert heading(name) == HEADINGS.get(wanted, heading(name))
    assert (heading(name) in HEADINGS.values()) == (wanted != "other")


def test_all_modules_named_here_exist():
    assert set().union(*BY_FAMILY.values()) <= set(MODULES)


@pytest.mark.parametrize("name", ["beitv2_large_patch16_224", "eva02_tiny_patch14_224", "deit3_small_patch16_224"])
def test_relatives_of_the_vit_are_pre_trained_and_fine_tuned_by_its_rules(name):
    """beit, eva and deit3 were pre-trained as ViTs and fine-tuned as ResNets, when each recipe looked at names."""
    assert family(name) == "vit"
    assert recipes_of("classification").recipe_for(name) in ("vit-ft", "deit-ft")


def test_the_published_names_are_answered_without_torch_or_timm():
    code = (
        "import sys, backbones; found = {n: backbones.family(n) for n in backbones.PUBLISHED};"
        "assert not {'torch', 'timm'} & set(sys.modules), 'imported'; print(sorted(set(found.values())))"
    )
    assert run_code(code).stdout.strip() == "['convnext', 'resnet', 'swin', 'vit']"
    assert {family(name) for name in ("vit_s", "deit_s")} == {"vit"}
    assert all(family(name) == PUBLISHED[name].family for name in PUBLISHED)


def test_an_unknown_name_has_no_family():
    with pytest.raises(BackboneError, match=r"nearest: .*resnet50"):
        family("resnet5")


@pytest.mark.parametrize(("error", "code"), [(BackboneError, 2), (WeightsError, 2), (WeightsFileError, 5)])
def test_errors_of_networks_and_weights_are_errors_of_the_suite(error, code):
    assert issubclass(error, SuiteError)
    assert error.exit_code == code
