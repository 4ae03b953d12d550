"""The graphs of a model: what is traced, on which examples, and what torch says to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import Block
from dit_tools.core.size import Size
from dit_tools.models.backends.onnx_network import graph_inputs
from dit_tools.models.blocks import blocks
from dit_tools.models.family import Family
from dit_tools.models.onnx_recipe import BATCH, OnnxRecipe, Sizes


@dataclass(frozen=True)
class Graph:
    """One graph to write: ``NAME.onnx``, its weights in the safetensors files of ``folder``.

    ``examples``: two sets of inputs, numpy, of different sizes where the sizes are free; the first
    is traced. ``expected`` gives the original module's output for inputs. ``prepared`` makes the
    module to trace for as long as its block runs. ``blocks`` lists those of a transformer.
    """

    name: str
    folder: str
    output: str
    dynamic: Mapping[str, Mapping[int, str]]
    examples: tuple[dict[str, Array], ...]
    expected: Callable[[int], Array]
    prepared: Callable[[], contextlib.AbstractContextManager[Any]]
    blocks: Callable[[], list[Block]] = list


def transformer_graph(family: Family, transformer: Any) -> Graph:
    """The graph ``transformer.onnx``."""
    from dit_tools.models.backends.torch_network import TorchNetwork

    chosen = family.onnx()
    calls = [
        example_call(family, chosen, sizes, t, seed)
        for seed, (sizes, t) in enumerate(zip(_sizes(family, chosen), (0.7, 0.3), strict=True))
    ]
    arrays = [graph_inputs(call) for call in calls]
    names = [name for name in arrays[0] if name in chosen.dynamic]
    return Graph(
        name="transformer",
        folder="transformer",
        output="sample",
        dynamic={name: chosen.dynamic[name] for name in (*names, "sample")},
        examples=tuple({name: given[name] for name in names} for given in arrays),
        expected=lambda i: TorchNetwork(transformer)(**calls[i]).numpy(),
        prepared=lambda: chosen.prepared(transformer),
        blocks=lambda: blocks(transformer, family.stacks, family.blocks),
    )


def _sizes(family: Family, chosen: OnnxRecipe) -> tuple[Sizes, Sizes]:
    """Sizes of the two examples: different in everything that may change."""
    if chosen.fixed_size:
        side = family.default_size
        return Sizes(2, side, side, 12), Sizes(3, side, side, 20)
    unit = family.vae_scale * family.patch
    return Sizes(2, 4 * unit, 6 * unit, 12), Sizes(3, 8 * unit, 5 * unit, 20)


def example_call(family: Family, chosen: OnnxRecipe, sizes: Sizes, t: float, seed: int) -> dict[str, Any]:
    """Forward arguments, torch, with random latents and conditions."""
    import numpy as np
    import torch

    draw = np.random.default_rng(seed)
    condition = {name: torch.as_tensor(value) for name, value in chosen.condition(family, sizes, draw).items()}
    shape = (sizes.batch, *family.latent_shape(Size(sizes.height, sizes.width)))
    x = torch.as_tensor(draw.standard_normal(shape).astype(np.float32))
    return family.inputs(x, t, condition)


def vae_graphs(family: Family, vae: Any) -> list[Graph]:
    """The graphs ``vae_decoder.onnx`` (latents -> pixels) and ``vae_encoder.onnx``, in [-1, 1]."""
    channels = vae.config.get("latent_channels") or vae.config.get("z_dim")
    colours = vae.config.get("in_channels") or 3
    scale = family.vae_scale
    return [
        _vae_graph(family, "vae_decoder", "latents", "pixels", (channels, 1), _decoder(vae)),
        _vae_graph(family, "vae_encoder", "pixels", "latents", (colours, scale), _encoder(vae)),
    ]


def _vae_graph(family: Family, name: str, given: str, made: str, shape: tuple[int, int], module: Any) -> Graph:
    """``shape``: channels of the input and its pixels per latent."""
    import numpy as np
    import torch

    frame = (1,) if family.frame_axis else ()
    draw = np.random.default_rng(0)
    channels, unit = shape
    examples = [
        draw.uniform(-1, 1, (b, channels, *frame, h * unit, w * unit)).astype(np.float32)
        for b, h, w in ((2, 8, 10), (1, 12, 6))
    ]
    axes = {0: "batch", 2 + len(frame): "height", 3 + len(frame): "width"}

    def expected(i: int) -> Array:
        with torch.no_grad():
            return module(torch.as_tensor(examples[i])).numpy()

    return Graph(
        name=name,
        folder="vae",
        output=made,
        dynamic={given: axes, made: axes},
        examples=tuple({given: value} for value in examples),
        expected=expected,
        prepared=lambda: contextlib.nullcontext(module),
    )


def _decoder(vae: Any) -> Any:
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, latents: Any) -> Any:
            return self.vae.decode(latents, return_dict=False)[0]

    return Decoder()


def _encoder(vae: Any) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, pixels: Any) -> Any:
            out = self.vae.encode(pixels)
            return out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent

    return Encoder()


def text_graph(encoder: Any, max_tokens: int) -> Graph:
    """The graph ``text_encoder.onnx`` of a T5 encoder: ids and mask (B, L) -> states (B, L, D)."""
    import numpy as np
    import torch

    draw = np.random.default_rng(0)
    examples = []
    for batch in (2, 3):
        mask = np.ones((batch, max_tokens), dtype=np.int64)
        mask[1, max_tokens // 2 :] = 0
        ids = draw.integers(3, encoder.config.vocab_size, (batch, max_tokens))
        examples.append({"input_ids": ids, "attention_mask": mask})

    def expected(i: int) -> Array:
        with torch.no_grad():
            given = {name: torch.as_tensor(value) for name, value in examples[i].items()}
            return encoder(**given)[0].numpy()

    @contextlib.contextmanager
    def prepared() -> Iterator[Any]:
        yield encoder

    return Graph(
        name="text_encoder",
        folder="text_encoder",
        output="hidden",
        dynamic={name: BATCH for name in ("input_ids", "attention_mask", "hidden")},
        examples=tuple(examples),
        expected=expected,
        prepared=prepared,
    )
