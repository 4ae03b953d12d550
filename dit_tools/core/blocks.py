"""What a family says about its blocks, and one block of a network with it.

Methods that hook blocks read these specs and nothing else, so that they work on every family whose
file holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SELF, CROSS, JOINT = "self", "cross", "joint"
"""What attends to what: image to image, image to text, both to both."""
FIRST, LAST, BEHIND = "first", "last", "behind"
"""Where image tokens lie in a sequence that holds text too: in front of the text, at the end, or
behind each row's own text with padding at the end."""
PER_ROW, IMAGE_AND_TEXT, TEXT_FIRST = "per-row", "image-and-text", "text-first"
"""How an argument of a block goes along with its tokens: ``PER_ROW`` is one array (B, S, ...) or
(B, S); ``IMAGE_AND_TEXT`` is a pair of tables, of the image (N, d) and of the text; ``TEXT_FIRST``
is a tuple of tables (L + N, d) of the text and the image."""


@dataclass(frozen=True)
class AttentionSpec:
    """One attention module of a block.

    Attributes:
        attribute: its name in the block; a block may lack it.
        kind: ``SELF``, ``CROSS`` or ``JOINT``.
        image: where the image's tokens lie among the keys of a ``JOINT`` one.
        softmax: False for linear attention, which has no attention maps.
    """

    attribute: str
    kind: str
    image: str = FIRST
    softmax: bool = True


@dataclass(frozen=True)
class BlockSpec:
    """How one class of blocks is called and what it holds.

    Attributes:
        output: index of the image's hidden state in the output, None where it is the output.
        attention: its attention modules, in the order in which they run.
        mlp: names of its feed-forward modules.
        stream: name of the argument with the image's tokens (B, N, D); it is the first argument.
        text: name of the argument with the text's tokens, of blocks with two streams.
        subset: whether the block can run on some of its tokens; False where it convolves the grid.
        joined: where the image's tokens lie in a stream that holds text too, empty if it does not.
        mask: name of the argument with the mask (B, S) over a joined stream.
        per_token: (argument, layout) of everything that goes along with tokens.
        residual: ends of the names of linear layers that give what is added to the residual stream;
            by default those of diffusers.
    """

    output: int | None = None
    attention: tuple[AttentionSpec, ...] = ()
    mlp: tuple[str, ...] = ()
    stream: str = "hidden_states"
    text: str = "encoder_hidden_states"
    subset: bool = True
    joined: str = ""
    mask: str = ""
    per_token: tuple[tuple[str, str], ...] = ()
    residual: tuple[str, ...] = ("to_out.0", "to_add_out", "net.2", "linear_2", "w2", "proj_out")


@dataclass(frozen=True)
class Block:
    """One block of a network: its place, its module or graph, and what is known about its class."""

    index: int
    name: str
    module: Any
    spec: BlockSpec

    @property
    def output(self) -> int | None:
        """Index of the image's hidden state in the block's output, see ``BlockSpec``."""
        return self.spec.output


@dataclass(frozen=True)
class PositionSpec:
    """How a transformer's positions get other frequencies.

    Attributes:
        module: attribute of the transformer whose forward is replaced, empty for the transformer.
        rescale: ``rescale(rescaling, transformer, compute, args, kwargs)`` gives what the module
            would give with the frequencies of ``rescaling`` (``nn.positions.Rescaling``);
            ``compute()`` runs the module itself.
    """

    module: str
    rescale: Callable[..., Any]
