"""Self-representation alignment: early layers imitate later ones at less noise."""

from __future__ import annotations

from typing import Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep, block_of
from dit_tools.methods.objectives._align import Alignment, known


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

    The teacher sees the same image, noise and prompt at ``max(t - gap u, 0)``; the loss is one
    minus the cosine, by token as in the paper, or by channel over tokens as in its released code.
    """

    weight: float = param(0.5, "weight of the loss; 0 is off", ge=0, le=100)
    student: float = param(0.3, "depth of the block that learns, as a share", ge=0, le=1)
    teacher: float = param(0.7, "depth of the block that teaches, as a share", ge=0, le=1)
    gap: float = param(0.2, "largest lead of the teacher in time", ge=0, le=1)
    axis: str = param("token", "cosines by token or by channel", choices=("token", "channel"))
    ramp: int = param(0, "steps over which the weight grows to its value", ge=0)
    until: float = param(1.0, "share of the training after which it is off", ge=0, le=1)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term with the student's projector."""
        made = known(network)
        if self.weight and not made.teacher:
            raise UnsupportedError(
                "--objective sra: it learns from a moving average, and this training keeps none",
                "set ema_decay in [adapter], for example 0.99",
            )
        return _Alignment(self, made)


class _Alignment(Alignment):
    def __init__(self, chosen: Sra, network: NetworkInfo):
        super().__init__(chosen.weight, chosen.student, chosen.until, network)
        self.chosen, self.depth = chosen, network.depth
        if self.hooks:
            from dit_tools.nn.projector import Projector

            self.module = Projector(network.width, network.width, network.width)

    def loss(self, step: TrainingStep) -> dict[str, Any]:
        if not self.on(step) or step.teacher is None:
            return {}
        import torch

        from dit_tools.nn.feature_capture import capture_output, image_tokens
        from dit_tools.nn.projector import dissimilarity

        lead = torch.from_numpy(step.rng.random(len(step.t))).to(step.t)
        earlier = (step.t - self.chosen.gap * lead).clamp(min=0)
        block = step.teacher.blocks[block_of(self.chosen.teacher, self.depth)]
        with torch.no_grad(), capture_output(block.module, step.store, "teacher", stop=True):
            step.teacher(step.noised(earlier), earlier, step.condition)
        dim = -1 if self.chosen.axis == "token" else 1
        taught = image_tokens(block, step.store["teacher"], self.tokens)
        loss = dissimilarity(self.hidden(step), taught, dim)
        ramp = min(1.0, (step.step + 1) / (self.chosen.ramp + 1))
        return {"alignment": self.weight * ramp * loss}
