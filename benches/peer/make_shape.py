"""Writes a random BF16 checkpoint in the shape of DeepSeek-V2-Lite with fewer layers, so that two quantizers and two
runtimes can be measured on the same work: real dimensions, no knowledge. About 1.1 GB per layer.

    python make_shape.py OUT [LAYERS=14] [VOCABULARY=32000]
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

HIDDEN, EXPERTS, EXPERT_WIDTH, DENSE_WIDTH = 2048, 64, 1408, 10944
Q_RANK, KV_RANK, ROPE, NOPE, VALUE, HEADS = 768, 512, 64, 128, 128, 16


def config(layers: int, vocabulary: int) -> dict:
    rope = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": DENSE_WIDTH,
        "moe_intermediate_size": EXPERT_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "n_shared_experts": 2,
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 6,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": Q_RANK,
        "kv_lora_rank": KV_RANK,
        "qk_rope_head_dim": ROPE,
        "qk_nope_head_dim": NOPE,
        "v_head_dim": VALUE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "rope_scaling": {**rope, "mscale": 0.707, "mscale_all_dim": 0.707},
        "max_position_embeddings": 163840,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def bf16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Shape:
    def __init__(self, out: Path):
        self.out, self.random, self.index = out, np.random.default_rng(5), {}

    def weights(self, rows: int, cols: int, gain: float = 1.0) -> np.ndarray:
        return bf16(self.random.standard_normal((rows, cols), dtype=np.float32) * np.float32(gain / cols**0.5))

    def norm(self, width: int) -> np.ndarray:
        return bf16(np.ones(width))

    def write(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        header, at = {}, 0
        for key, tensor in tensors.items():
            header[key] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
            at += tensor.nbytes
            self.index[key] = name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(self.out / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in tensors.values():
                tensor.tofile(file)
        print(name, flush=True)

    def mlp(self, prefix: str, width: int) -> dict[str, np.ndarray]:
        return {
            f"{prefix}.gate_proj.weight": self.weights(width, HIDDEN),
            f"{prefix}.up_proj.weight": self.weights(width, HIDDEN),
            f"{prefix}.down_proj.weight": self.weights(HIDDEN, width),
        }

    def layer(self, number: int) -> dict[str, np.ndarray]:
        layer = f"model.layers.{number}"
        attention = f"{layer}.self_attn"
        tensors = {
            f"{layer}.input_layernorm.weight": self.norm(HIDDEN),
            f"{layer}.post_attention_layernorm.weight": self.norm(HIDDEN),
            f"{attention}.q_a_proj.weight": self.weights(Q_RANK, HIDDEN),
            f"{attention}.q_a_layernorm.weight": self.norm(Q_RANK),
            f"{attention}.q_b_proj.weight": self.weights(HEADS * (NOPE + ROPE), Q_RANK),
            f"{attention}.kv_a_proj_with_mqa.weight": self.weights(KV_RANK + ROPE, HIDDEN),
            f"{attention}.kv_a_layernorm.weight": self.norm(KV_RANK),
            f"{attention}.kv_b_proj.weight": self.weights(HEADS * (NOPE + VALUE), KV_RANK),
            f"{attention}.o_proj.weight": self.weights(HIDDEN, HEADS * VALUE),
        }
        if number == 0:
            return tensors | self.mlp(f"{layer}.mlp", DENSE_WIDTH)
        tensors[f"{layer}.mlp.gate.weight"] = self.weights(EXPERTS, HIDDEN, gain=2)
        tensors |= self.mlp(f"{layer}.mlp.shared_experts", 2 * EXPERT_WIDTH)
        for expert in range(EXPERTS):
            tensors |= self.mlp(f"{layer}.mlp.experts.{expert}", EXPERT_WIDTH)
        return tensors


def main() -> None:
    out = Path(sys.argv[1])
    layers = int(sys.argv[2]) if len(sys.argv) > 2 else 14
    vocabulary = int(sys.argv[3]) if len(sys.argv) > 3 else 32000
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config(layers, vocabulary), indent=1))
    shape = Shape(out)
    head = {
        "model.embed_tokens.weight": shape.weights(vocabulary, HIDDEN, gain=8),
        "lm_head.weight": shape.weights(vocabulary, HIDDEN),
        "model.norm.weight": shape.norm(HIDDEN),
    }
    shape.write("model-head.safetensors", head)
    for number in range(layers):
        shape.write(f"model-{number:02}.safetensors", shape.layer(number))
    index = {"metadata": {}, "weight_map": shape.index}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
