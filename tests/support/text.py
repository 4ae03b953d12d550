"""Tokenizers built in code for tiny text encoders: the real classes, a few hundred tokens."""

from __future__ import annotations

import functools
from typing import Any

CORPUS = (
    "a red apple on a wooden table, a small cat sleeping, a blue house by the sea, night and day",
    "the user prompt has color, shape, size, texture, quantity, text and spatial relationships",
    "generate a detailed image of a person, an animal, a city street with flowers and trees",
    "blurry, low quality, bad hands, watermark, You are an assistant designed to Describe it",
)
QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def _bpe(first: tuple[str, ...], byte_level: bool, size: int = 500) -> tuple[dict, list]:
    """Vocabulary and merges learned from ``CORPUS``; ``first`` are the ids 0, 1, ..."""
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    if byte_level:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters = pre_tokenizers.ByteLevel.alphabet()
    else:
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(first), initial_alphabet=sorted(letters), show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def gemma() -> Any:
    """A GemmaTokenizer with 500 tokens; ``<pad>`` is 0 and ``<bos>`` is put in front."""
    from transformers import GemmaTokenizer

    vocab, merges = _bpe(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), byte_level=False)
    made = GemmaTokenizer(vocab=dict(vocab), merges=list(merges))
    made.add_bos_token = True
    return made


def qwen() -> Any:
    """A Qwen2Tokenizer with 500 tokens and a few special ones, and a chat template."""
    from transformers import Qwen2Tokenizer

    vocab, merges = _bpe(("<|endoftext|>",), byte_level=True)
    made = Qwen2Tokenizer(vocab=dict(vocab), merges=list(merges))
    made.add_tokens(list(QWEN_TOKENS), special_tokens=True)
    made.chat_template = QWEN_TEMPLATE
    return made
