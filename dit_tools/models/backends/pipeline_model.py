"""Pipelines without an adapter: diffusers runs them itself, and dit's own methods stay outside.

``PipelineModel.accept`` says which methods of a plan such a pipeline can take: the scheduler may be
another one of diffusers, guidance may have another scale, and that is all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest, check_multiple
from dit_tools.models.model import Defaults, Model

Progress = Callable[[int, int], None]
REMEDY = "leave it out, or use a model with an adapter ('dit models list')"


class PipelineModel:
    """A diffusers text-to-image pipeline, called as it is."""

    def __init__(self, pipe: Any):
        """Raises UnsupportedError for a pipeline that makes no images from text."""
        self.pipe, self.name = pipe, type(pipe).__name__
        parameters = inspect.signature(type(pipe).__call__).parameters
        self.known = {name: p.default for name, p in parameters.items() if name != "self"}
        needed = [name for name, default in self.known.items() if default is inspect.Parameter.empty]
        others = [name for name in needed if name not in ("prompt", "kwargs", "args")]
        if "prompt" not in self.known or others:
            asks = f" (it needs {', '.join(others)})" if others else ""
            raise UnsupportedError(
                f"--model: {self.name} makes no images from text{asks}", "choose a text-to-image model"
            )

    def defaults(self) -> Defaults:
        """What the pipeline itself uses when it is told nothing; ``size`` is a good guess."""
        steps, cfg = self.known.get("num_inference_steps"), self.known.get("guidance_scale")
        return Defaults(
            steps=int(steps) if isinstance(steps, int) else 20,
            cfg=float(cfg) if isinstance(cfg, int | float) else 1.0,
            size=_size(self.pipe),
            solver="diffusers",
        )

    def accept(self, plan: Plan) -> Plan:
        """``plan`` as this pipeline runs it: its noise is always ``torch-cpu``.

        Raises UnsupportedError naming the option that it cannot take and the pipeline's class.
        """
        for option, method, names in (
            ("--cache", plan.cache, ("none",)),
            ("--attention", plan.attention, ("none",)),
            ("--tokens", plan.tokens, ("none",)),
            ("--highres", plan.highres, ("none",)),
            ("--combine", plan.combine, ("none",)),
            ("--schedule", plan.schedule, ("native",)),
            ("--solver", plan.solver, ("diffusers",)),
            ("--guidance", plan.guidance, ("none", "cfg")),
        ):
            text = spec.format(method)
            extra = [word for word in text.partition(":")[2].split(",") if word]
            if option == "--guidance" and method.info.name == "cfg":
                extra = [word for word in extra if not word.startswith("scale=")]
            if method.info.name not in names or (option == "--guidance" and extra):
                raise self.refuse(f"{option} {text}")
        self._scheduler(plan)
        return replace(plan, noise=spec.parse("noise", "torch-cpu"))

    def refuse(self, option: str) -> UnsupportedError:
        """The error for an option that this pipeline cannot take."""
        return UnsupportedError(f"{option}: {self.name} runs through diffusers itself", REMEDY)

    def pixels(
        self, request: ConditionRequest, seeds: Sequence[int], plan: Plan, progress: Progress | None = None
    ) -> Any:
        """Images (B, 3, H, W) in [0, 1], numpy float32; each depends on its own seed.

        ``progress`` is told the steps done and their total where the pipeline reports them.
        Raises UnsupportedError for what the pipeline cannot do, ModelError when it gives NaN.
        """
        asked = self._arguments(request, seeds, plan, progress)
        with self._swapped(self._scheduler(plan)):
            try:
                made = self.pipe(**asked, output_type="np")
            except (ValueError, TypeError, NotImplementedError) as error:
                line = (str(error).splitlines() or [""])[0][:200]
                raise UnsupportedError(f"{self.name}: {line}", "check size and options") from error
        return _pixels(made, self.name)

    def _arguments(
        self, request: ConditionRequest, seeds: Sequence[int], plan: Plan, progress: Progress | None
    ) -> dict[str, Any]:
        import torch

        guided = plan.guidance.info.name == "cfg"
        negatives = list(request.negatives) if any(request.negatives) else None
        wished: dict[str, tuple[str, Any, bool]] = {  # parameter -> option, value, may be left out
            "prompt": ("--prompt", list(request.texts), False),
            "negative_prompt": ("--negative-prompt", negatives, negatives is None),
            "height": ("--height", request.size.height, True),
            "width": ("--width", request.size.width, True),
            "num_inference_steps": ("--steps", plan.steps, False),
            "guidance_scale": ("--cfg-scale", plan.guidance.scale if guided else 1.0, True),
            "distilled_guidance_scale": (
                "--embedded-guidance",
                request.embedded_guidance,
                request.embedded_guidance is None,
            ),
            "max_sequence_length": ("--max-tokens", request.max_tokens, request.max_tokens is None),
            "generator": ("--seed", [torch.Generator().manual_seed(s) for s in seeds], False),
            "use_resolution_binning": ("", False, True),  # the size that was asked for, no other
            "callback_on_step_end": ("", self._callback(progress), True),
        }
        made = {}
        for name, (option, value, optional) in wished.items():
            if name in self.known and not (optional and value is None):
                made[name] = value
            elif not optional:
                raise self.refuse(option)
        return made

    def _callback(self, progress: Progress | None) -> Any:
        if progress is None:
            return None

        def step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            progress(index + 1, int(getattr(pipe, "num_timesteps", index + 1)))
            return tensors

        return step

    def _scheduler(self, plan: Plan) -> Any:
        """The scheduler of ``--solver diffusers:class=...``, or None for the pipeline's own."""
        name = getattr(plan.solver, "class_", None)
        own: Any = getattr(self.pipe, "scheduler", None)
        if name is None or name == type(own).__name__:
            return None
        known: dict[str, Any] = {cls.__name__: cls for cls in _schedulers()}
        if name not in known:
            raise UsageError(f"--solver diffusers: no scheduler class {name!r}", "check its name")
        flows = name.startswith("FlowMatch") and type(own).__name__.startswith("FlowMatch")
        if not flows and known[name] not in getattr(own, "compatibles", ()):
            raise self.refuse(f"--solver diffusers:class={name}")
        return known[name].from_config(own.config)

    @contextmanager
    def _swapped(self, scheduler: Any) -> Iterator[None]:
        own = getattr(self.pipe, "scheduler", None)
        if scheduler is not None:
            self.pipe.scheduler = scheduler
        try:
            yield
        finally:
            if scheduler is not None:
                self.pipe.scheduler = own


class PipelineFamily:
    """What is left of a family where diffusers does the calling: a name and a check of sizes."""

    name = "pipeline"
    default_guidance = "cfg"

    def __init__(self, multiple: int):
        self.multiple = multiple

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Empty: the latents are the pipeline's own. Raises UsageError naming the nearest sizes."""
        check_multiple(size, self.multiple)
        return ()


class NoNetwork:
    """In place of a network that dit does not call itself."""

    offers = frozenset({"torch"})

    def blocks(self) -> list[Any]:
        """None that may be hooked."""
        return []


def model_of(pipe: Any, *, name: str, revision: str, device: str, dtype: str) -> Model:
    """A Model whose ``pipeline`` makes the images. Raises UnsupportedError as ``PipelineModel``."""
    pipeline = PipelineModel(pipe)
    scale = int(getattr(pipe, "vae_scale_factor", 8) or 8)
    return Model(
        name=name,
        revision=revision,
        family=PipelineFamily(scale),  # type: ignore[arg-type]
        network=NoNetwork(),  # type: ignore[arg-type]
        codec=None,  # type: ignore[arg-type]
        encode=lambda request: {},
        to_array=lambda x: x,
        defaults=pipeline.defaults(),
        backend="torch",
        device=device,
        dtype=dtype,
        pipe=pipe,
        pipeline=pipeline,
    )


def _schedulers() -> list[Any]:
    from diffusers import SchedulerMixin, schedulers

    found = (getattr(schedulers, name) for name in dir(schedulers) if name.endswith("Scheduler"))
    return [cls for cls in found if inspect.isclass(cls) and issubclass(cls, SchedulerMixin)]


def _size(pipe: Any) -> int:
    """The side in pixels that the pipeline makes when it is told none, as far as it shows."""
    scale = int(getattr(pipe, "vae_scale_factor", 8) or 8)
    side = getattr(pipe, "default_sample_size", None)
    for part in ("unet", "transformer"):
        if not isinstance(side, int) and getattr(pipe, part, None) is not None:
            side = getattr(getattr(pipe, part).config, "sample_size", None)
    return side * scale if isinstance(side, int) else 512


def _pixels(made: Any, name: str) -> Any:
    import numpy as np

    images = getattr(made, "images", None)
    if images is None or np.ndim(images) != 4:
        raise UnsupportedError(f"--model: {name} makes no images", "choose a text-to-image model")
    pixels = np.asarray(images, dtype=np.float32).transpose(0, 3, 1, 2)  # (B, 3, H, W)
    if not np.isfinite(pixels).all():
        raise ModelError(f"{name} gave values that are not numbers", "use --dtype float32")
    return pixels.clip(0, 1)
