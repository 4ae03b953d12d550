"""Diff-Protect: the gradient of score distillation, through the autoencoder alone."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.protection import Protection, ProtectionTask, gradient_ascent


@method(
    paper="arXiv:2311.12832",
    year=2023,
    title="Toward effective protection against diffusion based mimicry through score distillation",
    authors="Xue, Liang, Wu, Chen",
    needs={"gradients", "torch"},
    identity={"levels": 0},
)
class Sds(Protection):
    """Moves the latents where the network errs least or most, without its gradient.

    ``J_E^T (v(z_t) - (noise - z))`` at a random t, J_E of the encoder only: half the memory and
    time of going through the network as well. lower=true descends, which the authors found as
    strong and less visible; false climbs.
    """

    levels: int = param(8, "largest change of a colour value, in levels of 255; 0 = none", ge=0, le=64)
    step: float = param(1.0, "change per step, in levels of 255", gt=0, le=64)
    iterations: int = param(100, "steps of the ascent", ge=0, le=100000)
    lower: bool = param(True, "make the image easier instead of harder to denoise")

    def protect(self, shield: ProtectionTask) -> Array:
        """One network call and one pass back through the encoder a step."""
        import torch

        generator, sign = torch.Generator().manual_seed(0), -1 if self.lower else 1

        def gradient(pixels: Array) -> Array:
            t = 0.02 + 0.96 * float(torch.rand((), generator=generator))
            return sign * distillation_gradient(shield, pixels, t, shield.fresh())

        return gradient_ascent(shield, self.levels, self.step, self.iterations, gradient)


def distillation_gradient(shield: ProtectionTask, pixels: Array, t: float, noise: Array) -> Array:
    """The encoder's vector-Jacobian product with the network's error at ``t``, like ``pixels``."""
    import torch

    x = pixels.detach().requires_grad_(True)
    with torch.enable_grad():
        z = shield.encode(x)
        at = shield.path.alpha(t) * z.detach() + shield.path.sigma(t) * noise
        error = shield.denoise(at, t).velocity - (noise - z.detach())
        (found,) = torch.autograd.grad(z, x, error)
    return found
