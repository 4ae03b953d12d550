"""Every family that has a builder in ``tests/support`` as a model with its conditions."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dit_tools.core.registry import CATEGORIES, get, names
from dit_tools.core.size import Size
from dit_tools.models.families import names as families
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests import support
from tests.support import chequer

chequer.install()
BUILDERS = sorted(module.name for module in pkgutil.iter_modules(support.__path__) if module.name in families())


@dataclass(frozen=True)
class Subject:
    """A tiny model and the conditions of both branches for one image."""

    model: Any
    conditions: dict[str, Any]


def hooked(subject: Subject) -> bool:
    """Whether any part of the network still carries a hook."""
    modules = subject.model.network.module.modules()
    found = (getattr(module, "_diffusers_hook", None) for module in modules)
    return any(registry.hooks for registry in found if registry)


@functools.cache
def subject_of(family: str) -> Subject:
    """The tiny model of a family, with distinct conditions for ``cond`` and ``uncond``."""
    pipe = importlib.import_module(f"tests.support.{family}").pipeline()
    model = model_from_pipeline(pipe, name=family, revision="0", device="cpu", dtype="float32")
    size = min(model.defaults.size, 4 * model.family.vae_scale * model.family.patch)  # 16 tokens
    model.defaults = replace(model.defaults, size=size)
    negative = "" if family == "dit" else "blurred"
    embedded = 3.5 if model.family.transformer.get("guidance_embeds") else None
    prompts = ConditionRequest(("1",), (negative,), Size.square(size), embedded_guidance=embedded)
    return Subject(model, model.encode(prompts))


@pytest.fixture(params=BUILDERS)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each family in turn."""
    return subject_of(request.param)


def methods(*, room: str = "", identity: bool = False) -> list[Any]:
    """Parametrization over the registered methods, of all joint categories or of one."""
    found = [(r, name, get(r, name)) for r in ([room] if room else CATEGORIES) for name in names(r)]
    return [
        pytest.param(cls, id=f"{r}-{name}") for r, name, cls in found if not identity or cls.info.identity is not None
    ]
