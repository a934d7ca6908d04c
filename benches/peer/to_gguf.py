"""Writes a checkpoint of make_shape.py as a BF16 GGUF file in llama.cpp's ordinary layout: what its quantizer takes.

    python to_gguf.py CHECKPOINT OUT.gguf
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type


class Checkpoint:
    """BF16 tensors of a sharded checkpoint, mapped."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.shard = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        self.open: dict[str, tuple[dict, np.ndarray]] = {}

    def get(self, name: str) -> np.ndarray:
        shard = self.shard[name]
        if shard not in self.open:
            data = np.memmap(self.folder / shard, dtype=np.uint8, mode="r")
            length = int(data[:8].view(np.uint64)[0])
            self.open[shard] = json.loads(bytes(data[8 : 8 + length])), data[8 + length :]
        header, data = self.open[shard]
        start, end = header[name]["data_offsets"]
        return data[start:end].view(np.uint16).reshape(header[name]["shape"])


def f32(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def main() -> None:
    source, out = Checkpoint(Path(sys.argv[1])), Path(sys.argv[2])
    config = source.config
    layers, experts = config["num_hidden_layers"], config["n_routed_experts"]
    heads, nope, v = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    rank, rope_dim, rope = config["kv_lora_rank"], config["qk_rope_head_dim"], config["rope_scaling"]

    writer = gguf.GGUFWriter(out, "deepseek2", use_temp_file=False)
    writer.add_name("shape of DeepSeek-V2-Lite")
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rope_dim)
    writer.add_value_length(rank)
    writer.add_key_length_mla(nope + rope_dim)
    writer.add_value_length_mla(v)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(rope_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(experts)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_tokenizer_model("none")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, layers)
    plans: list[tuple[str, object]] = []  # name in GGUF, what makes the tensor

    def plan(name: str, shape: tuple[int, ...], make) -> None:
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        plain = len(shape) == 1 or name.endswith("mlp.gate.weight")
        if plain:
            writer.add_tensor_info(found, shape, np.dtype(np.float32), 4 * int(np.prod(shape)), Type.F32)
        else:
            byte_shape = (*shape[:-1], shape[-1] * 2)
            writer.add_tensor_info(found, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), Type.BF16)
        plans.append((found, (lambda: f32(make())) if plain else make))

    for name in source.shard:
        if ".mlp.experts." in name:
            continue
        if name.endswith("kv_b_proj.weight"):
            def both(name=name):
                return source.get(name).reshape(heads, nope + v, rank)
            plan(name.replace("kv_b_proj", "k_b_proj"), (heads, rank, nope),
                 lambda both=both: np.ascontiguousarray(both()[:, :nope].transpose(0, 2, 1)))
            plan(name.replace("kv_b_proj", "v_b_proj"), (heads, v, rank),
                 lambda both=both: np.ascontiguousarray(both()[:, nope:]))
        else:
            plan(name, source.get(name).shape, lambda name=name: source.get(name))
    for layer in range(config["first_k_dense_replace"], layers):
        for part in ("gate_proj", "up_proj", "down_proj"):
            prefix = f"model.layers.{layer}.mlp.experts"
            shape = (experts, *source.get(f"{prefix}.0.{part}.weight").shape)
            plan(f"{prefix}.{part}.weight", shape,
                 lambda prefix=prefix, part=part: np.stack([source.get(f"{prefix}.{e}.{part}.weight") for e in range(experts)]))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, make in plans:
        writer.write_tensor_data(make().view(np.uint8) if make().dtype == np.uint16 else make())
    writer.close()


if __name__ == "__main__":
    main()
