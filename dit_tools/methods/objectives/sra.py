"""Self-representation alignment: early layers imitate later ones at less noise."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import Objective, Setting, Term, View, block_of
from dit_tools.methods.objectives._align import Alignment


@method(
    paper="arXiv:2505.02831",
    title="No Other Representation Component Is Needed: Diffusion Transformers Can Provide "
    "Representation Guidance by Themselves",
    year=2025,
    authors="Jiang et al.",
    identity={"weight": 0.0},
)
class Sra(Objective):
    """Align an early block with a later block of the moving average at a lower noise level.

    The teacher sees the same picture, noise and prompt at ``max(t - gap u, 0)``; the loss is one
    minus the cosine, by token as in the paper, or by channel over tokens as in its released code.
    """

    weight: float = param(0.5, "weight of the loss; 0 is off", ge=0, le=100)
    student: float = param(0.3, "depth of the block that learns, as a share", ge=0, le=1)
    teacher: float = param(0.7, "depth of the block that teaches, as a share", ge=0, le=1)
    gap: float = param(0.2, "largest lead of the teacher in time", ge=0, le=1)
    axis: str = param("token", "cosines by token or by channel", choices=("token", "channel"))
    ramp: int = param(0, "steps over which the weight grows to its value", ge=0)
    until: float = param(1.0, "share of the training after which it is off", ge=0, le=1)

    def begin(self, setting: Setting) -> Term:
        """A term with the student's projector."""
        return _Alignment(self, setting)


class _Alignment(Alignment):
    def __init__(self, chosen: Sra, setting: Setting):
        super().__init__(chosen.weight, chosen.student, chosen.until, setting.depth)
        self.chosen, self.depth = chosen, setting.depth
        if self.hooks:
            from dit_tools.nn.projector import Projector

            self.module = Projector(setting.width, setting.width, setting.width)

    def extra(self, view: View) -> Any:
        if not self.on(view):
            return None
        import torch

        from dit_tools.nn.feature_capture import capture_output
        from dit_tools.nn.projector import dissimilarity

        lead = torch.from_numpy(view.rng.random(len(view.t))).to(view.t)
        earlier = (view.t - self.chosen.gap * lead).clamp(min=0)
        at = earlier[:, None, None, None]
        blocks = view.average.transformer.transformer_blocks
        block = blocks[block_of(self.chosen.teacher, self.depth)]
        with torch.no_grad(), capture_output(block, view.store, "teacher", stop=True):
            x = (1 - at) * view.x0 + at * view.noise
            view.average(x, earlier, view.ids, view.mask)
        dim = -1 if self.chosen.axis == "token" else 1
        loss = dissimilarity(self.hidden(view), view.store["teacher"], dim)
        ramp = min(1.0, (view.step + 1) / (self.chosen.ramp + 1))
        return self.weight * ramp * loss
