"""Whether two models can share one sampling run: the same latents, the same noise path."""

from __future__ import annotations

from typing import Any

from dit_tools.core.errors import DitError, UnsupportedError
from dit_tools.core.size import Size
from dit_tools.models.model import Model

CLOSE = 0.02
"""Mean difference of decoded pixels up to which two autoencoders count as one: half precision."""


def check_pair(first: Model, second: Model, reference: str) -> None:
    """Raise UnsupportedError, with the reason, when ``second`` cannot follow ``first``.

    The autoencoders are compared by what they make of the same random latents, since files say
    little: the same weights may be stored in another precision, as another class, in a graph.
    """
    for model in (first, second):
        if model.pipeline is not None:
            raise _refused(reference, f"the pipeline of {model.name} runs through diffusers itself")
    if first.path != second.path:
        raise _refused(reference, f"{first.name} was trained on another noise path")
    size = _size(first)
    try:
        shape, other = (model.family.latent_shape(Size.square(size)) for model in (first, second))
    except DitError:
        raise _refused(reference, f"it cannot make the {size} px of {first.name}") from None
    if shape != other:
        raise _refused(reference, f"its latents are {_text(other)}, not {_text(shape)}")
    if _distance(first, second, shape) > CLOSE:
        raise _refused(reference, f"its autoencoder is not that of {first.name}")


def _refused(reference: str, reason: str) -> UnsupportedError:
    hint = "give a model with the same autoencoder and scheduler, such as a small sibling"
    return UnsupportedError(f"--second-model {reference}: {reason}", hint)


def _size(model: Model) -> int:
    """Pixels along a side of the probe: small in torch, that of the graphs in ONNX Runtime."""
    if model.backend != "torch":
        return model.defaults.size
    return min(model.defaults.size, 8 * model.family.vae_scale * model.family.patch)


def _distance(first: Model, second: Model, shape: tuple[int, ...]) -> float:
    """Mean absolute difference of the pixels that both decode from the same latents."""
    import numpy as np

    latents = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    one, two = (np.asarray(m.codec.decode(m.to_array(latents))) for m in (first, second))
    return float(np.abs(one - two).mean()) if one.shape == two.shape else float("inf")


def _text(shape: Any) -> str:
    return " x ".join(str(side) for side in shape)
