"""Random text encoders (CLIP, T5) and autoencoders of a few thousand weights, with tokenizers."""

from __future__ import annotations

import functools
from typing import Any

from tests.support.text import CORPUS


@functools.cache
def _clip_tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def clip_tokenizer(length: int = 16) -> Any:
    """A CLIPTokenizer with some 500 tokens and texts of ``length`` tokens."""
    from transformers import CLIPTokenizer

    vocab, merges = _clip_tables()
    return CLIPTokenizer(vocab=dict(vocab), merges=list(merges), model_max_length=length)


@functools.cache
def _t5_pieces() -> tuple[tuple[str, float], ...]:
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return tuple((piece, score) for piece, score in json.loads(made.to_str())["model"]["vocab"])


def t5_tokenizer() -> Any:
    """A T5Tokenizer with some 200 pieces; ``<pad>`` is 0 and ``</s>``, put behind, is 1."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=list(_t5_pieces()), extra_ids=0, model_max_length=512)


def clip_encoder(tokenizer: Any, width: int, projection: int | None = None) -> Any:
    """A random CLIP text encoder: CLIPTextModel, or with a projection where one is given."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection or width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=10.0,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5_encoder(tokenizer: Any, width: int) -> Any:
    """A random T5EncoderModel of two layers."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 2,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def autoencoder(channels: int, **statistics: float) -> Any:
    """A random AutoencoderKL, 4 pixels per latent; ``statistics``: scaling_factor, shift_factor."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=channels,
        **statistics,
    ).eval()


def finished(pipe: Any, tmp: Any = None) -> Any:
    """``pipe`` without progress bars, saved in ``tmp`` as well where that is given."""
    pipe.set_progress_bar_config(disable=True)
    if tmp is not None:
        pipe.save_pretrained(tmp)
    return pipe
