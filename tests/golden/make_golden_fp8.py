"""Writes the golden qwen3.5-moe in FP8, as transformers saves one: matrices of e4m3 numbers with a scale per block of 32 x 32,
the experts of a layer in two tensors. The logits are those that transformers computes in float32 with the same weights.

    python make_golden_fp8.py [OUT]

Needs transformers 5.24 and torch."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
BLOCK = 32
# What stays as it is: vectors, the router, embeddings, convolutions, and what FP8 checkpoints leave out.
PLAIN = ["norm", "embed", "lm_head", "mlp.gate.", "shared_expert_gate", "conv1d", "in_proj_a", "in_proj_b"]


def quantized(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    *rest, rows, columns = weight.shape
    blocks = weight.float().reshape(*rest, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax((-3, -1)) / 448
    codes = (blocks / scales[..., None, :, None]).to(torch.float8_e4m3fn)
    return codes.reshape(weight.shape), scales


def decoded(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return codes.float() * scales.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "qwen3.5-moe-fp8"
    model = AutoModelForCausalLM.from_pretrained(HERE / "qwen3.5-moe", attn_implementation="eager", dtype=torch.float32).eval()
    found = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            sides = weight.shape[-2:]
            if weight.dim() < 2 or any(part in name for part in PLAIN) or any(side % BLOCK for side in sides):
                found[name] = weight.to(torch.bfloat16)
                continue
            codes, scales = quantized(weight)
            found[name], found[f"{name}_scale_inv"] = codes, scales
            weight.copy_(decoded(codes, scales))
        ids = load_file(HERE / "qwen3.5-moe/golden.safetensors")["input_ids"]
        logits = model(ids).logits
    out.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, out / "model.safetensors")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, out / "golden.safetensors")
    config = json.loads((HERE / "qwen3.5-moe/config.json").read_text())
    config["mtp_num_hidden_layers"] = 0
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    names = [name for name in found if name.endswith("_scale_inv") and ".0." in name]
    print(f"logits' std {logits.std():.2f}; scales of {names}")


if __name__ == "__main__":
    main()
