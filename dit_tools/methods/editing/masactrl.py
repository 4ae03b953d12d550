"""MasaCtrl: the target asks with its own queries, and the image answers."""

from __future__ import annotations

from contextlib import ExitStack

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.editing import EditContext, Editing, last_times
from dit_tools.methods.editing._source_target_pair import invert_pair, token_count


@method(
    paper="arXiv:2304.08465",
    year=2023,
    title="MasaCtrl: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and Editing",
    authors="Cao, Wang, Qi, Shan, Qie, Zheng",
    needs={"blocks"},
    identity={"strength": 0.0},
)
class MasaCtrl(Editing):
    """Keys and values of the source's image tokens in place of the target's (Eq. 3): the shape may
    change, and its surfaces stay those of the image.

    From ``start`` of the steps on, so that the target's layout has formed, in blocks from ``depth``
    on; the paper's are step 4 of 50 and the decoder of a U-Net. In joint attention text tokens keep
    their own (as in Cai et al. 2024, arXiv:2412.18597); on Sana keys and values of the linear
    attention are shared. The source runs alongside, held to its DDIM inversion: three guided
    predictions a step.
    """

    guidance_scale = "target_scale"

    strength: float = param(1.0, "share of the steps that are run", ge=0, le=1)
    start: float = param(0.1, "share of the steps before sharing begins", ge=0, le=1)
    depth: float = param(0.25, "share of the blocks before sharing begins", ge=0, le=1)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    def edit(self, context: EditContext) -> Array:
        """Three guided predictions a step. Raises UnsupportedError for unknown attention."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        from dit_tools.nn.attention_control import ALL, control_attention
        from dit_tools.nn.attention_injection import Appearance, linear_appearance

        both = invert_pair(context, times, 1.0, self.target_scale)
        steps = len(times) - 1
        begin = times[min(round(self.start * steps), steps)]
        control = Appearance(context.session.state, begin, self.depth)
        blocks = context.session.model.network.blocks()
        with ExitStack() as stack:
            stack.enter_context(linear_appearance(blocks, control))
            return both.run(
                control_attention(
                    blocks, lambda: token_count(context), control, "--method masactrl", kinds=ALL, same_places=True
                )
            )
