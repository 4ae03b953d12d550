"""Networks, codecs and text encoders in ONNX Runtime: no torch is imported on this path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.arrays import Array, is_torch
from dit_tools.core.errors import UnsupportedError
from dit_tools.models.family import ConditionRequest, Family

if TYPE_CHECKING:
    from dit_tools.models.backends.onnx_split import Subgraphs

TYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
}
"""ONNX Runtime's name of a type -> numpy's."""
STATES, CONTEXT = "encoder_hidden_states", "context"
KNOWN = 4  # contexts that are kept: as many as a run has branches that are called apart


GPUS = {"cuda": ("CUDAExecutionProvider",), "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider")}
"""Device -> its execution providers; what the first one cannot run goes to the next."""


def providers(device: str) -> list[str]:
    """Execution providers for a device, best first."""
    import onnxruntime

    wanted = GPUS.get(device.partition(":")[0], ())
    return [p for p in wanted if p in onnxruntime.get_available_providers()] + ["CPUExecutionProvider"]


class OnnxNetwork:
    """A transformer graph whose input names are the transformer's forward arguments.

    ``one_by_one`` calls the graph an image at a time: graphs in int8 scale their activations by
    one number per call, so that an image would depend on the others of its batch. ``context``: a
    graph of what the transformer makes of its text, which the same text is put through only once.
    ``open_pieces`` opens the same network in pieces, where there are any.
    """

    def __init__(
        self,
        session: Any,
        one_by_one: bool = False,
        context: Any = None,
        open_pieces: Callable[[], Subgraphs] | None = None,
    ):
        self.session: Any = session
        self.one_by_one, self.context = one_by_one, context
        self.offers = frozenset({"stack"} if open_pieces else ())
        self._open_pieces = open_pieces
        self._pieces: Subgraphs | None = None
        self._known: list[tuple[Array, Array]] = []  # text states and their context, newest last
        self.entries = {entry.name: entry for entry in session.get_inputs()}

    def __call__(self, **inputs: Any) -> Array:
        """The raw output (B, C', h, w) or (B, N, C'), float32.

        Raises UnsupportedError for latents of a size that the graph was not exported for.
        """
        arrays = graph_inputs(inputs)
        if self.context is not None:
            arrays[CONTEXT] = self._context(arrays[STATES])
        feeds = {name: self._feed(name, arrays[name]) for name in self.entries if name in arrays}
        if self._pieces is not None:
            return self._pieces(feeds)
        if not self.one_by_one:
            return self.session.run(None, feeds)[0]
        from dit_tools.core.arrays import concat

        rows = {name: value for name, value in feeds.items() if self._batched(name)}
        count = len(next(iter(rows.values())))
        singles = ({name: value[i : i + 1] for name, value in rows.items()} for i in range(count))
        return concat([self.session.run(None, feeds | single)[0] for single in singles])

    def _context(self, states: Array) -> Array:
        """The context of text states; the arrays of a run's branches are the same at every step."""
        for known, made in self._known:
            if known is states:
                return made
        made = self.context.run(None, {STATES: states.astype("float32", copy=False)})[0]
        self._known = [*self._known[1 - KNOWN :], (states, made)]
        return made

    def _batched(self, name: str) -> bool:
        shape = self.entries[name].shape
        return bool(shape) and shape[0] == "batch"

    def _feed(self, name: str, value: Array) -> Array:
        import numpy as np

        entry = self.entries[name]
        for size, wanted in zip(value.shape, entry.shape, strict=False):
            if isinstance(wanted, int) and size != wanted:
                raise UnsupportedError(
                    f"--size: the graph was exported for {name} of {_shape(entry.shape)}, "
                    f"this image needs {_shape(value.shape)}",
                    "export the model for this size, or use --backend torch",
                )
        return np.ascontiguousarray(value, dtype=TYPES.get(entry.type, value.dtype))

    def blocks(self) -> list[Any]:
        """Those of a network in pieces, which computes in pieces from now on; else none.

        The whole graph is let go, so that the weights are not held twice.
        """
        if self._open_pieces is None:
            return []
        if self._pieces is None:
            self._pieces, self.session = self._open_pieces(), None
        return self._pieces.blocks()


def graph_inputs(inputs: Mapping[str, Any]) -> dict[str, Array]:
    """A transformer's forward arguments as named arrays, numpy, the inputs of its graph.

    Dictionaries are laid open. A list of arrays (Z-Image) becomes one array, padded with zeros at
    the end where they differ in length, and ``NAME_lengths`` (B,); other lists become int64.
    """
    made: dict[str, Array] = {}
    for name, value in inputs.items():
        if isinstance(value, dict):
            made |= graph_inputs(value)
        elif isinstance(value, list) and hasattr(value[0], "shape"):
            made[name], made[f"{name}_lengths"] = _stacked([_numpy(item) for item in value])
        else:
            made[name] = _numpy(value)
    return made


def _stacked(items: list[Array]) -> tuple[Array, Array]:
    import numpy as np

    lengths = np.array([len(item) for item in items], dtype=np.int64)
    made = np.zeros((len(items), lengths.max(), *items[0].shape[1:]), items[0].dtype)
    for row, item in zip(made, items, strict=True):
        row[: len(item)] = item
    return made, lengths


def _numpy(value: Any) -> Array:
    import numpy as np

    if is_torch(value):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value, dtype=np.int64)


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)


class OnnxCodec:
    """Autoencoder graphs with the family's latent statistics; the encoder is opened when needed."""

    def __init__(self, decoder: Any, open_encoder: Callable[[], Any], family: Family):
        self.decoder, self.open_encoder, self.family = decoder, open_encoder, family

    def decode(self, latents: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1], float32."""
        pixels = self.decoder.run(None, {"latents": self.family.to_vae(latents)})[0]
        if self.family.frame_axis:
            pixels = pixels[:, :, 0]
        return (pixels / 2 + 0.5).clip(0, 1)

    def encode(self, pixels: Array) -> Array:
        """Latents (B, C, h, w)."""
        scaled = (pixels * 2 - 1).astype("float32")
        scaled = scaled[:, :, None] if self.family.frame_axis else scaled
        z = self.open_encoder().run(None, {"pixels": scaled})[0]
        return self.family.from_vae(z)


class OnnxTextEncoder:
    """A tokenizer file and a text-encoder graph, giving PixArt's conditions.

    ``micro``: PixArt-alpha's network is told the image's size as well.
    """

    def __init__(self, tokenizer: Path, session: Any, max_tokens: int, micro: bool = False):
        self.path, self.session, self.max_tokens = tokenizer, session, max_tokens
        self.micro, self._opened = micro, None

    def __call__(self, request: ConditionRequest) -> dict[str, dict[str, Array]]:
        """Text states (B, L, D) and mask (B, L) per branch, L = ``max_tokens``."""
        tokenizer = self._tokenizer()
        length = min(request.max_tokens or self.max_tokens, self.max_tokens)
        tokenizer.enable_truncation(length)
        # Always the same length: an image must not depend on the other prompts of its batch.
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>", length=self.max_tokens)
        texts = {"cond": request.texts, "uncond": request.negatives}
        chosen = [branch for branch in ("cond", "uncond") if branch in request.branches]
        # One call for all branches, so that they share a length and can share a network call.
        ids, mask = self._tokenize(tokenizer, [text for b in chosen for text in texts[b]])
        states = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        made, row = {}, 0
        for branch in chosen:
            rows = slice(row, row + len(texts[branch]))
            made[branch] = {"encoder_hidden_states": states[rows], "encoder_attention_mask": mask[rows]} | (
                _micro(request) if self.micro else {}
            )
            row = rows.stop
        return made

    def unread(self, text: str, length: int | None) -> str:
        """The end of a prompt that the encoder leaves out; "" when it reads all of it."""
        from dit_tools.models.prompt_tokens import unread_words

        return unread_words(self._tokenizer(), text, min(length or self.max_tokens, self.max_tokens))

    def _tokenizer(self) -> Any:
        if self._opened is None:
            from tokenizers import Tokenizer

            self._opened = Tokenizer.from_file(str(self.path))
        return self._opened

    def _tokenize(self, tokenizer: Any, texts: list[str]) -> tuple[Array, Array]:
        import numpy as np

        encoded = tokenizer.encode_batch([text.lower().strip() for text in texts])
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        return ids, np.array([e.attention_mask for e in encoded], dtype=np.int64)


def _micro(request: ConditionRequest) -> dict[str, Array]:
    """Height and width (B, 2) and their ratio (B, 1), in pixels."""
    import numpy as np

    size = np.array([[*request.size.sides]] * len(request.texts), dtype=np.float32)
    return {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
