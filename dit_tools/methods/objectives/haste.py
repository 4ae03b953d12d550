"""Alignment of hidden states and attention with a frozen encoder, ended once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep
from dit_tools.methods.objectives._align import ToEncoder, known

LOOKS = 5  # looks at the gradients that decide together


@method(
    paper="arXiv:2505.16792",
    title="REPA Works Until It Doesn't: Early-Stopped, Holistic Alignment Supercharges Diffusion Training",
    year=2025,
    authors="Wang et al.",
    identity={"weight": 0.0},
)
class Haste(Objective):
    """REPA, and the cross-entropy of attention maps between teacher and student, ended once.

    The last blocks of the encoder teach the ``pairs`` blocks up to ``block``, head by head, over
    patches alone (Eq. 5). ``attention`` weighs it against the features. Phase two is plain training
    from ``until`` on, or once the gradients of alignment and velocity point apart: ``conflict``
    steps between looks, five looks with a mean cosine below 0. The optimizer keeps its momentum.
    An encoder without attention (``patches``, an autoencoder) teaches the similarity of its
    features instead: differs from the paper. A vision model is run in every step of phase one.
    """

    weight: float = param(0.5, "weight of both losses; 0 is off", ge=0, le=100)
    attention: float = param(1.0, "attention's part relative to the features'", ge=0, le=100)
    encoder: str = param("patches", "patches, or a vision model or autoencoder")
    block: float = param(0.3, "depth of the block that is aligned, as a share", ge=0, le=1)
    pairs: int = param(4, "blocks whose attention is aligned", ge=1, le=64)
    until: float = param(0.5, "share of the training after which it is off", ge=0, le=1)
    conflict: int = param(0, "steps between looks at the gradients; 0 never looks", ge=0)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term with features of all images, a projector, and the teacher of attention."""
        made = known(network)
        if self.weight and self.attention:
            made.require_plain_blocks("haste", "it compares maps of attention without rotary positions")
        return _Holistic(self, made)


class _Holistic(ToEncoder):
    def __init__(self, chosen: Haste, network: NetworkInfo):
        super().__init__(chosen, network)
        self.chosen = chosen
        self.cosines: list[float] = []
        self.ended = False
        self.looked = -1  # the step of the last look: a batch in several parts is looked at once
        self.pairs = range(0)
        if self.hooks and chosen.attention:
            from dit_tools.nn.encoders import attention

            self.pairs = range(max(0, self.index + 1 - chosen.pairs), self.index + 1)
            self.teacher = attention(chosen.encoder, network.images(), network.grid, len(self.pairs), self.features)

    def on(self, step: TrainingStep) -> bool:
        return super().on(step) and not self.ended

    @contextmanager
    def attach(self, step: TrainingStep) -> Iterator[None]:
        if not self.on(step):
            yield
            return
        from dit_tools.nn.attention_maps import kept_logits

        blocks = step.denoise.blocks
        with ExitStack() as stack:
            stack.enter_context(super().attach(step))
            step.store["logits"] = [stack.enter_context(kept_logits(blocks[i].module.attn1)) for i in self.pairs]
            yield

    def reduce(self, error: Any, step: TrainingStep) -> Any:
        if self.on(step):
            step.store["denoising"] = error.mean()

    def loss(self, step: TrainingStep) -> dict[str, Any]:
        if not self.on(step):
            return {}
        from dit_tools.nn.attention_maps import divergence

        loss = self.dissimilarity(step)
        if self.chosen.attention:
            maps = self.teacher(step.rows)
            apart = [
                divergence(wanted.to(step.t.device), made())
                for wanted, made in zip(maps, step.store["logits"], strict=True)
            ]
            loss = loss + self.chosen.attention * sum(apart) / len(apart)
        if self.chosen.conflict and step.step % self.chosen.conflict == 0 and step.step != self.looked:
            self._look(step, loss)
        return {"alignment": self.weight * loss}

    def _look(self, step: TrainingStep, loss: Any) -> None:
        """Note the cosine of both losses' gradients; end the alignment when they disagree."""
        from dit_tools.nn.attention_maps import gradient_cosine

        self.looked = step.step
        found = gradient_cosine(step.store["denoising"], loss, step.denoise.parameters())
        self.cosines = [*self.cosines, found][-LOOKS:]
        if len(self.cosines) == LOOKS and sum(self.cosines) < 0:
            self.ended = True

    def state_dict(self) -> dict[str, Any]:
        return {"cosines": self.cosines, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cosines, self.ended = list(state["cosines"]), bool(state["ended"])
