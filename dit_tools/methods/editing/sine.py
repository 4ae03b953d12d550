"""SINE: a copy that learnt the one image guides the model that knows everything else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import ode_step
from dit_tools.methods.editing import EditContext, Editing, add_noise, last_times, time_of_noise


@method(
    paper="arXiv:2212.04489",
    year=2022,
    title="SINE: SINgle Image Editing with Text-to-Image Diffusion Models",
    authors="Zhang, Han, Ghosh, Metaxas, Ren",
    needs={"gradients", "torch"},
    identity={"strength": 0.0},
)
class Sine(Editing):
    """Learns the image under the source prompt and mixes that copy into the guidance.

    ``v = v0 + scale ((1 - mix) v(target) + mix v_learnt(source) - v0)`` while noise is above
    ``until``, plain guidance below (Eq. 7). The copy is a low-rank addition to the attention
    layers, trained on the one image for ``train`` steps and thrown away. Differs from the paper:
    low rank instead of all weights, no training on crops, so the size is the model's.
    """

    guidance_scale = "scale"

    mix: float = param(0.6, "weight of the fine-tuned copy in the guidance; 0 = none", ge=0, le=1)
    scale: float = param(5.0, "guidance; 10 in the paper", ge=0)
    until: float = param(0.62, "noise level down to which the copy guides, 0..1", ge=0, le=1)
    strength: float = param(1.0, "share of the steps that are run", ge=0, le=1)
    train: int = param(100, "number of training steps", ge=0, le=100000)
    rank: int = param(4, "rank of the LoRA", ge=1, le=256)
    rate: float = param(2e-3, "learning rate", gt=0, le=1)

    def edit(self, context: EditContext) -> Array:
        """Training, then three predictions of one row a step above ``until``, else guidance's."""
        from dit_tools.nn.low_rank import low_rank

        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        noise, network = context.stream.fresh(), context.session.model.network
        module: Any = getattr(network, "module", None)
        guided, floor = context.ask("target", scale=self.scale), time_of_noise(context.path, self.until)
        if not self.mix:
            return self._sampled(context, guided, times, noise)
        with low_rank(module, self.rank) as copy:
            if not copy.factors:
                raise UnsupportedError(
                    f"--method sine: {context.session.model.name} has no attention layers to train",
                    "use another method",
                )
            self.learn(context, copy)

            def denoise(x: Array, t: float) -> Prediction:
                if t < floor:
                    copy.on = False
                    return guided(x, t)
                return self._mixed(context, copy, x, t)

            return self._sampled(context, denoise, times, noise)

    def _sampled(self, context: EditContext, denoise: Any, times: tuple[float, ...], noise: Array) -> Array:
        x = noise * 1.0 if len(times) == len(context.times) else add_noise(context, times[0], noise)
        for t, s in pairwise(times):
            x = ode_step(denoise(x, t), x, t, s)
            if context.mask is not None:
                x = context.mask * x + (1 - context.mask) * add_noise(context, s, noise)
        return x

    def _mixed(self, context: EditContext, copy: Any, x: Array, t: float) -> Prediction:
        """Eq. 7: the guidance of both at one point."""
        session = context.session
        negative = session.negative_prompt
        copy.on = False
        none = context.prompted([negative], 1.0)(x, t)
        target = context.ask("target", scale=1.0)(x, t)
        copy.on = True
        learnt = context.ask("source", scale=1.0)(x, t)
        towards = (1 - self.mix) * target.raw + self.mix * learnt.raw
        return none.with_raw(none.raw + self.scale * (towards - none.raw))

    def learn(self, context: EditContext, copy: Any) -> list[float]:
        """Train the addition on the image; the losses, one a step."""
        import torch

        denoise, losses = context.ask("source", scale=1.0), []
        optimizer = torch.optim.Adam(copy.factors, lr=self.rate)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.train):
            t = 0.02 + 0.96 * float(torch.rand((), generator=generator))
            noise = context.stream.fresh()
            x = add_noise(context, t, noise).requires_grad_(True)  # so that the network records
            with torch.enable_grad():
                p = denoise(x, t)
                loss = ((p.raw - _answer(p, context.x0, noise)) ** 2).mean()
                loss.backward(inputs=copy.factors)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses


def _answer(p: Prediction, x0: Array, noise: Array) -> Array:
    """What the network should have said, in its own kind."""
    alpha, sigma = p.path.alpha(p.t), p.path.sigma(p.t)
    answers = {"flow": noise - x0, "eps": noise, "v": alpha * noise - sigma * x0, "x0": x0}
    return answers[p.kind]
