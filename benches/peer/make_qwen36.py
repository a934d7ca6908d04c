"""Writes a random BF16 checkpoint with the dimensions of Qwen3.6-35B-A3B, fewer layers and, if asked, fewer experts: Gated
DeltaNet in three layers of four, gated attention in the fourth. With all 256 experts, a layer has about 1.7 GB.

    python make_qwen36.py OUT [LAYERS=8] [EXPERTS=256] [VOCABULARY=32000]
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

HIDDEN, EXPERT_WIDTH, TOP = 2048, 512, 8
HEADS, KEY_HEADS, HEAD = 16, 2, 256
DELTA_KEYS, DELTA_VALUES, DELTA_HEAD, CONVOLUTION = 16, 32, 128, 4
INTERVAL = 4


def config(layers: int, experts: int, vocabulary: int) -> dict:
    attends = lambda layer: (layer + 1) % INTERVAL == 0
    return {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "model_type": "qwen3_5_moe_text",
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "layer_types": ["full_attention" if attends(layer) else "linear_attention" for layer in range(layers)],
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD,
        "linear_num_key_heads": DELTA_KEYS,
        "linear_num_value_heads": DELTA_VALUES,
        "linear_key_head_dim": DELTA_HEAD,
        "linear_value_head_dim": DELTA_HEAD,
        "linear_conv_kernel_dim": CONVOLUTION,
        "moe_intermediate_size": EXPERT_WIDTH,
        "shared_expert_intermediate_size": EXPERT_WIDTH,
        "num_experts": experts,
        "num_experts_per_tok": min(TOP, experts),
        "mtp_num_hidden_layers": 0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
        "max_position_embeddings": 262144,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def shapes(model: dict) -> dict[str, list[int]]:
    """Names and shapes of all tensors, in file order."""
    keys, values = DELTA_KEYS * DELTA_HEAD, DELTA_VALUES * DELTA_HEAD
    found = {"model.embed_tokens.weight": [model["vocab_size"], HIDDEN]}
    for layer, kind in enumerate(model["layer_types"]):
        if kind == "full_attention":
            mixer = {
                "self_attn.q_proj.weight": [2 * HEADS * HEAD, HIDDEN],
                "self_attn.k_proj.weight": [KEY_HEADS * HEAD, HIDDEN],
                "self_attn.v_proj.weight": [KEY_HEADS * HEAD, HIDDEN],
                "self_attn.o_proj.weight": [HIDDEN, HEADS * HEAD],
                "self_attn.q_norm.weight": [HEAD],
                "self_attn.k_norm.weight": [HEAD],
            }
        else:
            mixer = {
                "linear_attn.in_proj_qkv.weight": [2 * keys + values, HIDDEN],
                "linear_attn.in_proj_z.weight": [values, HIDDEN],
                "linear_attn.in_proj_a.weight": [DELTA_VALUES, HIDDEN],
                "linear_attn.in_proj_b.weight": [DELTA_VALUES, HIDDEN],
                "linear_attn.conv1d.weight": [2 * keys + values, 1, CONVOLUTION],
                "linear_attn.A_log": [DELTA_VALUES],
                "linear_attn.dt_bias": [DELTA_VALUES],
                "linear_attn.norm.weight": [DELTA_HEAD],
                "linear_attn.out_proj.weight": [HIDDEN, values],
            }
        moe = {
            "mlp.gate.weight": [model["num_experts"], HIDDEN],
            "mlp.experts.gate_up_proj": [model["num_experts"], 2 * EXPERT_WIDTH, HIDDEN],
            "mlp.experts.down_proj": [model["num_experts"], HIDDEN, EXPERT_WIDTH],
            "mlp.shared_expert.gate_proj.weight": [EXPERT_WIDTH, HIDDEN],
            "mlp.shared_expert.up_proj.weight": [EXPERT_WIDTH, HIDDEN],
            "mlp.shared_expert.down_proj.weight": [HIDDEN, EXPERT_WIDTH],
            "mlp.shared_expert_gate.weight": [1, HIDDEN],
        }
        norms = {"input_layernorm.weight": [HIDDEN], "post_attention_layernorm.weight": [HIDDEN]}
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in (norms | mixer | moe).items()}
    return found | {"model.norm.weight": [HIDDEN], "lm_head.weight": [model["vocab_size"], HIDDEN]}


def bf16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def values(random: np.random.Generator, name: str, shape: list[int]) -> np.ndarray:
    """Weights that keep activations near 1, as in the goldens; norms are stored less 1, but for that of the state."""
    drawn = random.standard_normal(shape, dtype=np.float32)
    if len(shape) > 1:
        return drawn * (1.0 if "embed" in name else 1.2 / np.sqrt(shape[-1]))
    if "A_log" in name:
        return 0.5 * drawn
    if "dt_bias" in name:
        return drawn - 1
    return 0.2 * drawn + ("linear_attn.norm" in name)


def main() -> None:
    out = Path(sys.argv[1])
    layers, experts, vocabulary = (int(given) for given in (sys.argv[2:] + ["8", "256", "32000"][len(sys.argv) - 2 :]))
    model = config(layers, experts, vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(model, indent=2) + "\n")
    header, at = {}, 0
    for name, shape in shapes(model).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(36)
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(model).items():
            file.write(bf16(values(random, name, shape)).tobytes())


if __name__ == "__main__":
    main()
