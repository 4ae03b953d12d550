"""One More Step: begin where training ended instead of at pure noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.methods.noise import Noise, NoiseSource
from dit_tools.methods.noise.philox import Philox


@method(
    paper="arXiv:2311.15744",
    year=2023,
    title="One More Step: A Versatile Plug-and-Play Module for Rectifying Diffusion Schedule "
    "Flaws and Enhancing Low-Frequency Controls",
    authors="Hu, Zheng, Zheng, et al.",
    identity={"weight": 0.0},
)
class Oms(Noise):
    """One more step: starts from the predicted mean instead of pure noise, for schedules that end before pure noise.

    ``alpha_T x0 + sigma_T noise`` in place of noise, for schedules that end before pure noise.

    Such a model saw a trace of the image at its noisiest time, takes pure noise for an image of
    middling brightness, and makes nothing very dark or bright. x0 is what the prompt's images are
    on average, from ``one_more_step.safetensors`` in the model's folder, which ``dit train
    --terminal-step MODEL --data FOLDER`` makes from captioned images; ``scale`` guides it. Differs
    from the paper: a regression in place of a network (the best network says the same), and the
    deviation of the noise as the theory has it, where the authors' code takes the variance. On a
    flow, which ends at pure noise, it changes nothing: the built-in models have no use for it.
    """

    weight: float = param(1.0, "weight of the predicted terminal mean; 0 = off", ge=0, le=2)
    scale: float = param(1.0, "guidance of the extra step; 1 = the prompt's mean", ge=0)

    def stream(self, shape: tuple[int, ...], seeds: Sequence[int]) -> NoiseSource:
        """That of philox."""
        return Philox().stream(shape, seeds)

    def terminal(self, model: Any, conditions: Mapping[str, Any], x: Array) -> Array:
        """``x`` with the trace in it. Raises UnsupportedError for a model without the step."""
        alpha, sigma = model.path.alpha(1.0), model.path.sigma(1.0)
        if self.weight == 0 or alpha < 1e-6:
            return x
        if model.terminal is None:
            raise UnsupportedError(
                f"--noise oms: {model.name} has no one_more_step.safetensors",
                "make it with dit train --terminal-step MODEL --data FOLDER",
            )
        x0 = model.terminal(conditions["cond"], x)
        if self.scale != 1 and "uncond" in conditions:
            base = model.terminal(conditions["uncond"], x)
            x0 = base + self.scale * (x0 - base)
        return sigma * x + self.weight * alpha * x0
