"""DiffEditor: move, resize, drag and paste by matching the network's own features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, convert_like, to_precision
from dit_tools.core.registry import method, param
from dit_tools.core.steps import cap_times, ode_step
from dit_tools.methods.editing import EditContext, Editing, _copy_paste, ddim_step, last_times
from dit_tools.methods.editing._copy_paste import CopyPaste

if TYPE_CHECKING:
    import numpy as np

EDIT, CONTRAST, INPAINT = 4.0, 0.2, 0.8
"""Weights of the energies, as in the authors' code for moving."""
GUIDED, DENSE, STOCHASTIC, TRAVELLED = 0.6, 0.2, (0.2, 0.4), (0.4, 0.6)
"""Shares of the steps: with guidance, with guidance at every step, with noise, with travel."""


@method(
    paper="arXiv:2402.02583",
    year=2024,
    title="DiffEditor: Boosting Accuracy and Flexibility on Diffusion-based Image Editing",
    authors="Mou, Wang, Song, Shan, Zhang",
    needs={"blocks", "gradients", "torch"},
    identity={"strength": 0.0},
)
class DiffEditor(Editing):
    """Moves, resizes, drags, pastes or restyles what is masked, by gradients of feature matching.

    move: the mask is the thing, right, down and scale say where it goes. drag: the point x, y goes
    right and down, within the mask. paste: --reference goes into the mask; its alpha cuts it out.
    appearance: what is masked gets the look of --reference.

    The energy ``4 / (1 + 4 cos(F(z), F(z_source)))`` of the tokens behind two blocks is descended
    for the first 0.6 of the steps, with noise inside the region (regional SDE) from 0.2 to 0.4 of
    them, and steps taken back and repeated (time travel) from 0.4 to 0.6. Differs from the paper:
    it starts from a collage, for tokens are too coarse to find the way; the gradient is scaled to
    match times the noise, which needs no tuning per model; the outside is put back from the
    inversion at every step instead of by an energy; no image prompts and no memory attention.
    """

    needs_mask = True
    needs_prompt = False
    references = (0, 1)

    task: str = param("move", "what to do", choices=("move", "drag", "paste", "appearance"))
    right: float = param(0.0, "pixels of the image to the right", ge=-1e5, le=1e5)
    down: float = param(0.0, "pixels of the image downwards", ge=-1e5, le=1e5)
    scale: float = param(1.0, "new size, 1 = as it is (move)", ge=0.05, le=20)
    x: float = param(0.0, "pixels from the left to the point that is dragged", ge=0, le=1e5)
    y: float = param(0.0, "pixels from the top to the point that is dragged", ge=0, le=1e5)
    strength: float = param(0.5, "fraction of the sampling steps that are run", ge=0, le=1)
    match: float = param(0.05, "size of a feature-matching step, relative to the noise", ge=0, le=2)
    eta: float = param(0.4, "fresh noise within the region, 0 = none", ge=0, le=1)
    travel: int = param(3, "repetitions of each step in the time-travel range; 1 = none", ge=1, le=20)
    depth: float = param(0.5, "depth in the network at which features are taken, 0..1", ge=0, le=1)

    def region(self, mask: np.ndarray) -> np.ndarray:
        """For a move the old and the new place, else the mask."""
        if self.task != "move" or self._still or not mask.any():
            return mask
        return _copy_paste.moved_mask(mask, self.right, self.down, self.scale)

    @property
    def _still(self) -> bool:
        stays = self.right == self.down == 0 and (self.scale == 1 or self.task == "drag")
        return self.task in ("move", "drag") and stays

    def edit(self, context: EditContext) -> Array:
        """Inversion, then a guided prediction a step and two partial ones where features match."""
        times = cap_times(last_times(context.times, self.strength), context.path)
        if len(times) < 2 or self._still:
            return context.x0
        job = _Job.of(self, context, times)
        steps, x = len(times) - 1, job.start()
        for i, (t, s) in enumerate(pairwise(times)):
            part = i / steps
            travels = TRAVELLED[0] < part < TRAVELLED[1] and i % 2 == 0
            for again in range(self.travel if travels else 1):
                if again:
                    x = ode_step(job.plain(x, s), x, s, t)
                x = self._step(job, x, i, part)
        return x

    def _step(self, job: _Job, x: Array, i: int, part: float) -> Array:
        """From ``times[i]`` to the next: guidance moves the clean prediction alone."""
        (t, s), path, context = job.times[i : i + 2], job.scene.path, job.scene
        mask: Any = context.mask
        p = job.denoise(x, t)
        noisy = STOCHASTIC[0] < part < STOCHASTIC[1] and self.eta > 0
        ahead = ddim_step(p, s, self.eta * mask, context.stream.fresh()) if noisy else ddim_step(p, s)
        if self.match > 0 and part < GUIDED and (part < DENSE or i % 2 == 0):
            gain = path.alpha(s) / path.alpha(t) * path.sigma(t)
            ahead = ahead - gain * self.match * job.gradient(x, p.eps, i)
        return mask * ahead + (1 - mask) * job.kept[i + 1]


@dataclass
class _Job:
    """One edit: the collage and its latents, and the trajectories that are kept and matched."""

    scene: EditContext
    times: tuple[float, ...]
    collage: CopyPaste
    rough: Array
    kept: list[Array]
    guide: list[Array]
    blocks: tuple[int, ...]
    look: bool  # match mean features of the whole guide
    plain: Any
    denoise: Any

    @classmethod
    def of(cls, method: DiffEditor, scene: EditContext, times: tuple[float, ...]) -> _Job:
        collage = _arranged(method, scene)
        rough = scene.session.encode(collage.pixels[None].astype("float32"))
        rough = to_precision(rough, "float32")
        plain = scene.ask("source", scale=1.0)
        known = rough if method.task == "paste" else scene.x0
        kept = spec.parse("inversion", "ddim:refine=0").trajectory(plain, known, times)[::-1]
        look = method.task == "appearance"
        guide = kept
        if look:
            other = scene.references[0].x0
            guide = spec.parse("inversion", "ddim:refine=0").trajectory(plain, other, times)[::-1]
        count = len(scene.session.model.network.blocks())
        depths = (method.depth, (1 + method.depth) / 2)
        chosen = tuple(sorted({min(round(d * count), count - 1) for d in depths}))
        return cls(scene, times, collage, rough, kept, guide, chosen, look, plain, scene.ask("target"))

    def start(self) -> Array:
        """The collage with the inversion's noise, which travels with the thing."""
        path, t = self.scene.path, self.times[0]
        alpha, sigma = path.alpha(t), path.sigma(t)
        noise = (self.kept[0] - alpha * self.kept[-1]) / sigma
        stride = self.scene.session.model.family.vae_scale
        places = _copy_paste.cell_origins(self.collage.origin, stride).round().astype(int)
        rows, columns = noise.shape[-2:]
        y, x = places[..., 1].clip(0, rows - 1), places[..., 0].clip(0, columns - 1)
        gone = convert_like(_copy_paste.to_cells(self.collage.vacated, stride), noise)
        here = convert_like(_copy_paste.to_cells(self.collage.placed, stride), noise)
        carried = noise[..., y, x]
        noise = noise + gone * (1 - here) * (self.scene.stream.fresh() - noise)
        return alpha * self.rough + sigma * (noise + here * (carried - noise))

    def gradient(self, x: Array, noise: Array, i: int) -> Array:
        """The energy's gradient within the region, as large there as ``noise`` is."""
        import torch

        t, mask = self.times[i], self.scene.mask
        with torch.no_grad():
            known = self._features(self.guide[i], t)
        x = x.detach().float().requires_grad_(True)
        with torch.enable_grad():
            energy: Any = sum(self._energy(a, b) for a, b in zip(self._features(x, t), known, strict=True))
            (found,) = torch.autograd.grad(energy, x)
        found = found * mask
        size = float((found**2).sum()) ** 0.5
        return found * (float(((noise * mask) ** 2).sum()) ** 0.5 / size) if size > 0 else found

    def _features(self, x: Array, t: float) -> list[Any]:
        from dit_tools.nn.feature_capture import features

        model = self.scene.session.model
        patch = model.family.patch
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        return features(model.network.blocks(), self.blocks, grid, lambda: self.plain(x, t))

    def _energy(self, ours: Any, theirs: Any) -> Any:
        """The weighted energies of one block's maps (1, D, rows, columns)."""
        from dit_tools.nn.feature_capture import mean_similarity, sampled, token_similarity

        family = self.scene.session.model.family
        stride = family.vae_scale * family.patch
        placed, vacated = (
            convert_like(_copy_paste.to_cells(plane, stride), ours)[None, None]
            for plane in (self.collage.placed, self.collage.vacated)
        )
        if self.look:
            whole = placed * 0 + 1
            return EDIT / (1 + 4 * mean_similarity(ours, theirs, placed, whole))
        places = convert_like(_copy_paste.cell_origins(self.collage.origin, stride), ours)
        found = EDIT / (1 + 4 * token_similarity(ours, sampled(theirs, places), placed))
        alone = vacated * (1 - placed)
        if bool(alone.any()):
            rest = (1 - placed) * (1 - vacated)
            found = found + CONTRAST * (token_similarity(ours, theirs, alone) + 1) / 2
            found = found + INPAINT / (1 + 4 * mean_similarity(ours, theirs, alone, rest))
        return found / 2


def _arranged(method: DiffEditor, context: EditContext) -> CopyPaste:
    """The rough edit. Raises UsageError for a missing reference."""
    from dit_tools.core.errors import UsageError

    assert context.frame is not None, "the run knows where the pixels lie"
    pixels, mask = context.pixels[0], context.selection
    if method.task in ("paste", "appearance") and not context.references:
        raise UsageError(f"--method diffeditor: task={method.task} needs --reference", "name the other image")
    zoom = context.frame.model[0] / context.frame.height
    right, down = method.right * zoom, method.down * zoom
    if method.task == "move":
        return _copy_paste.move(pixels, mask, right, down, method.scale)
    if method.task == "paste":
        return _copy_paste.paste(pixels, mask, context.references[0].picture)
    if method.task == "drag":
        point = ((method.x - context.frame.left) * zoom, (method.y - context.frame.top) * zoom)
        return _copy_paste.drag(pixels, mask, point, right, down)
    still = _copy_paste.drag(pixels, mask, (0, 0), 0, 0)
    return replace(still, placed=(mask > 0.5).astype("float32"))
