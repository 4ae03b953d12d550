"""The extra first step of ``--noise oms``: what the clean latents of a prompt are on average.

The network of One More Step is trained to say x0 from pure noise and the prompt. The noise says
nothing of x0, so the minimum of its loss ``E |psi(noise, c) + x0|^2`` is the mean of x0 given the
prompt, whatever the network. Here it is a ridge regression from the pooled text states, which needs
no training loop: ``one_more_step.safetensors`` in the model's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.arrays import Array, convert_like, to_numpy
from dit_tools.core.errors import ModelError, UnsupportedError

FILE_NAME = "one_more_step.safetensors"
MAX_FILE_BYTES = 1 << 28  # bytes
STATES, MASK = "encoder_hidden_states", "encoder_attention_mask"


@dataclass(frozen=True)
class OneMoreStep:
    """``weight`` (D, C h w), ``bias`` (C h w), float32; ``shape`` is (C, h, w)."""

    weight: Any
    bias: Any
    shape: tuple[int, ...]

    def __call__(self, condition: Mapping[str, Array], x: Array) -> Array:
        """Mean clean latents of each row, as an array like ``x`` (B, C, h, w).

        Raises UnsupportedError for another size, or text states of another width.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UnsupportedError(
                f"--noise oms: the step was made for latents of {self.shape}, not {tuple(x.shape[1:])}",
                "leave --size out",
            )
        text = pooled(condition)
        if text.shape[1] != self.weight.shape[0]:
            raise UnsupportedError(
                f"--noise oms: the step was made for {self.weight.shape[0]} text features, not {text.shape[1]}",
                "make it again for this model",
            )
        return convert_like((text @ self.weight + self.bias).reshape(-1, *self.shape), x)


def pooled(condition: Mapping[str, Array]) -> Any:
    """The mean of the text states over tokens that are not padding, (B, D), numpy.

    Raises UnsupportedError for a condition without text states, as a class label is.
    """
    if STATES not in condition:
        raise UnsupportedError("--noise oms: this model has no text states", "leave it out")
    states = to_numpy(condition[STATES])  # (B, L, D)
    mask = to_numpy(condition[MASK]) if MASK in condition else states[..., 0] * 0 + 1
    weight = (mask > 0).astype("float32")[..., None]
    return (states * weight).sum(1) / weight.sum(1).clip(1e-6, None)


def fit_step(text: Any, latents: Any, ridge: float = 1.0) -> OneMoreStep:
    """The regression from pooled states (N, D) to clean latents (N, C, h, w), both numpy.

    ``ridge`` is the weight of a prior of no dependence, in images.
    """
    import numpy as np

    count, shape = len(text), latents.shape[1:]
    flat = latents.reshape(count, -1).astype("float64")
    middle, mean = text.mean(0, dtype="float64"), flat.mean(0)
    centred = text - middle
    gram = centred.T @ centred + ridge * np.trace(centred.T @ centred) / count * np.eye(len(middle))
    weight = np.linalg.lstsq(gram, centred.T @ (flat - mean), rcond=None)[0]
    bias = mean - middle @ weight
    return OneMoreStep(weight.astype("float32"), bias.astype("float32"), tuple(map(int, shape)))


def write_step(made: OneMoreStep, folder: Path) -> Path:
    """Put it into a model's folder; gives the file's path."""
    import numpy as np
    from safetensors.numpy import save_file

    shape = np.array(made.shape, dtype=np.int64)
    save_file({"weight": made.weight, "bias": made.bias, "shape": shape}, folder / FILE_NAME)
    return folder / FILE_NAME


def read_step(folder: Path) -> OneMoreStep | None:
    """The step of a model's folder, None where there is none. Raises ModelError when damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"over {MAX_FILE_BYTES} bytes")
        found = load_file(path)
        weight, bias = found["weight"].astype("float32"), found["bias"].astype("float32")
        channels, height, width = (int(side) for side in found["shape"])
        fits = bias.shape == (channels * height * width,) == weight.shape[1:] and weight.ndim == 2
        if not fits:
            raise ValueError("its arrays do not fit each other")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{path}: {error}", "make it again, or remove it") from None
    return OneMoreStep(weight, bias, (channels, height, width))
