"""The contract of a family. Families hold configs only, no weights, and import no torch at the top.

``transformer``, ``vae`` and ``scheduler`` are the config dictionaries of those parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import BlockSpec, PositionSpec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.size import Size
from dit_tools.models.onnx_recipe import OnnxRecipe
from dit_tools.models.scheduler import SchedulerFacts, scheduler_facts


@dataclass(frozen=True)
class ConditionRequest:
    """What the images of a batch are to be conditioned on, one entry per image, ready to be encoded.

    ``texts`` and ``negatives`` are prompts and negative prompts. ``images`` and ``masks`` are pixels
    (H, W, C) in [0, 1] and masks (H, W) in [0, 1], numpy, for models that are conditioned on images.
    ``branches`` names the guidance branches that are wanted. ``embedded_guidance`` is the value that
    guidance-distilled models take as an input. ``max_tokens`` of None means the model's own limit.
    ``second`` holds other texts for the same images, which ``--combine`` takes.
    """

    texts: tuple[str, ...]
    negatives: tuple[str, ...]
    size: Size
    branches: tuple[str, ...] = ("cond", "uncond")
    embedded_guidance: float | None = None
    max_tokens: int | None = None
    images: tuple[Array, ...] = ()
    masks: tuple[Array, ...] = ()
    second: tuple[str, ...] | None = None


class Family(ABC):
    """What dit knows of one transformer class: all of it is in the family's file.

    ``pipelines``: diffusers pipeline classes with this transformer. ``marks``: tensors that only
    this family's files have, in diffusers' names or the original ones; ``A+B`` asks for both.
    ``original``: the model whose other parts complete a single file. ``stacks``: attributes of the
    transformer that hold the block stacks, in the order in which they run. ``blocks``: block class
    -> what methods that hook blocks must know (``core.blocks.BlockSpec``). ``lora``: layer name in
    other tools -> the layers in diffusers, see ``models.loading.lora_names``.
    """

    name: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    marks: ClassVar[tuple[str, ...]] = ()
    original: ClassVar[str] = ""
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks", "layers", "blocks")
    blocks: ClassVar[Mapping[str, BlockSpec]] = {}
    lora: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    batch_branches: ClassVar[bool] = True  # whether branches may share a network call
    passes_sigmas: ClassVar[bool] = False  # the pipeline gives linspace(1, 1/steps, steps)
    default_steps: ClassVar[int] = 20
    default_cfg: ClassVar[float] = 4.5  # 1.0 for guidance-distilled models
    default_guidance: ClassVar[str] = "cfg"  # the pipeline's own, a guidance spec without scale
    onnx_text: ClassVar[bool] = False  # one T5 by its tokenizer file and a graph gives the conditions
    frame_axis: ClassVar[bool] = False  # the autoencoder takes videos: (B, 3, 1, H, W)

    def __init__(self, transformer: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any]):
        self.transformer, self.vae, self.scheduler = transformer, vae, scheduler
        self.facts: SchedulerFacts = scheduler_facts(scheduler)

    # sizes ------------------------------------------------------------------------------------

    @property
    def vae_scale(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def patch(self) -> int:
        """Latents per token along a side."""
        return int(self.transformer.get("patch_size") or 1)

    @property
    def default_size(self) -> int:
        """Side in pixels that the model was made for."""
        return int(self.transformer["sample_size"]) * self.vae_scale

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Latent shape (C, h, w) of an image. Raises UsageError naming the nearest good sizes."""
        check_multiple(size, self.vae_scale * self.patch)
        channels = int(self.transformer["in_channels"])
        return (channels, size.height // self.vae_scale, size.width // self.vae_scale)

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Image tokens of latents (..., h, w)."""
        return (latent_shape[-2] // self.patch) * (latent_shape[-1] // self.patch)

    # calling ----------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, pipe: Any, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Branch name -> condition arrays, by the diffusers pipeline's own encoders (torch)."""

    @abstractmethod
    def inputs(self, x: Array, t: float, condition: Mapping[str, Array]) -> dict[str, Any]:
        """The transformer's forward arguments for latents ``x`` (B, C, h, w) at time ``t``."""

    def positions(self) -> PositionSpec | None:
        """How the positions of image tokens are rescaled; None where there is nothing to rescale."""
        return None

    def onnx(self) -> OnnxRecipe:
        """How the transformer is traced. Raises UnsupportedError for a family that cannot be exported."""
        raise UnsupportedError(f"dit export: models of the family {self.name} have no recipe", "use torch")

    def shortened(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The same forward arguments without text positions that no image of them reads.

        Only where leaving them out changes nothing but rounding; by default all of them stay.
        """
        return inputs

    def words(self, pipe: Any, prompt: str, length: int) -> list[int]:
        """Token ids at the ``length`` text positions that the transformer sees, see ``_words``.

        Raises UnsupportedError for a family whose positions are not known.
        """
        raise UnsupportedError(
            f"{self.name}: which words its text positions hold is not known to dit",
            "use a method that does not look at words, such as flowedit",
        )

    def read(self, output: Array, x: Array, t: float) -> Prediction:
        """The raw output (B, C, h, w) as a Prediction; drops a learned variance."""
        channels = x.shape[1]
        if output.shape[1] == 2 * channels:
            output = output[:, :channels]
        return Prediction(output, self.facts.kind, x, t, self.facts.path)

    def timestep(self, x: Array, t: float) -> Array:
        """The network's own timestep of ``t``, shape (B,), as the model's scheduler gives it."""
        from dit_tools.core.arrays import namespace

        value = self.facts.timestep(t)
        xp = namespace(x)
        if xp.__name__ == "torch":
            return xp.full((x.shape[0],), value, device=x.device, dtype=xp.float32)
        return xp.full((x.shape[0],), value, dtype="float32")

    # latents and the autoencoder -----------------------------------------------------------------

    def to_vae(self, x: Array) -> Array:
        """What the autoencoder decodes: ``x / scaling_factor + shift_factor``."""
        return x / self.vae.get("scaling_factor", 1.0) + (self.vae.get("shift_factor") or 0.0)

    def from_vae(self, z: Array) -> Array:
        """The inverse of ``to_vae``."""
        return (z - (self.vae.get("shift_factor") or 0.0)) * self.vae.get("scaling_factor", 1.0)


def check_multiple(size: Size, multiple: int) -> None:
    """Raise UsageError, naming the nearest good sizes, for sides that are no multiple of ``multiple`` pixels."""
    sides = {"--width": size.width, "--height": size.height}
    wrong = {option: side for option, side in sides.items() if side < multiple or side % multiple}
    if len(wrong) == 2:
        width, height = (max(round(side / multiple), 1) * multiple for side in sides.values())
        raise UsageError(
            f"size {size.width}x{size.height}: neither side is a multiple of {multiple}",
            f"the nearest size is {width}x{height}",
        )
    for option, side in wrong.items():
        low = max(side // multiple, 1) * multiple
        raise UsageError(f"{option} {side}: not a multiple of {multiple}", f"use {low} or {low + multiple}")
