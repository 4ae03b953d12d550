"""DiffusionGuard: the noisiest step is disturbed, for masks that nobody knows yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.protection import Protection, ProtectionTask, gradient_ascent

if TYPE_CHECKING:
    import numpy as np


@method(
    paper="arXiv:2410.05694",
    year=2024,
    title="DiffusionGuard: A Robust Defense Against Malicious Diffusion-based Image Editing",
    authors="Choi, Lee, Jeong, Xie, Shin, Lee",
    needs={"gradients", "torch"},
    identity={"levels": 0},
)
class DiffusionGuard(Protection):
    """Makes the first prediction of an edit as large as it can, under ever new masks.

    Climbs ``|x0(z_t, t)|`` at one noisy t, where z encodes what an editor keeps: what is outside a
    mask whose outline is shrunk and wobbled again in every step. Give the likely --mask, else
    the whole image counts as kept. Differs from the paper: its inpainting network sees the kept
    part at pure noise as extra channels; the models here see it mixed with noise, so t is ``level``
    and not 1, and the clean prediction stands for the noise prediction. 800 steps in the paper.
    """

    levels: int = param(8, "largest change of a colour value, in levels of 255; 0 = none", ge=0, le=64)
    step: float = param(0.5, "change per step, in levels of 255", gt=0, le=64)
    iterations: int = param(100, "steps of the ascent", ge=0, le=100000)
    level: float = param(0.9, "noise level of the attacked step, 0..1", gt=0, le=0.99)
    wobble: float = param(0.1, "how far mask outlines move, relative to the mask's depth", ge=0, le=1)

    def protect(self, shield: ProtectionTask) -> Array:
        """One network call and one pass back through network and encoder a step."""
        import numpy as np

        random = np.random.default_rng(0)

        def gradient(pixels: Array) -> Array:
            return self._climbed(shield, pixels, random)

        return gradient_ascent(shield, self.levels, self.step, self.iterations, gradient)

    def _climbed(self, shield: ProtectionTask, pixels: Array, random: Any) -> Array:
        import torch

        x = pixels.detach().requires_grad_(True)
        with torch.enable_grad():
            kept: Any = 1.0
            if shield.mask is not None:
                hole = jitter_outline(shield.mask, self.wobble, random)
                kept = torch.as_tensor(1 - hole).to(x.device, x.dtype)
            size = self.objective(shield, x, kept, shield.fresh())
            (found,) = torch.autograd.grad(size, x)
        return found

    def objective(self, shield: ProtectionTask, pixels: Array, kept: Any, noise: Array) -> Any:
        """Norm of the clean prediction for what is kept, the rest grey."""
        z = shield.encode(pixels * kept + 0.5 * (1 - kept))
        at = shield.path.alpha(self.level) * z + shield.path.sigma(self.level) * noise
        return (shield.denoise(at, self.level).x0 ** 2).sum() ** 0.5


def jitter_outline(mask: np.ndarray, share: float, random: Any) -> np.ndarray:
    """A mask (H, W) of 0 and 1 whose outline is moved, mostly inwards, smoothly along it."""
    import cv2
    import numpy as np

    inside = (mask > 0.5).astype(np.uint8)
    if not inside.any() or share == 0:
        return inside.astype(np.float32)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    outer = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5) if not inside.all() else depth * 0
    far = share * float(depth.max())
    waves = random.standard_normal(mask.shape).astype(np.float32)
    waves = cv2.GaussianBlur(waves, (0, 0), max(float(depth.max()) / 2, 1))
    waves = waves / max(float(waves.std()), 1e-9)
    moved = depth - outer - far * (random.uniform(0, 1) + 0.5 * waves)
    return (moved > 0).astype(np.float32)
