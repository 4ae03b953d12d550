"""What one image is asked to be: settings, merged from their sources, and the plan they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.plan import FIELDS, Plan, needs_of
from dit_tools.jobs.options import has_scale, takes_scale, without_scale
from dit_tools.methods.caching import PRESETS
from dit_tools.models.cache_presets import resolve_preset
from dit_tools.models.model import Defaults

DEFAULT_MODEL = "emoji"
_OUTSIDE_PIXELS = ("seed", "num_images", "device", "offload", "vae_slicing", "allow_pickle")


@dataclass(frozen=True)
class Settings:
    """Every option of an image but its prompt; None leaves the choice to the model."""

    negative_prompt: str = ""
    model: str = DEFAULT_MODEL
    seed: str = "0"
    num_images: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    schedule: str | None = None
    solver: str | None = None
    guidance: str | None = None
    noise: str = "philox"
    cache: str = "none"
    calibration: str | None = None
    min_psnr: float | None = None
    attention: str = "none"
    tokens: str = "none"
    highres: str = "none"
    combine: str = "none"
    second_model: str | None = None
    second_prompt: str | None = None
    embedded_guidance: float | None = None
    max_tokens: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    lora: tuple[str, ...] = ()
    offload: str = "none"
    vae_tiling: bool = False
    vae_slicing: bool = False
    allow_pickle: bool = False
    base: str | None = None
    transparent: bool = False
    background: str | None = None
    format: str | None = None
    quality: int | None = None

    def pixel_options(self) -> dict[str, Any]:
        """The options that decide the file that is written, for the manifest."""
        return {k: v for k, v in asdict(self).items() if k not in _OUTSIDE_PIXELS}

    @cached_property
    def methods(self) -> Mapping[str, Any]:
        """Plan field -> the method that was named for it, parsed once; a word for a cache is left out.

        What such a word stands for depends on the model's steps (``cache_of``).
        """
        given = {name: getattr(self, name) for name in FIELDS}
        if self.cache.strip() in PRESETS:
            del given["cache"]
        return {name: spec.parse(FIELDS[name], text) for name, text in given.items() if text is not None}

    def needs(self) -> frozenset[str]:
        """What the chosen methods need of the network, known before a model is loaded."""
        chosen = [*self.methods.values(), cache_of(self, self.steps or USUAL_STEPS)]
        return frozenset[str]().union(*(needs_of(method) for method in chosen))

    def check(self, defaults: Defaults | None = None, guidance: str = "none", by: str = "") -> Plan:
        """The plan, as far as it is known before the model is loaded.

        ``by``: the option that takes the steps in place of a solver, such as ``--method flowedit``.
        Raises UsageError for methods that cannot run together, or not with that. Where the
        ``defaults`` of the model are not known, what the user has not named is left to ``Plan``.
        """
        if by:
            Plan(1, combine=self.methods["combine"], highres=self.methods["highres"]).check_runs(by)
        return plan_of(self, defaults, guidance)


USUAL_STEPS = 20  # for words that stand for a cache, where the model's own steps are not known


def merge_settings(layers: Iterable[Mapping[str, Any]]) -> Settings:
    """Settings from layers of read options, the later the stronger.

    A guidance scale replaces that of a weaker layer whichever way the two are spelt. Raises
    UsageError for options that exclude each other.
    """
    made: dict[str, Any] = {}
    for layer in layers:
        _settle_scale(made, layer)
        if "," in layer.get("seed", "") or ".." in layer.get("seed", ""):
            made.pop("num_images", None)  # a list says how many
        made |= layer
    if made.get("transparent") and made.get("background"):
        raise UsageError("--transparent and --background exclude each other", "give one of them")
    return Settings(**made)


def _settle_scale(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    guidance = above.get("guidance")
    if guidance is not None and (has_scale(guidance) or not takes_scale(guidance)):
        below.pop("cfg_scale", None)
    if above.get("cfg_scale") is None or guidance is not None or "guidance" not in below:
        return
    below["guidance"] = without_scale(below["guidance"])
    if not takes_scale(below["guidance"]):
        del below["guidance"]  # a scale asks for guidance, and the stronger layer wins


def guidance_of(settings: Settings, default: str, default_scale: float) -> Any:
    """The guidance method with its scale: the user's, else the model's.

    A guidance-distilled model has the default scale 1, which switches guidance off; where the user
    names a method for such a model, the method's own default scale stands.
    """
    text = settings.guidance or default
    method = settings.methods.get("guidance") or spec.parse("guidance", default)
    if has_scale(text) or not hasattr(method, "scale"):
        return method
    scale = settings.cfg_scale
    if scale is None and (settings.guidance is None or default_scale != 1):
        scale = default_scale
    return method if scale is None else replace(method, scale=float(scale))


def cache_of(settings: Settings, steps: int) -> Any:
    """The cache: a word such as ``fast`` means what was measured on the model.

    ``--calibration`` becomes its parameter. Raises UsageError for a cache that takes none.
    """
    cache = settings.methods.get("cache")
    if cache is None:
        cache = spec.parse("caching", resolve_preset(settings.cache, settings.model, steps, PRESETS))
    if settings.calibration is None:
        return cache
    shown = f"--calibration {settings.calibration}"
    if cache.calibrated_by is None:
        raise UsageError(f"{shown}: --cache {cache.info.name} takes none", "leave it out")
    if cache.calibration != "auto":
        raise UsageError(f"{shown}: --cache names one too", "give one of them")
    return replace(cache, calibration=settings.calibration)


def plan_of(settings: Settings, defaults: Defaults | None, guidance: str) -> Plan:
    """The plan of an image; ``guidance`` is the model's own guidance spec without scale.

    Raises UsageError for methods that cannot run together.
    """
    chosen = dict(settings.methods)
    combine = chosen["combine"]
    _check_seconds(settings, combine)
    if "solver" not in chosen and combine.own_solver:
        chosen["solver"] = spec.parse("solvers", combine.own_solver)
    steps = settings.steps or USUAL_STEPS
    if defaults is not None:
        steps = settings.steps or defaults.steps
        for name in ("schedule", "solver"):
            chosen.setdefault(name, spec.parse(FIELDS[name], getattr(defaults, name)))
    if defaults is not None or "guidance" in chosen or settings.cfg_scale is not None:
        usual = "cfg" if defaults is None and guidance == "none" else guidance
        chosen["guidance"] = guidance_of(settings, usual, defaults.cfg if defaults else 1.0)
    made = Plan(steps, **(chosen | {"cache": cache_of(settings, steps)}))
    made.compose()
    return made


def _check_seconds(settings: Settings, combine: Any) -> None:
    """Raise UsageError when a second model or prompt is missing, or has no use."""
    given = {"model": settings.second_model, "prompt": settings.second_prompt}
    for word, value in given.items():
        if value is not None and word not in combine.takes:
            name = combine.info.name
            alone = f"--second-{word}: nothing is combined"
            message = alone if name == "none" else f"--second-{word}: --combine {name} has no use"
            raise UsageError(message, "give --combine, or leave it out")
    if combine.takes and not any(given[word] is not None for word in combine.takes):
        needed = " or ".join(f"--second-{word}" for word in sorted(combine.takes))
        raise UsageError(f"--combine {combine.info.name}: with what?", f"give {needed}")


def size_of(settings: Settings, default: int) -> tuple[int, int]:
    """Height and width in pixels; a side that is not given is the model's default."""
    return settings.height or default, settings.width or default


def check_offers(settings: Settings, model: Any) -> None:
    """Raise UnsupportedError for an option that has no effect on this model."""
    config = getattr(model.family, "transformer", {})
    given = settings.embedded_guidance
    if given is not None and model.pipeline is None and not config.get("guidance_embeds"):
        message = f"--embedded-guidance {given:g}: {model.name} takes no guidance as an input"
        raise UnsupportedError(message, "use --cfg-scale")
    asked = "--transparent" if settings.transparent else "--background"
    if (settings.transparent or settings.background) and not model.alpha:
        message = f"{asked}: {model.name} was not trained for transparency"
        raise UnsupportedError(message, "use a model with alpha, such as emoji")
