"""The parts of kubernetes_asyncio that we use: configuration, authentication, TLS.

One rule: its models stay outside. Importing the whole package costs 2.5 s and 70 MB in every process on every node, for
classes that we never touch; so these modules are loaded past the packages' own ``__init__``, which is left as it was.
"""

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_PACKAGES = ("kubernetes_asyncio", "kubernetes_asyncio.client")


def _load() -> tuple[Any, Any, Any]:
    hollow: list[str] = []
    try:
        for name in _PACKAGES:
            if name not in sys.modules:
                sys.modules[name] = _hollow(name)
                hollow.append(name)
        configuration = importlib.import_module("kubernetes_asyncio.client.configuration")
        client: Any = sys.modules["kubernetes_asyncio.client"]
        if "kubernetes_asyncio.client" in hollow:
            client.Configuration = configuration.Configuration
            client.ApiClient = None  # kube_config wants the name, for calls that we never make
        rest = importlib.import_module("kubernetes_asyncio.client.rest")
        return configuration, rest, importlib.import_module("kubernetes_asyncio.config")
    finally:
        for name in hollow:  # whoever imports the package later gets it whole
            del sys.modules[name]


def _hollow(name: str) -> ModuleType:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"{name} is not installed; install hami-kit with its dependencies")
    return module_from_spec(spec)


_configuration, _rest, config = _load()
Configuration: Any = _configuration.Configuration
RestClient: Any = _rest.RESTClientObject
