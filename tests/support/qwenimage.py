"""A tiny random QwenImagePipeline."""

from __future__ import annotations

from typing import Any

from tests.support import text


def text_encoder(tokenizer: Any) -> Any:
    """A random Qwen2.5-VL of width 16 in evaluation mode."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("vision_start_token_id", "vision_start"),
            ("vision_end_token_id", "vision_end"),
            ("image_token_id", "image_pad"),
            ("video_token_id", "image_pad"),
        )
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "initializer_range": 0.2,
            "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        **ids,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def pipeline(tmp: Any = None) -> Any:
    """A QwenImagePipeline with the classes of Qwen-Image and some hundred thousand weights.

    ``tmp``: a folder to save it in as well.
    """
    import torch
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    torch.manual_seed(0)
    tokenizer = text.qwen()
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[-0.7571, 0.7089, -0.0113, 0.1075],
        latents_std=[2.8184, 1.4541, 0.3275, 1.6558],
    ).eval()
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=16,
        max_image_seq_len=512,
        shift_terminal=0.02,
        time_shift_type="exponential",
    )
    made = QwenImagePipeline(scheduler, vae, text_encoder(tokenizer), tokenizer, transformer)
    made.set_progress_bar_config(disable=True)
    if tmp is not None:
        made.save_pretrained(tmp)
    return made
