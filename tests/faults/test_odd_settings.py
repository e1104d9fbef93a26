"""F02: every setting of every task is given every odd value that people and scripts give: it is refused by name, or the
run ends in one of our errors or well. Exit code 1 with a traceback is neither."""

import dataclasses
import importlib
import math
import random

import numpy as np
import pytest
from PIL import Image

from engine import config
from engine.errors import ConfigError
from engine.explain import explain
from pretrain.recipes import RECIPES as PRETRAINING
from pretrain.train import train

NUMBERS = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 1e-320, 1e30]
WHOLE = [-1, 0, 1, 7, 2**31 - 1, 2**63, 10**30]
TEXTS = ["", "a/b", "\0", "../x", "x" * 5000, "\udcff", "none"]
CODES = {2, 3, 4, 5, 6}


def odd_values(value):
    """Values of the setting's own type, as a command line or a config.json can give it, that it may not be made for."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, tuple):
        one = value[0] if value and not isinstance(value[0], tuple) else 0.0
        return [(), *(tuple(each for _ in value) for each in odd_values(one))]
    return {float: NUMBERS, int: WHOLE, str: TEXTS, type(None): [-1, 0, 1, 1e30, math.nan, "x"]}.get(type(value), [])


def cases(group, place=()):
    """(setting, odd value, the configuration with it), for every setting at any depth."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        inner = cases(value, (*place, field.name)) if dataclasses.is_dataclass(value) else None
        if inner is None:
            inner = ((".".join((*place, field.name)), odd, odd) for odd in odd_values(value))
        yield from (
            (
                name,
                odd,
                dataclasses.replace(group, **{field.name: changed}) if not place else _with(group, field, changed),
            )
            for name, odd, changed in inner
        )


def _with(group, field, value):
    return dataclasses.replace(group, **{field.name: value})


@pytest.mark.parametrize("package", ["pretrain", "classification", "detection", "segmentation"])
def test_an_odd_setting_is_refused_by_name_or_can_be_stored(package):
    recipes = importlib.import_module(f"{package}.recipes").RECIPES
    number = 0
    for name, odd, changed in cases(recipes["demo"]()):
        number += 1
        try:
            config.check(changed)
        except ConfigError as error:
            assert len(str(error)) < 10000
            continue
        except Exception as error:
            pytest.fail(f"{name} = {odd!r}: {type(error).__name__}: {error}")
        assert config.from_dict(type(changed), config.to_dict(changed)) is not None
    assert number > 200


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_setting_may_be_infinite_or_no_number(value):
    base = PRETRAINING["demo"]()
    rate = dataclasses.replace(base.optimizer, base_learning_rate=value)
    with pytest.raises(ConfigError, match=r"optimizer.base_learning_rate is (inf|-inf|nan); allowed: a finite number"):
        config.check(dataclasses.replace(base, optimizer=rate))
    betas = dataclasses.replace(base.optimizer, betas=(0.9, value))
    with pytest.raises(ConfigError, match=r"optimizer\.betas is"):
        config.check(dataclasses.replace(base, optimizer=betas))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_a_run_with_an_odd_setting_ends_well_or_in_one_of_our_errors(images, tmp_path):
    demo = PRETRAINING["demo"](model="test_resnet")
    data = dataclasses.replace(demo.data, root=str(images), num_workers=0)
    base = dataclasses.replace(demo, epochs=1, batch_size=4, precision="float32", data=data)
    slow = {"compile", "data.num_workers", "epochs"}  # not odd, only long
    chosen = [case for case in cases(base) if case[0] not in slow]
    always = [case for case in chosen if case[0] in ("data.crop_ratio", "seed", "image_size") and case[1] != -1]
    for i, (name, odd, changed) in enumerate([*always, *random.Random(0).sample(chosen, 8)]):
        try:
            train(changed, tmp_path / str(i))
        except Exception as error:
            code = getattr(explain(error), "exit_code", None)
            assert code in CODES, f"{name} = {odd!r}: {type(error).__name__}: {error}"
