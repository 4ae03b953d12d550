"""Editing by inversion: to the noise under the old prompt, and back under the new one."""

from __future__ import annotations

from dit_tools.core.arrays import Array, concat
from dit_tools.core.registry import method, param
from dit_tools.editing._base import Editing, Scene, late
from dit_tools.inverting.session import precise, widest


@method(
    paper="arXiv:2010.02502", year=2020,
    title="Denoising Diffusion Implicit Models",
    authors="Song, Meng, Ermon",
    identity={"strength": 0.0},
)  # fmt: skip
class InversionEdit(Editing):
    """Inverts by ``--inversion`` with the source prompt and samples back with the target prompt.

    With ``--inversion dpm-encoder`` it is CycleDiffusion (Wu and De la Torre 2022), with ``edict``
    or ``bdia`` the edits of those papers; ``direct`` runs the source beside the edit. The same
    prompt and scales give the picture back, as exactly as the inversion is.
    """

    strength: float = param(0.7, "share of the steps that are run", ge=0, le=1)
    source_scale: float = param(1.0, "guidance of the inversion", ge=0)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    def edit(self, scene: Scene) -> Array:
        """The calls of the inversion there and back."""
        chosen = scene.inversion
        times = chosen.usable(late(scene.times, self.strength), scene.path)
        if len(times) < 2:
            return scene.x0
        x0 = precise(scene.x0, widest(scene.session.model))
        ask = scene.ask("source", scale=self.source_scale)
        found = chosen.invert(ask, x0, times, scene.stream)
        rows = ("source", "target")[-chosen.rows :]
        x = concat([found.noise] * len(rows))
        denoise = scene.ask(*rows, scale=self.target_scale)
        for step in chosen.back(found.state).steps(denoise, x, times, None):
            x = step.x
        return precise(x[-1:], "float32")
