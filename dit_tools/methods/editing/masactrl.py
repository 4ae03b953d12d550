"""MasaCtrl: the target asks with its own queries, and the picture answers."""

from __future__ import annotations

from contextlib import ExitStack

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.editing import Editing, Scene, late
from dit_tools.methods.editing._source_target_pair import pair, tokens


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
    change, and its surfaces stay those of the picture.

    From ``start`` of the steps on, so that the target's layout has formed, in blocks from ``depth``
    on; the paper's are step 4 of 50 and the decoder of a U-Net. In joint attention text tokens keep
    their own (as in Cai et al. 2024, arXiv:2412.18597); on Sana keys and values of the linear
    attention are shared. The source runs beside, held to its DDIM inversion: three guided
    predictions a step.
    """

    guidance_scale = "target_scale"

    strength: float = param(1.0, "share of the steps that are run", ge=0, le=1)
    start: float = param(0.1, "share of the steps before sharing begins", ge=0, le=1)
    depth: float = param(0.25, "share of the blocks before sharing begins", ge=0, le=1)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)

    def edit(self, scene: Scene) -> Array:
        """Three guided predictions a step. Raises UnsupportedError for unknown attention."""
        times = late(scene.times, self.strength)
        if len(times) < 2:
            return scene.x0
        from dit_tools.nn.attention_control import ALL, control_attention
        from dit_tools.nn.attention_injection import Appearance, linear_appearance

        both = pair(scene, times, 1.0, self.target_scale)
        steps = len(times) - 1
        begin = times[min(round(self.start * steps), steps)]
        control = Appearance(scene.session.state, begin, self.depth)
        blocks = scene.session.model.network.blocks()
        with ExitStack() as stack:
            stack.enter_context(linear_appearance(blocks, control))
            return both.run(
                control_attention(
                    blocks, lambda: tokens(scene), control, "--method masactrl", kinds=ALL, same_places=True
                )
            )
