"""A model of random weights without text encoder, and short runs of it, for tests of the stages."""

from __future__ import annotations

from typing import Any

from dit_tools.core import spec
from dit_tools.core.branches import COND, UNCOND, Branch
from dit_tools.core.plan import FIELDS, Plan
from dit_tools.core.registry import method
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.methods.guidance import Guidance, Guide

PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "cross_attention_dim": 16,
    "sample_size": 8,
    "patch_size": 2,
    "caption_channels": 12,
    "norm_num_groups": 2,
    "use_additional_conditions": False,
}


def pixart(seed: int = 0, **changes: Any) -> Any:
    """A flow-matching PixArt of four blocks that starts from (4, 8, 8) latents."""
    import torch
    from diffusers import PixArtTransformer2DModel

    from dit_tools.models.backends.torch_network import TorchNetwork
    from dit_tools.models.families.pixart import PixArt
    from dit_tools.models.model import Defaults, Model

    torch.manual_seed(seed)
    shape = PIXART | changes
    family = PixArt(
        shape, {"block_out_channels": [8], "scaling_factor": 1.0}, {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    )
    return Model(
        "small",
        "0",
        family,
        TorchNetwork(PixArtTransformer2DModel(**shape).eval(), family),
        codec=None,
        encode=None,
        to_array=torch.as_tensor,  # type: ignore[arg-type]
        defaults=Defaults(8, 1.0, 8, "euler"),
        backend="torch",
        device="cpu",
        dtype="float32",
    )


def conditions(batch: int = 1, names: tuple[str, ...] = ("cond", "uncond")) -> dict[str, Any]:
    """Random text states of ``pixart()`` for each branch; a prefix of the batch is the same."""
    import torch

    made = {}
    for seed, name in enumerate(names):
        states = torch.randn(8, 5, 12, generator=torch.Generator().manual_seed(seed))[:batch]
        mask = torch.ones(batch, 5, dtype=torch.int64)
        made[name] = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    return made


def plan(cache: Any = "none", steps: int = 10, guidance: Any = "none", **fields: str) -> Plan:
    """An Euler plan; ``cache`` and ``guidance`` are specs or instances."""
    made = Plan.parse(
        steps,
        {"schedule": "uniform", "solver": "euler", "guidance": "none", "noise": "philox", "cache": "none", **fields},
    )
    if isinstance(cache, str):
        cache = spec.parse("caching", cache)
    if isinstance(guidance, str):
        guidance = spec.parse("guidance", guidance)
    values = {name: getattr(made, name) for name in FIELDS if name not in ("guidance", "cache")}
    return Plan(steps, guidance=guidance, cache=cache, **values)


def steps(model: Any, given: dict[str, Any], chosen: Plan, seeds: tuple[int, ...] = (3,)) -> Any:
    """A started run: the generator of its steps, and the ``RunState`` whose counters it fills."""
    from tests.support import loop

    shape = model.family.latent_shape(Size.square(model.defaults.size))
    x, noise = loop.start(model, chosen, shape, seeds)
    times = chosen.times(model, x.shape)
    run = RunState(times, chosen.solver.calls(len(times) - 1), scorer=Taste())
    return loop.sample(model, given, x, chosen, noise, run=run), run


class Taste:
    """A critic that likes the first channel bright and everything else small."""

    def scores(self, x0: Any) -> list[float]:
        return (x0[:, 0].mean((1, 2)) - (x0 * x0).mean((1, 2, 3))).tanh().tolist()

    def gradient(self, x0: Any, joint: float, marginal: float) -> Any:
        made = -2 * marginal * x0
        made[:, 0] += joint
        return made / x0[0].numel()


def final(model: Any, given: dict[str, Any], chosen: Plan, seeds: tuple[int, ...] = (3,)) -> tuple[Any, RunState]:
    """Latents at the end of a run, and the run."""
    generator, run = steps(model, given, chosen, seeds)
    *_, last = generator
    return last.x, run


@method()
class Both(Guidance):
    """Classifier-free guidance of scale 3 in its plainest form.

    ``together`` asks for both branches at once. After ``drop`` evaluations only ``cond`` is asked.
    ``watch`` evaluates ``uncond`` and throws it away.
    """

    together: bool = True
    drop: int = 1000
    watch: bool = False

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        calls = iter(range(10**6))

        def guide(x, t):
            if next(calls) >= self.drop:
                (cond,) = yield (COND,)
                return cond
            if self.together:
                uncond, cond = yield UNCOND, COND
            else:
                (uncond,) = yield (UNCOND,)
                (cond,) = yield (COND,)
            if self.watch:
                return cond
            return cond.with_raw(uncond.raw + 3.0 * (cond.raw - uncond.raw))

        return guide
