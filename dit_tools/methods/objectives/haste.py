"""Alignment of hidden states and attention with a frozen encoder, ended once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import Objective, Setting, Term, View
from dit_tools.methods.objectives._align import ToEncoder

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

    def begin(self, setting: Setting) -> Term:
        """A term with features of all pictures, a projector, and the teacher of attention."""
        return _Holistic(self, setting)


class _Holistic(ToEncoder):
    def __init__(self, chosen: Haste, setting: Setting):
        super().__init__(chosen, setting)
        self.chosen = chosen
        self.cosines: list[float] = []
        self.ended = False
        if self.hooks:
            from dit_tools.nn.encoders import attention

            self.pairs = range(max(0, self.index + 1 - chosen.pairs), self.index + 1)
            self.teacher = attention(chosen.encoder, setting.pictures(), setting.grid, len(self.pairs), self.features)

    def on(self, view: View) -> bool:
        return super().on(view) and not self.ended

    @contextmanager
    def attach(self, view: View) -> Iterator[None]:
        if not self.on(view):
            yield
            return
        from dit_tools.nn.attention_maps import kept_logits

        blocks = view.networks.transformer.transformer_blocks
        with ExitStack() as stack:
            stack.enter_context(super().attach(view))
            view.store["logits"] = [stack.enter_context(kept_logits(blocks[i].attn1)) for i in self.pairs]
            yield

    def reduce(self, error: Any, view: View) -> Any:
        if self.on(view):
            view.store["velocity loss"] = error.mean()

    def extra(self, view: View) -> Any:
        if not self.on(view):
            return None
        from dit_tools.nn.attention_maps import divergence

        loss = self.dissimilarity(view)
        if self.chosen.attention:
            maps = self.teacher(view.rows)
            apart = [
                divergence(wanted.to(view.t.device), made())
                for wanted, made in zip(maps, view.store["logits"], strict=True)
            ]
            loss = loss + self.chosen.attention * sum(apart) / len(apart)
        if self.chosen.conflict and view.step % self.chosen.conflict == 0:
            self._look(view, loss)
        return self.weight * loss

    def _look(self, view: View, loss: Any) -> None:
        """Note the cosine of both losses' gradients; end the alignment when they disagree."""
        from dit_tools.nn.attention_maps import gradient_cosine

        found = gradient_cosine(view.store["velocity loss"], loss, view.networks.transformer.parameters())
        self.cosines = [*self.cosines, found][-LOOKS:]
        if len(self.cosines) == LOOKS and sum(self.cosines) < 0:
            self.ended = True

    def state_dict(self) -> dict[str, Any]:
        return {"cosines": self.cosines, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cosines, self.ended = list(state["cosines"]), bool(state["ended"])
