"""Taking part in a diffusers transformer's attention while a context lasts.

Every product of queries, keys and values (B, heads, N, d), after norms and rotary embeddings
(``products``), is handed to a control, with the knowledge of which tokens are the image's and which
the text's. Linear attention (Sana's) has no such call and is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.hooks import around_forward
from dit_tools.nn.products import Products

JOINT, CROSS, SELF = "joint", "cross", "self"
LAYERS = {
    "BasicTransformerBlock": {"attn1": (SELF, ""), "attn2": (CROSS, "")},
    "SanaTransformerBlock": {"attn2": (CROSS, "")},
    "JointTransformerBlock": {"attn": (JOINT, "image"), "attn2": (SELF, "")},
    "FluxTransformerBlock": {"attn": (JOINT, "text")},
    "FluxSingleTransformerBlock": {"attn": (JOINT, "text")},
    "QwenImageTransformerBlock": {"attn": (JOINT, "text")},
    "ZImageTransformerBlock": {"attention": (JOINT, "image")},
}
"""Block class -> attribute -> what attends to what, and which stream comes first."""


@dataclass(frozen=True)
class Call:
    """One attention call: block ``index`` of ``count``, queries, keys, values (B, heads, N, d).

    ``kind``: self (image to image), cross (image to text) or joint (both to both). ``image`` and
    ``text`` are the positions of the two streams among the keys; among the queries the image's are
    the same, or all in a cross layer.
    """

    index: int
    count: int
    kind: str
    image: slice
    text: slice
    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]

    def run(self) -> Tensor:
        """The output (B, heads, N, d) by the fused kernel."""
        return F.scaled_dot_product_attention(self.q, self.k, self.v, **self.options)

    def having(self, **changed: Any) -> Call:
        """The call with other queries, keys or values."""
        return replace(self, **changed)

    def probabilities(self) -> Tensor:
        """Attention maps (B, heads, N, keys), in float32; rows sum to 1."""
        scale = self.options.get("scale") or 1 / math.sqrt(self.q.shape[-1])
        scores = self.q.float() @ self.k.float().transpose(-1, -2) * scale
        mask = self.options.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask.float()
        return scores.softmax(-1)

    def mixed(self, probabilities: Tensor) -> Tensor:
        """The output of given maps."""
        return (probabilities @ self.v.float()).to(self.v.dtype)


Control = Callable[[Call], Tensor]
"""What to give in place of the call's output; ``call.run()`` is the output itself."""


@contextmanager
def taking_part(blocks: Sequence[Any], tokens: int, control: Control) -> Iterator[None]:
    """Inside the context ``control`` gives the output of every softmax attention of the blocks.

    Args:
        blocks: ``network.blocks()``.
        tokens: image tokens of the latents.
        control: gets a ``Call``.

    Raises UnsupportedError for blocks whose attention is not known.
    """
    layers: list[tuple[int, str, str]] = []
    modules = []
    for block in blocks:
        known = LAYERS.get(type(block.module).__name__)
        if known is None:
            raise UnsupportedError(
                f"the attention of {type(block.module).__name__} is not known to dit",
                "use a method that does not look at attention, such as flowedit",
            )
        for name, (kind, first) in known.items():
            module = getattr(block.module, name, None)
            if module is not None:
                layers.append((block.index, kind, first))
                modules.append(module)

    def around(position: int, compute: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        index, kind, first = layers[position]

        def take(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any):
            image, text = _streams(kind, first, tokens, key.shape[-2])
            if attn_mask is not None:
                options["attn_mask"] = attn_mask
            call = Call(index, len(blocks), kind, image, text, query, key, value, options)
            return control(call)

        with Products(take):
            return compute()

    with around_forward(modules, around, "dit-taking-part"):
        yield


def _streams(kind: str, first: str, tokens: int, keys: int) -> tuple[slice, slice]:
    if kind == CROSS:
        return slice(0, tokens), slice(0, keys)
    if kind == SELF:
        return slice(0, keys), slice(0, 0)
    rest = keys - tokens
    if first == "image":
        return slice(0, tokens), slice(tokens, keys)
    return slice(rest, keys), slice(0, rest)


def text_maps(call: Call, probabilities: Tensor) -> Tensor:
    """The part of the maps from image tokens to text (B, heads, image, text)."""
    rows = slice(None) if call.kind == CROSS else call.image
    return probabilities[:, :, rows, call.text]


def replaced(call: Call, probabilities: Tensor, made: Tensor) -> Tensor:
    """Maps whose image-to-text part is ``made``, with every row summing to 1.

    Cross layers: ``made`` is scaled to the mass that was there. Joint ones: it keeps its mass, and
    the image's keys share what is left as they did before.
    """
    before = text_maps(call, probabilities)
    mass, wanted = before.sum(-1, keepdim=True), made.sum(-1, keepdim=True)
    if call.kind == CROSS:
        return made * (mass / wanted.clamp_min(1e-12))
    made = made / wanted.clamp_min(1.0)
    wanted = wanted.clamp_max(1.0)
    maps = probabilities.clone()
    kept = maps[:, :, call.image, call.image]
    share = torch.where(wanted == mass, 1.0, (1 - wanted) / (1 - mass).clamp_min(1e-12))
    maps[:, :, call.image, call.image] = kept * share
    maps[:, :, call.image, call.text] = made
    return maps
