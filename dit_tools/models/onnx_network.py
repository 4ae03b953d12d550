"""Networks, codecs and text encoders in ONNX Runtime: no torch is imported on this path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.models.families._base import Family, Prompts


def providers(device: str) -> list[str]:
    """Execution providers for a device, best first."""
    import onnxruntime

    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    return [p for p in wanted if p in onnxruntime.get_available_providers()] + [
        "CPUExecutionProvider"
    ]


class OnnxNetwork:
    """A transformer graph whose input names are the transformer's forward arguments."""

    offers: frozenset[str] = frozenset()

    def __init__(self, session: Any):
        self.session = session
        self.names = {entry.name: entry.type for entry in session.get_inputs()}

    def __call__(self, **inputs: Any) -> Array:
        """The raw output (B, C', h, w), float32."""
        feeds = {key: value for key, value in _flat(inputs).items() if key in self.names}
        return self.session.run(None, feeds)[0]

    def blocks(self) -> list[Any]:
        """None: a graph has no hooks."""
        return []


def _flat(inputs: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in inputs.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


class OnnxCodec:
    """Autoencoder graphs with the family's latent statistics; the encoder is opened when needed."""

    def __init__(self, decoder: Any, open_encoder: Callable[[], Any], family: Family):
        self.decoder, self.open_encoder, self.family = decoder, open_encoder, family

    def decode(self, latents: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1], float32."""
        pixels = self.decoder.run(None, {"latents": self.family.to_vae(latents)})[0]
        return (pixels / 2 + 0.5).clip(0, 1)

    def encode(self, pixels: Array) -> Array:
        """Latents (B, C, h, w)."""
        z = self.open_encoder().run(None, {"pixels": (pixels * 2 - 1).astype("float32")})[0]
        return self.family.from_vae(z)


class OnnxTextEncoder:
    """A tokenizer file and a text-encoder graph, giving PixArt's conditions."""

    def __init__(self, tokenizer: Path, session: Any, max_tokens: int):
        self.path, self.session, self.max_tokens = tokenizer, session, max_tokens

    def __call__(self, prompts: Prompts) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, L = ``max_tokens``."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.path))
        length = min(prompts.max_tokens or self.max_tokens, self.max_tokens)
        tokenizer.enable_truncation(length)
        # Always the same length: a picture must not depend on the other prompts of its batch.
        tokenizer.enable_padding(
            pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>", length=length
        )
        texts = {"cond": prompts.prompts, "uncond": prompts.negatives}
        chosen = [branch for branch in ("cond", "uncond") if branch in prompts.branches]
        # One call for all branches, so that they share a length and can share a network call.
        ids, mask = self._tokenize(tokenizer, [text for b in chosen for text in texts[b]])
        states = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        made, row = {}, 0
        for branch in chosen:
            rows = slice(row, row + len(texts[branch]))
            made[branch] = {
                "encoder_hidden_states": states[rows],
                "encoder_attention_mask": mask[rows],
            }
            row = rows.stop
        return made

    def _tokenize(self, tokenizer: Any, texts: list[str]) -> tuple[Array, Array]:
        import numpy as np

        encoded = tokenizer.encode_batch([text.lower().strip() for text in texts])
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        return ids, np.array([e.attention_mask for e in encoded], dtype=np.int64)
