"""PixArt for ONNX Runtime: the part that reads only the text apart, attention in one node.

A sampling run calls the transformer at every step with the same text, so the keys and values of its
cross-attention are worked out once, by ``transformer.context.onnx``, and handed to every call of
``transformer.onnx``. Attention and the tanh GELU are single nodes instead of the dozen that torch's
exporter writes for each; on one small model they took a third of a call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dit_tools.models.onnx_recipe import replaced_attribute

OPSET = 20  # the first with Gelu as one node
CONTEXT = "context"
"""Keys and values (B, 2 blocks, L, D): what one graph gives and the other takes."""
_DOMAIN = "com.microsoft"


def parts(transformer: Any) -> tuple[Any, Any]:
    """``(context, denoiser)``: two modules that share the parameters of a PixArt transformer.

    ``context(encoder_hidden_states)`` gives what ``denoiser(hidden_states, timestep,
    encoder_attention_mask, context)`` takes; together they are the transformer.
    """
    import torch

    blocks = transformer.transformer_blocks

    class Context(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer

        def forward(self, encoder_hidden_states: Any) -> Any:
            text = self.net.caption_projection(encoder_hidden_states)
            made = [part(text) for block in blocks for part in (block.attn2.to_k, block.attn2.to_v)]
            return torch.stack(made, dim=1)

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = transformer

        def forward(self, context: Any, **inputs: Any) -> Any:
            text = context.new_zeros(len(context), 1, transformer.config.caption_channels)
            with fuse_attention(transformer, context):
                return self.net(**inputs, encoder_hidden_states=text, return_dict=False)[0]

    return Context(), Denoiser()


@contextlib.contextmanager
def fuse_attention(transformer: Any, context: Any) -> Iterator[None]:
    """Inside the block every attention is one node, and cross-attention reads ``context``."""
    with contextlib.ExitStack() as stack:
        for index, block in enumerate(transformer.transformer_blocks):
            own = context[:, 2 * index], context[:, 2 * index + 1]
            stack.enter_context(replaced_attribute(block.attn1, "processor", _processor(None)))
            stack.enter_context(replaced_attribute(block.attn2, "processor", _processor(own)))
        yield


def _processor(context: tuple[Any, Any] | None) -> Any:
    """A diffusers attention processor with ready keys and values, or its own from its input."""

    def attend(attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, attention_mask: Any = None) -> Any:
        own = context or (attn.to_k(hidden_states), attn.to_v(hidden_states))
        query, (key, value) = attn.to_q(hidden_states), own
        if attention_mask is not None:  # (B, 1, L), the same for every query
            attention_mask = attention_mask[:, None].expand(-1, -1, query.shape[1], -1)
        return attn.to_out[0](_attention()(query, key, value, attention_mask, attn.heads))

    return attend


def _attention() -> Any:
    """``attention(query, key, value, bias, heads)`` on (B, N, D); one node in a graph."""
    import torch
    from torch.nn import functional

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, query: Any, key: Any, value: Any, bias: Any, heads: int) -> Any:
            q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
            made = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            return made.transpose(1, 2).flatten(2)

        @staticmethod
        def symbolic(g: Any, query: Any, key: Any, value: Any, bias: Any, heads: int) -> Any:
            given = (query, key, value) if bias is None or bias.node().mustBeNone() else (query, key, value, bias)
            made = g.op(f"{_DOMAIN}::MultiHeadAttention", *given, num_heads_i=heads)
            made.setType(query.type())
            return made

    return Attention.apply


def finish_graph(path: Path) -> None:
    """Put the attention bias of a traced graph where MultiHeadAttention expects it.

    The tracer cannot write the two inputs between (projection bias, padding mask) as absent.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention" and len(node.input) == 4:
            bias = node.input.pop()
            node.input.extend(["", "", bias])
    onnx.save(model, path)
