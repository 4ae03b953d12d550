#!/usr/bin/env bash
# diffusers 0.42.1 with peft 0.21.2: FluxPipeline.save_lora_weights writes neither lora_alpha nor alpha tensors unless it
# is also given transformer_lora_adapter_metadata. A LoRA of rank 8 and lora_alpha 2 (scale 0.25), saved as the examples
# do and loaded again, acts four times as strongly, without a warning.
# Seen: "alpha keys 0, metadata {'format': 'pt'}, strength after loading 3.53x" (the effect is not quite linear), and
# exactly the trained output again once set_adapters is told 0.25.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2
"$folder/env/bin/python" - "$folder" 2>/dev/null <<'PY'
import sys

import diffusers
import peft
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open

NAME = "pytorch_lora_weights.safetensors"
torch.manual_seed(0)
trained = FluxTransformer2DModel(
    patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
).eval()
plain = FluxTransformer2DModel.from_config(trained.config).eval()
plain.load_state_dict(trained.state_dict())
names = ["to_q", "to_k", "to_v"]
trained.add_adapter(LoraConfig(r=8, lora_alpha=2, target_modules=names, init_lora_weights=False))
inputs = {
    "hidden_states": torch.randn(1, 16, 4), "encoder_hidden_states": torch.randn(1, 4, 16),
    "pooled_projections": torch.randn(1, 16), "timestep": torch.tensor([0.5]),
    "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(4, 3),
}
with torch.no_grad():
    wanted, base = trained(**inputs)[0], plain(**inputs)[0]
    FluxPipeline.save_lora_weights(sys.argv[1], transformer_lora_layers=get_peft_model_state_dict(trained))
    with safe_open(f"{sys.argv[1]}/{NAME}", "pt") as file:
        alphas, metadata = sum("alpha" in key for key in file.keys()), file.metadata()
    plain.load_lora_adapter(sys.argv[1], prefix="transformer", weight_name=NAME)
    strength = ((plain(**inputs)[0] - base).norm() / (wanted - base).norm()).item()
    plain.set_adapters(["default_0"], [0.25])
    off = (plain(**inputs)[0] - wanted).abs().max().item()
print(f"diffusers {diffusers.__version__}, peft {peft.__version__}: alpha keys {alphas}, metadata {metadata}, "
      f"strength after loading {strength:.2f}x, error at 0.25: {off:.0e}")
assert alphas == 0 and 3.5 < strength < 4.5 and off < 1e-5, "the behaviour changed"
PY
