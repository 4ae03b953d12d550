"""DiT: class-conditional transformers, whose prompts are ImageNet labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import CROSS, SELF, AttentionSpec, BlockSpec
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import nearest
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest, Family
from dit_tools.models.onnx_recipe import BATCH, OnnxRecipe, Sizes


class DiT(Family):
    """A class label through adaptive normalization; predicts noise and a variance.

    Peebles & Xie 2022 (arXiv:2212.09748). A prompt is a class number or a label's name. The
    variance is dropped before guidance, which acts on the noise alone, as in the pipeline.
    """

    name = "dit"
    default_steps = 50
    default_cfg = 4.0
    pipelines = ("DiTPipeline",)
    marks = ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",)
    original = "facebook/DiT-XL-2-256"
    lora = {
        "blocks.{}.attn.qkv": (
            "transformer_blocks.{}.attn1.to_q",
            "transformer_blocks.{}.attn1.to_k",
            "transformer_blocks.{}.attn1.to_v",
        ),
        "blocks.{}.attn.proj": ("transformer_blocks.{}.attn1.to_out.0",),
        "blocks.{}.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
        "blocks.{}.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
    }
    blocks = {
        "BasicTransformerBlock": BlockSpec(
            attention=(AttentionSpec("attn1", SELF), AttentionSpec("attn2", CROSS)), mlp=("ff",)
        )
    }

    @property
    def classes(self) -> int:
        """Number of classes, which is also the label of the branch without a condition."""
        return int(self.transformer.get("num_embeds_ada_norm") or 1000)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Latent shape (C, s, s). Raises UsageError for a size other than the model's own.

        The transformer has no notion of width: it reads any row of patches as a square.
        """
        side = self.default_size
        for option, asked in (("--height", size.height), ("--width", size.width)):
            if asked != side:
                raise UsageError(f"{option} {asked}: this model draws one size", f"use {side}")
        return super().latent_shape(size)

    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Class labels (B,) per branch, integers; an empty negative prompt is the null class.

        Raises UsageError for a prompt that is no label.
        """
        import torch

        names: Mapping[str, int] = getattr(pipe, "labels", None) or {}
        texts: dict[str, Sequence[str]] = {"cond": request.texts, "uncond": request.negatives}
        made = {}
        for branch in ("cond", "uncond"):
            if branch in request.branches:
                option = "--prompt" if branch == "cond" else "--negative-prompt"
                null = self.classes if branch == "uncond" else None
                ids = [class_label(text, names, self.classes, option, null) for text in texts[branch]]
                made[branch] = {"class_labels": torch.tensor(ids, device=pipe._execution_device)}
        return made

    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """Forward arguments of DiTTransformer2DModel."""
        return {"hidden_states": x, "timestep": self.timestep(x, t), "class_labels": condition["class_labels"]}

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced."""
        return DiTOnnx()


def class_label(text: str, names: Mapping[str, int], classes: int, option: str, null: int | None = None) -> int:
    """The class that a prompt names: a number in [0, classes), or one of ``names`` in any case.

    A name may be one synonym (``goldfish``) or a whole ImageNet label, of which the first synonym
    counts (``tench, Tinca tinca``). Empty text is ``null`` where that is given.
    Raises UsageError, naming ``option``, for anything else.
    """
    text = text.strip()
    if not text and null is not None:
        return null
    try:
        number = int(text)
    except ValueError:
        return _named(text, names, classes, option)
    if not 0 <= number < classes:
        raise UsageError(f"{option} {number}: no such class", f"use 0 to {classes - 1}")
    return number


def _named(text: str, names: Mapping[str, int], classes: int, option: str) -> int:
    if text in names:  # exact first: "crane" and "Crane" may be two classes
        return names[text]
    folded = {name.casefold(): number for name, number in names.items()}
    wanted = text.casefold()
    for candidate in (wanted, wanted.partition(",")[0].strip()):
        if candidate in folded:
            return folded[candidate]
    known = sorted(names)
    hint = nearest(text, known) if known else ""
    if not hint.startswith("did you mean"):  # a thousand names do not fit into one line
        hint = f"use a class number from 0 to {classes - 1}"
    raise UsageError(f"{option} {text[:60]!r}: this model knows no such label", hint)


class DiTOnnx(OnnxRecipe):
    """Class labels (B,)."""

    dynamic = {"hidden_states": BATCH, "timestep": BATCH, "class_labels": BATCH, "sample": BATCH}
    fixed_size = True

    def condition(self, family: Any, sizes: Sizes, draw: Any) -> dict[str, Any]:
        """Labels, the null class among them."""
        labels = draw.integers(0, family.classes, sizes.batch)
        labels[-1] = family.classes
        return {"class_labels": labels}


FAMILY = DiT
