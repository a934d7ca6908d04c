"""Writes deepseek-v3-0000N-of-00002.gguf: the golden DeepSeek-V3 checkpoint in llama.cpp's ordinary
layout, with the `gguf` package from PyPI (pip install gguf safetensors torch). Names come from the package's
own table; experts are stacked, and kv_b_proj is cut in two, as llama.cpp's converter does it.
tests/tests/gguf_layout.rs holds the result to the checkpoint's logits."""

import json
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

HERE = Path(__file__).parent
SOURCE = HERE.parent / "deepseek-v3"


def main() -> None:
    config = json.loads((SOURCE / "config.json").read_text())
    tensors = load_file(SOURCE / "model.safetensors")
    layers, experts = config["num_hidden_layers"], config["n_routed_experts"]
    heads, nope, v = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    rank, rope_dim = config["kv_lora_rank"], config["qk_rope_head_dim"]
    rope = config["rope_parameters"]

    writer = gguf.GGUFWriter(HERE / "deepseek-v3.gguf", "deepseek2", split_max_tensors=30)
    writer.add_name("golden DeepSeek-V3")
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
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(experts)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, layers)

    def add(name: str, tensor: torch.Tensor) -> None:
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        values = tensor.float().numpy()
        # The checkpoint's weights are BF16; what llama.cpp keeps in F32 it wants in F32.
        ty = Type.F32 if values.ndim == 1 or name.endswith("mlp.gate.weight") else Type.BF16
        writer.add_tensor(found, gguf.quants.quantize(values, ty), raw_dtype=ty)

    for name, tensor in tensors.items():
        if ".mlp.experts." in name:
            continue
        if name.endswith("kv_b_proj.weight"):
            k, val = tensor.view(heads, nope + v, rank).split([nope, v], dim=1)
            add(name.replace("kv_b_proj", "k_b_proj"), k.transpose(1, 2).contiguous())
            add(name.replace("kv_b_proj", "v_b_proj"), val.contiguous())
        else:
            add(name.replace("e_score_correction_bias", "e_score_correction.bias"), tensor)
    for layer in range(config["first_k_dense_replace"], layers):
        for part in ("gate_proj", "up_proj", "down_proj"):
            prefix = f"model.layers.{layer}.mlp.experts"
            stack = [tensors[f"{prefix}.{e}.{part}.weight"] for e in range(experts)]
            add(f"{prefix}.{part}.weight", torch.stack(stack))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
