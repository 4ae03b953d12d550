"""A small sibling of a finished model: a transformer of its own on the same latents and texts.

Two transformers can share one sampling run (T-Stitch, arXiv:2402.14167) only where they see the
same latents and the same text states. So a sibling takes autoencoder, tokenizer and text encoder
from the model that ``[transformer] sibling_of`` names, frozen, and trains its transformer alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.models.loading import resolve as models
from dit_tools.models.loading import validation
from dit_tools.tasks.train import plot
from dit_tools.tasks.train.recipe import Recipe, check_recipe

PARTS = ("vae", "text_encoder", "tokenizer")


@dataclass
class Shared:
    """The frozen parts, and the folder whose cached latents may be those of this recipe.

    ``start``: weights that the transformer begins with, by name.
    """

    vae: Any
    text_encoder: Any
    words: Any
    cache: Path
    start: dict[str, Any] | None = None


def resolve_parent(recipe: Recipe, run: Path) -> Recipe:
    """The recipe with the model's folder and sizes in place of its name; others come back as is.

    The name is a folder (a run, or a model in diffusers format), else a run next to this one, else a
    built-in model. Reads configs only. Raises ModelError when there is no such model, it is not
    finished, or it is not one that ``dit train`` makes.
    """
    name = recipe.transformer.sibling_of
    if not name:
        return recipe
    folder = _folder(name, run)
    where = f"[transformer] sibling_of = {name!r}"
    vae, text = (validation.read_json(folder / part / "config.json") for part in PARTS[:2])
    words = validation.read_json(folder / "tokenizer/tokenizer_config.json")
    try:
        if (vae["_class_name"], vae["in_channels"]) != ("AutoencoderKL", 4):
            raise ValueError
        sizes: dict[str, Any] = {
            "autoencoder": replace(
                recipe.autoencoder,
                channels=tuple(vae["block_out_channels"]),
                latent_channels=int(vae["latent_channels"]),
                norm_num_groups=int(vae["norm_num_groups"]),
            ),
            "text_encoder": replace(
                recipe.text_encoder,
                d_model=int(text["d_model"]),
                layers=int(text["num_layers"]),
                heads=int(text["num_heads"]),
                max_tokens=int(words["model_max_length"]),
            ),
        }
        size = int(vae["sample_size"])
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{where}: not a model that 'dit train' makes", "name one, or leave it out") from None
    if size != recipe.data.size:
        raise ModelError(f"{where}: draws {size} px, the recipe {recipe.data.size}", f"set size = {size}")
    transformer = replace(recipe.transformer, sibling_of=str(folder))
    if transformer.start_from:
        start = _folder(transformer.start_from, run, "start_from")
        transformer = replace(transformer, start_from=str(start))
    made = replace(recipe, **sizes, transformer=transformer)
    check_recipe(made, where)
    return made


def _folder(name: str, run: Path, key: str = "sibling_of") -> Path:
    """The model's folder in diffusers format, absolute."""
    place = Path(name)
    if len(place.parts) == 1 and not place.is_dir():
        place = run.absolute().parent / name
    if not place.is_dir() and name in models.builtin_names():
        return models.BUILTIN / name
    if place.resolve() == run.resolve():
        raise ModelError(f"{key} = {name!r}: is this run itself", "name another one")
    if (place / "pipeline").is_dir():
        rows = plot.read_rows(place).get("transformer", [])
        if rows and rows[-1]["step"] < rows[-1]["steps"]:
            done = f"step {rows[-1]['step']} of {rows[-1]['steps']}"
            raise ModelError(f"{place}: is not finished ({done})", "finish it first")
        place = place / "pipeline"
    if not all((place / part).is_dir() for part in ("transformer", *PARTS)):
        raise ModelError(f"{key} = {name!r}: no such run or model", f"looked in {place}; give its folder")
    return place.resolve()


def load_parent(recipe: Recipe) -> Shared:
    """The parts of a resolved recipe's model, in float32. Raises ModelError for damaged files."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

    from dit_tools.models.loading.pipeline_folder import explained, quiet

    folder = Path(recipe.transformer.sibling_of)
    validation.check_folder(folder)
    with quiet(), explained(folder):
        vae: Any = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        text: Any = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        words = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    return Shared(
        vae.eval().requires_grad_(False), text.eval().requires_grad_(False), words, folder.parent, _start(recipe)
    )


def _start(recipe: Recipe) -> dict[str, Any] | None:
    """Weights of ``start_from``'s transformer in float32. Raises ModelError for damaged files."""
    if not (name := recipe.transformer.start_from):
        return None
    import torch
    from diffusers import PixArtTransformer2DModel

    from dit_tools.models.loading.pipeline_folder import explained, quiet

    folder = Path(name)
    validation.check_folder(folder)
    with quiet(), explained(folder):
        model: Any = PixArtTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    return model.state_dict()
