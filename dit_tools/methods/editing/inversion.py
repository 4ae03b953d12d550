"""Editing by inversion: to the noise under the old prompt, and back under the new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dit_tools.core.arrays import Array, concat, to_precision
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Inverted
from dit_tools.methods.editing import EditContext, Editing, last_times


@method(
    paper="arXiv:2010.02502",
    year=2020,
    title="Denoising Diffusion Implicit Models",
    authors="Song, Meng, Ermon",
    identity={"strength": 0.0},
)
class InversionEdit(Editing):
    """Inverts by ``--inversion`` with the source prompt and samples back with the target prompt.

    With ``--inversion dpm-encoder`` it is CycleDiffusion (Wu and De la Torre 2022), between two
    models of the same latents with ``--source-model``; with ``edict`` or ``bdia`` the edits of
    those papers; ``direct`` runs the source next to the edit. The same prompt and scales give the
    image back, as exactly as the inversion is. A latent file is used as it is, from its own
    first time on. Exact inversions do not edit better on the built-in model: ``edict`` and ``bdia``
    keep 3 and 4 dB less than ``ddim`` for the same targets (benchmarks/results/editing.md).
    """

    inverts = True

    guidance_scale = "target_scale"

    strength: float = param(0.7, "share of the steps that are run", ge=0, le=1)
    source_scale: float = param(1.0, "guidance of the inversion", ge=0)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    @property
    def one_pass(self) -> bool:
        """Up by one denoiser, down by another."""
        return True

    def edit(self, context: EditContext) -> Array:
        """The calls of the inversion there and back; those back alone with a latent file.

        Raises UnsupportedError where another model inverts what must run next to the edit.
        """
        chosen = context.inversion
        times = context.times
        if context.inverted is None:
            times = chosen.usable(last_times(times, self.strength), context.path)
        if len(times) < 2:
            return context.x0
        rows = ("source", "target")[-chosen.rows :]
        if context.origin is not None and len(rows) > 1:
            raise UnsupportedError(
                f"--inversion {chosen.info.name}: its source runs next to the edit, in one model",
                "use --inversion dpm-encoder with --source-model",
            )
        found = context.inverted or self._found(context, chosen, times)
        x = concat([found.noise] * len(rows))
        denoise = context.ask(*rows, scale=self.target_scale)
        for step in chosen.back(found.state).steps(denoise, x, times, None):
            x = step.x
        return to_precision(x[-1:], "float32")

    def _found(self, context: EditContext, chosen: Any, times: Sequence[float]) -> Inverted:
        scale = self.target_scale if chosen.guided else self.source_scale
        if context.origin is None:
            ask, x0 = context.ask("source", scale=scale), context.x0
        else:
            ask = context.prompted([context.source], scale, sampler=context.origin.session)
            x0 = context.origin.x0
        return chosen.invert(ask, to_precision(x0, context.session.precision), times, context.stream)
