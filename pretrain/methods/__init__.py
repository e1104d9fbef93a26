"""The pre-training methods, one file each. METHODS lists them; recipes, commands, benchmarks, tables derive from it."""

import importlib
import os
from collections.abc import Sequence

from engine.errors import ConfigError
from pretrain.methods import a2mim, simmim
from pretrain.methods.method import Method

VARIABLE = "MIM_METHODS"
"""Environment variable that names modules with further methods, separated by commas; each has a METHOD."""


def _outside() -> Sequence[Method]:
    methods = []
    for module in filter(None, os.environ.get(VARIABLE, "").split(",")):
        try:
            method = importlib.import_module(module.strip()).METHOD
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{VARIABLE}: {module.strip()!r} is no module with a METHOD ({error})") from error
        if not isinstance(method, Method):
            raise ConfigError(f"{VARIABLE}: METHOD of {module.strip()!r} is no pretrain.methods.method.Method")
        methods.append(method)
    return methods


METHODS: tuple[Method, ...] = (simmim.METHOD, a2mim.METHOD, *_outside())
"""In the order of tables."""


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise ConfigError(f"no method is called {name!r}; methods: {', '.join(method.name for method in METHODS)}")


def method_order(name: str) -> int:
    """Place of a method in tables and figures."""
    return METHODS.index(find_method(name))
