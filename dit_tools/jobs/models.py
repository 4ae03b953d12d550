"""Models of a run: known as far as possible without loading, loaded once, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError, UnsupportedError, UsageError
from dit_tools.core.reading import Table, read_json
from dit_tools.core.size import Size
from dit_tools.jobs.expand import Job
from dit_tools.jobs.settings import Settings, plan_of, size_of
from dit_tools.models.family import Family
from dit_tools.models.model import Defaults, Model
from dit_tools.sampling.sampler import Sampler

Load = Callable[..., Model]
"""``load(reference, wishes) -> Model``: ``models.load.load``, or a stand-in of a test."""


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model before it is loaded."""

    name: str
    revision: str
    defaults: Defaults | None = None  # None: only the loaded model says
    family: Family | None = None  # None: sizes are checked when it is loaded

    @property
    def guidance(self) -> str:
        """The model's own guidance spec, without scale."""
        return self.family.default_guidance if self.family is not None else "cfg"

    def check_size(self, settings: Settings) -> None:
        """Raise UsageError for a size that the model cannot make, where that is known."""
        if self.family is not None and self.defaults is not None:
            self.family.latent_shape(Size(*size_of(settings, self.defaults.size)))


def look_up(settings: Settings) -> KnownModel:
    """Find a model without loading it.

    Raises ModelError when there is none of that name, UsageError for a --base without use.
    """
    from dit_tools.models.loading.resolve import resolve

    found = resolve(settings.model, allow_pickle=settings.allow_pickle)
    if settings.base is not None and found.kind != "file":
        message = f"--base {settings.base}: {found.name} is whole"
        raise UsageError(message, "--base is for a single file of weights")
    family = _configured(found.path) if found.kind != "file" else None
    defaults = _stated_defaults(found.path, family)
    return KnownModel(found.name, found.revision, defaults, family)


def look_up_offline(settings: Settings) -> KnownModel:
    """``look_up`` that downloads nothing: of a model still on the hub only the name is known."""
    from dit_tools.models.loading.resolve import HUB_ID, cached

    reference = settings.model
    hub = HUB_ID.fullmatch(reference)
    if hub and not Path(reference).expanduser().exists() and not reference.startswith((".", "~")):
        if cached(hub["id"], hub["revision"]) is None:
            return KnownModel(reference, "")
    return look_up(settings)


def _configured(path: Path) -> Family | None:
    """The family of a folder, from its configs alone; None where they do not say."""
    from dit_tools.models.families import family_class

    def read(name: str) -> dict[str, Any]:
        return read_json(path / name, schema=Table())

    try:
        made = family_class(read("model_index.json")["_class_name"])
        parts = ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json")
        return made(*(read(part) for part in parts)) if made else None
    except (OSError, ValueError, LookupError, TypeError, DitError):
        return None  # what is wrong is told, with its remedy, when it is loaded


def _stated_defaults(path: Path, family: Family | None) -> Defaults | None:
    from dit_tools.models.loading import from_pipeline
    from dit_tools.models.loading.onnx_loader import DIT_JSON

    facts = path / "dit.json"
    try:
        if facts.is_file():
            return Defaults.of_facts(read_json(facts, schema=DIT_JSON))
        return from_pipeline.defaults(family) if family else None
    except (OSError, ValueError, LookupError, TypeError, DitError):
        return None


def load_key(settings: Settings) -> tuple[Any, ...]:
    """What decides how a model is loaded, apart from the image's size and the methods' needs."""
    s = settings
    placing = (s.device, s.dtype, s.backend, s.offload)
    files = (s.model, s.second_model, s.lora, s.allow_pickle, s.base)
    return (*files, *placing, s.vae_tiling, s.vae_slicing)


class Loader:
    """Gives each job its model; one model is in memory at a time.

    Methods' needs are those of all jobs of one model together, so that a sweep over caches runs on
    one backend and its images can be compared. A torch model serves every size.
    """

    def __init__(self, jobs: Sequence[Job], load: Load | None = None):
        self._load = load
        self._needs: dict[tuple[Any, ...], frozenset[str]] = {}
        for settings in dict.fromkeys(job.settings for job in jobs):
            key = load_key(settings)
            self._needs[key] = self._needs.get(key, frozenset()) | settings.needs()
        self._held: tuple[tuple[Any, ...], tuple[int, int] | None, Model] | None = None
        self._broken: dict[tuple[Any, ...], DitError] = {}

    def model(self, settings: Settings) -> Model:
        """The model of these settings. Raises what ``models.load.load`` raises."""
        key, size = load_key(settings), _wished_size(settings)
        if (key, size) in self._broken:  # told once more, not tried once more
            raise self._broken[key, size]
        if self._held is not None:
            held_key, held_size, model = self._held
            if held_key == key and (held_size == size or model.backend == "torch"):
                return model
            self._held = None  # before the next one is loaded: two may not fit
        try:
            model = self._loaded(settings, size, self._needs[key])
        except DitError as error:
            self._broken[key, size] = error
            raise
        self._held = key, size, model
        return model

    def _loaded(self, settings: Settings, size: tuple[int, int] | None, needs: frozenset[str]) -> Model:
        from dit_tools.models.loading.load import LoadOptions, load

        wishes = LoadOptions(
            device=settings.device,
            dtype=settings.dtype,
            backend=settings.backend,
            needs=needs,
            size=size,
            allow_pickle=settings.allow_pickle,
            loras=settings.lora,
            offload=None if settings.offload == "none" else settings.offload,
            vae_tiling=settings.vae_tiling,
            vae_slicing=settings.vae_slicing,
            base=settings.base,
        )
        read = self._load or load
        model = read(settings.model, wishes)
        if settings.second_model is not None:
            from dit_tools.models.compatibility import check_pair

            other = replace(wishes, backend=model.backend, loras=(), base=None)
            second = read(settings.second_model, other)
            check_pair(model, second, settings.second_model)
            model.second = second
        return model


def _wished_size(settings: Settings) -> tuple[int, int] | None:
    if settings.height is None and settings.width is None:
        return None
    # The other side of a lone one is the default of the model, which is not known here. Graphs
    # of one size serve a lone side only where it is their own, and then they are square.
    side = settings.height or settings.width or 0
    return settings.height or side, settings.width or side


def open_sampler(model: Model, settings: Settings) -> Sampler:
    """A sampler of the settings' size and plan.

    Raises UnsupportedError for a model without adapter or methods it cannot carry, UsageError for a
    size that it cannot make.
    """
    if model.pipeline is not None:
        raise UnsupportedError(
            f"--model {model.name}: its pipeline has no adapter, and only makes images",
            "choose a model of a family that dit samples itself (docs/models.md)",
        )
    plan = plan_of(settings, model.defaults, model.family.default_guidance)
    plan.check(model)
    size = size_of(settings, model.defaults.size)
    model.family.latent_shape(Size(*size))
    return Sampler(
        model,
        plan,
        size,
        seed=int(settings.seed),
        negative_prompt=settings.negative_prompt,
        embedded_guidance=settings.embedded_guidance,
        max_tokens=settings.max_tokens,
    )


def load_model(settings: Settings, needs: frozenset[str] = frozenset(), load: Load | None = None):
    """The model of the settings, on a backend that offers ``needs``."""
    from dit_tools.models.loading.load import load as usual

    def wishing(reference: str, wishes: Any) -> Model:
        return (load or usual)(reference, replace(wishes, needs=wishes.needs | needs))

    return Loader([Job(0, "", 0, settings)], wishing).model(settings)


def check_needs(model: Model, method: Any) -> None:
    """Raise UnsupportedError where the model's backend lacks what a method needs."""
    missing = method.info.needs - model.network.offers
    if missing:
        raise UnsupportedError(
            f"{method.info.flag} {method.info.name}: needs {', '.join(sorted(missing))}", "use --backend torch"
        )
