"""Text injection: the source's words while the layout forms, the target's after that."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array, is_torch, to_precision
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Flow
from dit_tools.core.registry import method, param
from dit_tools.methods.editing import EditContext, Editing, add_noise, last_times

STATES = "encoder_hidden_states"


@method(
    paper="arXiv:2402.08601",
    year=2024,
    title="Latent Inversion with Timestep-aware Sampling for Training-free Non-rigid Editing",
    authors="Jung, Lee, Djanibekov, Shim, Ye",
    identity={"strength": 0.0},
)
class TextInjection(Editing):
    """Inverts by ``--inversion`` with the source prompt; on the way back the network reads the
    source prompt in the first ``hold`` of the steps, and then a mixture with the target.

    The mixture is ``mix`` of the target's text states and the rest of embeddings that are tuned
    until they describe the image (Kawar et al. 2023, arXiv:2210.09276, Sec. 3), ``tune`` times,
    from the target's on; with none the source's own stand for them. Tuning needs gradients
    (``--backend torch``). Holding to the end gives the image back, not holding is editing by
    inversion. Guidance that no mixture follows is left to the target. Not worth it on the built-in
    model, where plain inversion keeps more for the same targets (benchmarks/results/editing.md).
    """

    inverts = True

    guidance_scale = "target_scale"

    strength: float = param(1.0, "share of the steps that are run", ge=0, le=1)
    hold: float = param(0.3, "fraction of the steps that read the source prompt", ge=0, le=1)
    mix: float = param(0.8, "weight of the target prompt in the text after that", ge=0, le=1)
    tune: int = param(0, "optimization steps that fit the embedding to the image", ge=0, le=10000)
    rate: float = param(0.01, "learning rate, relative to the norm of the embedding", gt=0, le=1)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    def edit(self, context: EditContext) -> Array:
        """The calls of the inversion, twice; ``tune`` more. Raises UnsupportedError."""
        chosen = context.inversion
        times = chosen.usable(last_times(context.times, self.strength), context.path)
        if len(times) < 2:
            return context.x0
        if chosen.rows > 1 or chosen.guided:
            raise UnsupportedError(
                f"--inversion {chosen.info.name}: --method text-injection cannot go back by it", "use --inversion edict"
            )
        x0 = to_precision(context.x0, context.session.precision)
        found = chosen.invert(context.ask("source", scale=1.0), x0, times, context.stream)
        ask = _Turning(
            context.ask("source", scale=1.0),
            context.ask("target", scale=self.target_scale, change=self._mixed(context)),
            times[round(self.hold * (len(times) - 1))],
        )
        x = found.noise
        for step in chosen.back(found.state).steps(ask, x, times, None):
            x = step.x
        return to_precision(x, "float32")

    def _mixed(self, context: EditContext) -> Any:
        """From the target's conditions to the mixture's."""
        source: list[Any] = []
        context.prompted([context.source], 1.0, change=lambda c: source.append(c) or c)

        def change(conditions: dict[str, dict[str, Array]]) -> dict[str, dict[str, Array]]:
            target, other = conditions["cond"], source[0]["cond"]
            if self.tune:
                other = self._tuned(context, target)
            made = dict(target)
            for key, value in target.items():
                if key == "encoder_attention_mask":  # what either prompt says is read
                    made[key] = value + other[key] - value * other[key]
                elif _numbers(value) and getattr(other.get(key), "shape", ()) == value.shape:
                    made[key] = self.mix * value + (1 - self.mix) * other[key]
            return conditions | {"cond": made}

        return change

    def _tuned(self, context: EditContext, target: dict[str, Array]) -> dict[str, Array]:
        """The target's condition with text states that describe the image."""
        if not is_torch(context.x0):
            raise UnsupportedError("--method text-injection: tune needs gradients", "use --backend torch, or tune=0")
        import torch

        start = target[STATES]
        tuned = start.detach().clone().float().requires_grad_(True)
        rate = self.rate * float(start.float().square().mean().sqrt())
        optimizer = torch.optim.Adam([tuned], lr=rate)
        plain = context.prompted([context.target], 1.0)
        least = context.times[-2]
        for i in range(self.tune):
            t = least + (context.times[0] - least) * ((i * 0.618034) % 1.0)
            noise = context.stream.fresh()
            with torch.enable_grad():
                said = dict(target) | {STATES: tuned.to(start.dtype)}
                p = plain.branch("cond", add_noise(context, t, noise), t, said)
                flow = isinstance(p.path, Flow)
                miss = p.velocity - (noise - context.x0) if flow else p.eps - noise
                error = miss.square().mean()
            (tuned.grad,) = torch.autograd.grad(error, tuned)
            optimizer.step()
        return dict(target) | {STATES: tuned.detach().to(start.dtype)}


class _Turning:
    """A denoiser that asks one above a time and another from there on."""

    def __init__(self, early: Any, after: Any, turn: float):
        self.early, self.after, self.turn, self.path = early, after, turn, early.path

    def __call__(self, x: Array, t: float) -> Any:
        return (self.early if t > self.turn else self.after)(x, t)


def _numbers(value: Any) -> bool:
    return "float" in str(getattr(value, "dtype", ""))
