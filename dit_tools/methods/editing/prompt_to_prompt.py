"""Prompt-to-prompt: the source's attention maps for the words that both prompts share."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.editing import EditContext, Editing, last_times
from dit_tools.methods.editing._source_target_pair import Blend, invert_pair, token_count
from dit_tools.models.prompt_tokens import align_tokens


@method(
    paper="arXiv:2208.01626",
    year=2022,
    title="Prompt-to-Prompt Image Editing with Cross Attention Control",
    authors="Hertz, Mokady, Tenenbaum, Aberman, Pritch, Cohen-Or",
    needs={"blocks"},
    identity={"strength": 0.0},
)
class PromptToPrompt(Editing):
    """The target attends to the words that both prompts share as the source does (Sec. 3.2), and
    for ``structure`` of the run its image tokens attend to each other as the source's do.

    The source runs next to it, held to its own DDIM inversion (Ju et al. 2023). In joint attention
    (SD3, Flux) the image-to-text part of the maps is replaced and the rest of each row scaled, so
    that rows sum to one; image attention is shared by queries and keys. Linear attention has no
    maps to share, so that on Sana only the text's count. ``blend`` keeps the source wherever the
    changed words draw little attention (Sec. 4). One call a step there, two back.
    """

    guidance_scale = "target_scale"

    strength: float = param(1.0, "share of the steps that are run", ge=0, le=1)
    cross: float = param(0.8, "share of the steps that take the text maps", ge=0, le=1)
    structure: float = param(0.4, "share of the steps that take the image maps", ge=0, le=1)
    swap: bool = param(True, "replaced words take the attention maps of the words they replace")
    boost: float = param(1.0, "factor on the attention to new words", ge=0, le=20)
    blend: float = param(0.0, "attention to changed words from which a pixel may change; 0 = everywhere", ge=0, le=1)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    def edit(self, context: EditContext) -> Array:
        """Three guided predictions a step. Raises UnsupportedError for unknown attention."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        from dit_tools.nn import attention_injection
        from dit_tools.nn.attention_control import ALL, control_attention

        model = context.session.model
        both = invert_pair(context, times, 1.0, self.target_scale)
        before, after = (model.family.words(model.pipe, text, both.length) for text in (context.source, context.target))
        pairs, old, new = align_tokens(before, after, self.swap)
        maps = attention_injection.Maps([(0, old), (1, new)]) if self.blend else None
        control = attention_injection.PromptToPrompt(
            context.session.state,
            pairs,
            new,
            _until(times, self.cross),
            _until(times, self.structure),
            self.boost,
            maps,
        )
        held = control_attention(
            model.network.blocks(),
            lambda: token_count(context),
            control,
            "--method prompt-to-prompt",
            kinds=ALL,
            same_places=True,
        )
        return both.run(held, self._blend(context, maps, len(times) - 1) if maps else None)

    def _blend(self, context: EditContext, maps: Any, steps: int) -> Blend:
        """What may differ from the source, once a fifth of the steps is done."""
        patch = context.session.model.family.patch
        rows, columns = context.x0.shape[-2] // patch, context.x0.shape[-1] // patch

        def mask(done: int) -> Array | None:
            seen = [found for i in (0, 1) if (found := maps.of(i)) is not None]
            if done < 0.2 * steps or not seen:
                return None
            total = seen[0] if len(seen) == 1 else (seen[0] + seen[1]) / 2
            free = 1.0 * (total / total.max() > self.blend).reshape(1, 1, rows, columns)
            return free.repeat_interleave(patch, -2).repeat_interleave(patch, -1)

        return mask


def _until(times: tuple[float, ...], share: float) -> float:
    """The time above which the first ``share`` of the steps lie; above all of them at 0."""
    return times[round(share * (len(times) - 1))]
