"""The front door: a model reference and some wishes in, a ``Model`` out.

``--backend auto`` takes ONNX Runtime when the model ships graphs, the CPU is meant, full precision
is wanted and nothing asks for torch (modules of blocks, gradients, LoRA, another size): it starts
in a fraction of the time. ``--dtype int8`` takes the graph in int8 where there is one. Everything
else goes through PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.plan import SPLIT_GRAPHS
from dit_tools.core.reading import Table, read_json
from dit_tools.models import one_more_step
from dit_tools.models.model import Model


@dataclass(frozen=True)
class LoadOptions:
    """How the user wants a model loaded."""

    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    needs: frozenset[str] = frozenset()  # what the chosen methods need of the network
    size: tuple[int, int] | None = None  # height, width in pixels
    allow_pickle: bool = False
    loras: tuple[str, ...] = ()
    offload: str | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False
    base: str | None = None  # folder with the other parts of a single-file transformer

    def torch_reason(self, offered: frozenset[str] = frozenset()) -> str:
        """The option that only PyTorch can serve, or an empty string; graphs offer ``offered``."""
        asked_for = self.needs - offered
        reasons = {
            "--lora": bool(self.loras),
            "--offload": self.offload is not None,
            "--vae-tiling": self.vae_tiling,
            "--vae-slicing": self.vae_slicing,
            f"--dtype {self.dtype}": self.dtype not in ("auto", "float32", "int8"),
            f"a method that needs {', '.join(sorted(asked_for))}": bool(asked_for),
        }
        return next((reason for reason, asked in reasons.items() if asked), "")


def load(reference: str, wishes: LoadOptions | None = None, **keywords: object) -> Model:
    """Load a model. ``keywords`` are fields of ``LoadOptions``, for calls that wish little.

    Raises ModelError when the reference cannot be read, UnsupportedError when backend, device or
    precision cannot do what is asked, always with the remedy.
    """
    from dit_tools.models.loading.resolve import resolve

    wishes = wishes or LoadOptions(**keywords)  # type: ignore[arg-type]
    resolved = resolve(reference, allow_pickle=wishes.allow_pickle)
    if _onnx(resolved.path, wishes):
        from dit_tools.models.loading.onnx_loader import load_onnx as read
    else:
        from dit_tools.models.loading.torch_loader import load_torch as read
    model = read(resolved, wishes)
    model.terminal = one_more_step.read_step(resolved.path)
    return model


def graphs_only(folder) -> bool:
    """Whether 'dit quantize --target onnx' made this folder: its weights are in the graphs."""
    path = folder / "export.json"
    if not path.is_file():
        return False
    try:
        return "quantized" in read_json(path, schema=Table(), error=ModelError)
    except ModelError:
        return False


def _onnx(folder, wishes: LoadOptions) -> bool:
    """Whether ONNX Runtime serves these wishes. Raises UnsupportedError when it must and cannot."""
    graph = folder / "transformer.onnx"
    reason = wishes.torch_reason(_offered(folder, wishes))
    if graphs_only(folder):
        reason = reason or ("--backend torch" if wishes.backend == "torch" else "")
        if reason:
            raise UnsupportedError(
                f"{reason}: the transformer of {folder.name} is a graph in few bits", "use the plain model"
            )
        return True
    if wishes.backend == "onnx" or (wishes.device == "tensorrt" and wishes.backend == "auto"):
        if not graph.exists():
            raise UnsupportedError(
                f"--backend onnx: {folder.name} has no transformer.onnx",
                "write one with 'dit export', or use --backend torch",
            )
        if reason:
            in_pieces = wishes.needs == {"stack"} and wishes.dtype in ("auto", "float32")
            remedy = SPLIT_GRAPHS if in_pieces else "use --backend torch"
            raise UnsupportedError(f"--backend onnx cannot serve {reason}", remedy)
        return True
    if wishes.dtype == "int8":
        return _int8(folder, wishes, reason)
    if wishes.backend == "torch" or reason or not graph.exists():
        return False
    if not (folder / "dit.json").exists():  # exported by a user: torch unless asked for
        return False
    return wishes.device in ("auto", "cpu") and _fits(folder, wishes.size)


def _offered(folder, wishes: LoadOptions) -> frozenset[str]:
    """What the graphs of a folder offer to methods, at the precision that is wished for."""
    if wishes.dtype not in ("auto", "float32"):
        return frozenset()
    from dit_tools.models.backends.onnx_split import offers

    return offers(folder)


def _int8(folder, wishes: LoadOptions, reason: str) -> bool:
    """Whether a graph in int8 serves these wishes. Raises UnsupportedError where it does not."""
    if wishes.backend == "torch":
        reason = "--backend torch"
    elif wishes.device not in ("auto", "cpu"):
        reason = f"--device {wishes.device}"
    if reason:
        raise UnsupportedError(f"--dtype int8 cannot serve {reason}", "leave one of them out")
    if not (folder / "transformer.int8.onnx").exists():
        raise UnsupportedError(
            f"--dtype int8: {folder.name} has no transformer.int8.onnx",
            "write one with 'dit export --int8', or leave --dtype out",
        )
    if not _fits(folder, wishes.size):
        raise UnsupportedError(f"--dtype int8: the graph of {folder.name} serves one size", "leave --size out")
    return True


def _fits(folder, size: tuple[int, int] | None) -> bool:
    """Whether the exported graphs serve this image size."""
    import json

    if size is None:
        return True
    path = folder / "dit.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(facts.get("onnx_size", ())) in (size, ())
