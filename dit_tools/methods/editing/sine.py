"""SINE: a copy that learnt the one picture guides the model that knows everything else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import moved
from dit_tools.methods.editing import Editing, Scene, late, level, noised


@method(
    paper="arXiv:2212.04489",
    year=2022,
    title="SINE: SINgle Image Editing with Text-to-Image Diffusion Models",
    authors="Zhang, Han, Ghosh, Metaxas, Ren",
    needs={"gradients", "torch"},
    identity={"strength": 0.0},
)
class Sine(Editing):
    """Learns the picture under the source prompt and mixes that copy into the guidance.

    ``v = v0 + scale ((1 - mix) v(target) + mix v_learnt(source) - v0)`` while noise is above
    ``until``, plain guidance below (Eq. 7). The copy is a low-rank addition to the attention
    layers, trained on the one picture for ``train`` steps and thrown away. Differs from the paper:
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

    def edit(self, scene: Scene) -> Array:
        """Training, then three predictions of one row a step above ``until``, else guidance's."""
        from dit_tools.nn.low_rank import low_rank

        times = late(scene.times, self.strength)
        if len(times) < 2:
            return scene.x0
        noise, network = scene.stream.fresh(), scene.session.model.network
        module: Any = getattr(network, "module", None)
        guided, floor = scene.ask("target", scale=self.scale), level(scene.path, self.until)
        if not self.mix:
            return self._sampled(scene, guided, times, noise)
        with low_rank(module, self.rank) as copy:
            if not copy.factors:
                raise UnsupportedError(
                    f"--method sine: {scene.session.model.name} has no attention layers to train", "use another method"
                )
            self.learn(scene, copy)

            def denoise(x: Array, t: float) -> Prediction:
                if t < floor:
                    copy.on = False
                    return guided(x, t)
                return self._mixed(scene, copy, x, t)

            return self._sampled(scene, denoise, times, noise)

    def _sampled(self, scene: Scene, denoise: Any, times: tuple[float, ...], noise: Array) -> Array:
        x = noise * 1.0 if len(times) == len(scene.times) else noised(scene, times[0], noise)
        for t, s in pairwise(times):
            x = moved(denoise(x, t), x, t, s)
            if scene.mask is not None:
                x = scene.mask * x + (1 - scene.mask) * noised(scene, s, noise)
        return x

    def _mixed(self, scene: Scene, copy: Any, x: Array, t: float) -> Prediction:
        """Eq. 7: the guidance of both at one point."""
        session = scene.session
        negative = session.negative_prompt
        copy.on = False
        none = scene.prompted([negative], 1.0)(x, t)
        target = scene.ask("target", scale=1.0)(x, t)
        copy.on = True
        learnt = scene.ask("source", scale=1.0)(x, t)
        towards = (1 - self.mix) * target.raw + self.mix * learnt.raw
        return none.with_raw(none.raw + self.scale * (towards - none.raw))

    def learn(self, scene: Scene, copy: Any) -> list[float]:
        """Train the addition on the picture; the losses, one a step."""
        import torch

        denoise, losses = scene.ask("source", scale=1.0), []
        optimizer = torch.optim.Adam(copy.factors, lr=self.rate)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.train):
            t = 0.02 + 0.96 * float(torch.rand((), generator=generator))
            noise = scene.stream.fresh()
            x = noised(scene, t, noise).requires_grad_(True)  # so that the network records
            with torch.enable_grad():
                p = denoise(x, t)
                loss = ((p.raw - _answer(p, scene.x0, noise)) ** 2).mean()
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
