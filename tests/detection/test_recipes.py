"""The published values, and that every recipe can be run."""

from dataclasses import replace

import pytest

from detection.config import DetectionConfig
from detection.recipes import RECIPES, recipe_for, with_framework
from detection.train import train
from engine.config import check
from tests.detection.folders import SMALL_HEADS, make_coco, needs_detectron2

SHORT_SIDES = (640, 672, 704, 736, 768, 800)
PUBLISHED = ["mask-rcnn-c4-1x", "mask-rcnn-c4-2x", "mask-rcnn-fpn-1x", "mask-rcnn-fpn-2x", "retinanet-fpn-1x",
             "retinanet-fpn-2x"]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_moco_protocol_has_its_published_values(name):
    config = RECIPES[name]()
    twice = name.endswith("2x")
    assert config.model == "r50"
    assert config.framework == "detectron2"
    assert name.startswith(config.detector)
    assert (config.iterations, config.batch_size) == (180_000 if twice else 90_000, 16)
    assert config.schedule.milestones == ((120_000, 160_000) if twice else (60_000, 80_000))
    assert (config.schedule.step_factor, config.schedule.warmup_iterations, config.schedule.warmup_start) == (
        (0.1, 1000, 0.001)
    )
    assert config.learning_rate == (0.01 if "retinanet" in name else 0.02)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay, optimizer.layer_decay) == ("sgd", 0.9, 1e-4, 1)
    assert config.data.short_sides == SHORT_SIDES
    assert config.image_size == 800
    assert config.data.max_side == (1200 if "c4" in name else 1333)
    assert config.precise_bn == 200
    heads = config.heads
    assert heads.pyramid_norm == "bn"
    assert heads.norm == "none"
    if "c4" in name:
        assert (heads.rpn_pre_nms, heads.rpn_post_nms) == ((12_000, 6000), (2000, 1000))
    else:
        assert (heads.rpn_pre_nms, heads.rpn_post_nms) == ((2000, 1000), (1000, 1000))
        assert (heads.box_convs, heads.box_fcs, heads.box_features, heads.mask_convs) == (0, 2, 1024, 4)


def test_sparks_recipe_has_its_published_values():
    config = RECIPES["mask-rcnn-fpn-1x-spark"]()
    optimizer, heads, schedule = config.optimizer, config.heads, config.schedule
    assert (optimizer.name, optimizer.base_learning_rate, optimizer.layer_decay) == ("adamw", 2.5e-4, 0.6)
    assert (optimizer.weight_decay, config.batch_size, config.iterations) == (1e-4, 16, 90_000)
    assert (schedule.milestones, schedule.step_factor) == ((60_000, 80_000), 0.25)
    assert (schedule.warmup_iterations, schedule.warmup_start) == (1000, 0.01)
    assert (heads.box_convs, heads.box_fcs, heads.mask_convs, heads.norm) == (4, 1, 4, "bn")
    assert config.data.short_sides == tuple(range(480, 897, 32))


def test_the_vit_recipe_has_its_published_values():
    config = RECIPES["mask-rcnn-vit-1x"]()
    optimizer, heads = config.optimizer, config.heads
    assert (optimizer.name, optimizer.base_learning_rate, optimizer.weight_decay) == ("adamw", 3e-4, 0.05)
    assert config.drop_path == 0.2
    assert (heads.box_convs, heads.box_fcs, heads.box_loss) == (4, 1, "giou")
    assert [milestone / config.iterations for milestone in config.schedule.milestones] == [9 / 12, 11 / 12]
    assert config.schedule.warmup_iterations == 500
    assert config.data.short_sides == tuple(range(480, 801, 32))


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("r50", "mask-rcnn-c4-2x"),
        ("r200", "mask-rcnn-c4-2x"),
        ("vit_b", "mask-rcnn-vit-1x"),
        ("deit_s", "mask-rcnn-vit-1x"),
        ("convnext_s", "mask-rcnn-fpn-1x-spark"),
        ("swin_b", "mask-rcnn-fpn-1x-spark"),
        ("regnety_002", "mask-rcnn-fpn-1x-spark"),
    ],
)
def test_each_model_has_a_published_recipe(model, recipe):
    assert recipe_for(model) == recipe
    assert RECIPES[recipe](model=model).model == model


def test_every_recipe_says_its_source_what_to_expect_and_its_cost():
    for name, recipe in RECIPES.items():
        text = " ".join(recipe.__doc__.split())
        assert "Source: " in text, name
        assert "Expected" in text, name
        assert "Cost: " in text, name


@pytest.mark.parametrize("name", [name for name in RECIPES if "c4" not in name])
def test_every_recipe_but_c4_is_a_valid_one_in_torchvision(name):
    config = replace(RECIPES[name](), init="none", data=replace(RECIPES[name]().data, root="coco"))
    moved = with_framework(config, "torchvision")
    check(moved)
    assert replace(moved, framework=config.framework, heads=config.heads) == config
    assert replace(moved.heads, box_loss=config.heads.box_loss) == config.heads
    assert with_framework(config, "detectron2") == replace(config, framework="detectron2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


def reduced(name: str, root, framework: str) -> DetectionConfig:
    """A recipe at a size that trains in a second: its optimizer, schedule, detector, norms and losses stay."""
    config = RECIPES[name]("test_vit" if "vit" in name else "test_resnet")
    heads = config.heads
    small = replace(
        SMALL_HEADS,
        pyramid_norm=heads.pyramid_norm,
        rpn_convs=heads.rpn_convs,
        box_convs=min(heads.box_convs, 1),
        box_fcs=heads.box_fcs,
        norm=heads.norm,
        box_loss=heads.box_loss if framework == "detectron2" else "l1",
    )
    return replace(
        config,
        init="none",
        framework=framework,
        iterations=2,
        batch_size=4,
        image_size=48,
        precision="float32",
        precise_bn=min(config.precise_bn, 1),
        num_panels=1,
        data=replace(
            config.data, root=str(root), num_workers=0, short_sides=(48,), max_side=64, square=config.data.square and 64
        ),
        heads=small,
        optimizer=replace(config.optimizer, base_batch=4),
        schedule=replace(config.schedule, milestones=config.schedule.milestones and (1,), warmup_iterations=0),
    )


@pytest.mark.parametrize("name", [name for name in RECIPES if "c4" not in name])
def test_every_recipe_runs_in_torchvision_at_reduced_size(name, root, tmp_path):
    config = reduced(name, root, "torchvision")
    check(config)
    metrics = train(config, tmp_path / "run")
    assert 0 <= metrics["box_AP"] <= 100
    assert ("mask_AP" in metrics) == config.has_masks


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_detectron2) for name in RECIPES])
def test_every_recipe_runs_in_detectron2_at_reduced_size(name, root, tmp_path):
    metrics = train(reduced(name, root, "detectron2"), tmp_path / "run")
    assert 0 <= metrics["box_AP"] <= 100
