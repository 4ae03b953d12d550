"""FilterPrompt: what the image passes on is chosen by a filter in pixel space."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array, to_precision
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Flow
from dit_tools.core.registry import method, param
from dit_tools.core.steps import ode_step
from dit_tools.methods.editing import EditContext, Editing, _filters, add_noise, last_times


@method(
    paper="arXiv:2404.13263",
    year=2024,
    title="FilterPrompt: A Simple yet Efficient Approach to Guide Image Appearance Transfer in Diffusion Models",
    authors="Wang, Peng, Fang, Wang, Xie, Yang, Li",
    identity={"strength": 0.0},
)
class FilterPrompt(Editing):
    """SDEdit from the filtered image: gray drops its colours, blur its detail, edge its surfaces.

    The filtered image is noised and denoised under the prompt, and for the first ``hold`` of the
    steps the clean prediction is pulled to it by ``pull``. colormatch takes the colours of
    --reference first. The filter none makes it img2img. Differs from the paper, which filters the
    images that go into IP-Adapter and ControlNet: the families here take no such input, so the
    latents are what is conditioned. Not worth it on the built-in model: plain inversion keeps 2
    to 3 dB more for the same targets (benchmarks/results/editing.md).
    """

    references = (0, 1)

    filter: str = param("gray", "what the image goes through", choices=_filters.NAMES)
    amount: float = param(1.0, "how strongly it is filtered", gt=0, le=1)
    strength: float = param(0.6, "share of the steps that are run", ge=0, le=1)
    hold: float = param(0.0, "fraction of those steps in which the filtered image guides", ge=0, le=1)
    pull: float = param(0.3, "fraction of the distance removed per step; 1 = all", ge=0, le=1)

    @property
    def one_pass(self) -> bool:
        """Once over the times of the run."""
        return True

    def edit(self, context: EditContext) -> Array:
        """One guided prediction a step."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        clean, mask = self._filtered(context), context.mask
        denoise, noise = context.ask("target"), context.stream.fresh()
        alpha, sigma = context.path.alpha(times[0]), context.path.sigma(times[0])
        x, steps = alpha * clean + sigma * noise, len(times) - 1
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            if i < round(self.hold * steps):
                gain = 1.0 if isinstance(context.path, Flow) else context.path.alpha(t)
                x = x + gain * self.pull * (clean - p.x0)
            x = ode_step(p, x, t, s)
            if mask is not None:
                x = mask * x + (1 - mask) * add_noise(context, s, noise)
        return x

    def _filtered(self, context: EditContext) -> Array:
        """Latents of the filtered image."""
        if self.filter == "none":
            return context.x0
        other = context.references[0].pixels if context.references else None
        if self.filter == "colormatch" and other is None:
            raise UsageError(
                "--method filterprompt: filter=colormatch needs --reference", "name the image with the colours"
            )
        pixels = _filters.filter_image(context.pixels, self.filter, self.amount, other)
        return to_precision(context.session.encode(pixels), "float32")
