"""Writes a DeepSeek-V2 or V3 checkpoint as a GGUF file in llama.cpp's ordinary layout, without its MTP layers and its
tokenizer: what llama.cpp's quantizer takes. BF16 stays what it is; FP8 in blocks becomes F32.

    python to_gguf.py CHECKPOINT OUT.gguf
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type


class Checkpoint:
    """Tensors of a checkpoint, mapped: BF16 as its bits, the rest as floats."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        self.open: dict[str, tuple[dict, np.ndarray]] = {}
        index = folder / "model.safetensors.index.json"
        if index.exists():
            self.shard = json.loads(index.read_text())["weight_map"]
        else:
            self.shard = dict.fromkeys(self.header("model.safetensors"), "model.safetensors")
            self.shard.pop("__metadata__", None)

    def header(self, shard: str) -> dict:
        if shard not in self.open:
            data = np.memmap(self.folder / shard, dtype=np.uint8, mode="r")
            length = int(data[:8].view(np.uint64)[0])
            self.open[shard] = json.loads(bytes(data[8 : 8 + length])), data[8 + length :]
        return self.open[shard][0]

    def info(self, name: str) -> dict:
        return self.header(self.shard[name])[name]

    def is_bf16(self, name: str) -> bool:
        return self.info(name)["dtype"] == "BF16"

    def get(self, name: str) -> np.ndarray:
        info = self.info(name)
        start, end = info["data_offsets"]
        data = self.open[self.shard[name]][1][start:end]
        if info["dtype"] == "F8_E4M3":
            scales = f32(self.get(f"{name}_scale_inv"))
            rows, cols = info["shape"]
            block = self.config["quantization_config"]["weight_block_size"]
            scales = scales.repeat(block[0], 0)[:rows].repeat(block[1], 1)[:, :cols]
            return E4M3[data].reshape(rows, cols) * scales
        return data.view({"BF16": np.uint16, "F32": np.float32}[info["dtype"]]).reshape(info["shape"])


def e4m3(byte: int) -> float:
    exponent, mantissa = byte >> 3 & 15, byte & 7
    value = mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -value if byte & 0x80 else value


E4M3 = np.array([e4m3(byte) for byte in range(256)], np.float32)


def f32(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.float32 else (values.astype(np.uint32) << 16).view(np.float32)


def main() -> None:
    source, out = Checkpoint(Path(sys.argv[1])), Path(sys.argv[2])
    config = source.config
    layers, experts = config["num_hidden_layers"], config["n_routed_experts"]
    heads, nope, v = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    rank, rope_dim, rope = config["kv_lora_rank"], config["qk_rope_head_dim"], config["rope_scaling"]

    writer = gguf.GGUFWriter(out, "deepseek2", use_temp_file=False)
    writer.add_name(Path(sys.argv[1]).name)
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
    sigmoid = config.get("scoring_func") == "sigmoid"
    gating = gguf.ExpertGatingFuncType
    writer.add_expert_gating_func(gating.SIGMOID if sigmoid else gating.SOFTMAX)
    if config.get("topk_method") != "greedy":
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_tokenizer_model("none")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, layers)
    plans: list[tuple[str, object]] = []  # name in GGUF, what makes the tensor

    def plan(name: str, shape: tuple[int, ...], make, bf16: bool) -> None:
        found = names.get_name(name.replace("_correction_bias", "_correction.bias"), try_suffixes=(".weight", ".bias"))
        assert found, name
        plain = len(shape) == 1 or name.endswith("mlp.gate.weight") or not bf16
        if plain:
            writer.add_tensor_info(found, shape, np.dtype(np.float32), 4 * int(np.prod(shape)), Type.F32)
        else:
            byte_shape = (*shape[:-1], shape[-1] * 2)
            writer.add_tensor_info(found, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), Type.BF16)
        plans.append((found, (lambda: f32(make())) if plain else make))

    for name in source.shard:
        if ".mlp.experts." in name or name.endswith("_scale_inv"):
            continue
        if name.startswith("model.layers.") and int(name.split(".")[2]) >= layers:
            continue
        bf16 = source.is_bf16(name)
        if name.endswith("kv_b_proj.weight"):
            def both(name=name):
                return source.get(name).reshape(heads, nope + v, rank)
            plan(name.replace("kv_b_proj", "k_b_proj"), (heads, rank, nope),
                 lambda both=both: np.ascontiguousarray(both()[:, :nope].transpose(0, 2, 1)), bf16)
            plan(name.replace("kv_b_proj", "v_b_proj"), (heads, v, rank),
                 lambda both=both: np.ascontiguousarray(both()[:, nope:]), bf16)
        else:
            plan(name, tuple(source.info(name)["shape"]), lambda name=name: source.get(name), bf16)
    for layer in range(config["first_k_dense_replace"], layers):
        for part in ("gate_proj", "up_proj", "down_proj"):
            prefix = f"model.layers.{layer}.mlp.experts"
            first = f"{prefix}.0.{part}.weight"
            shape = (experts, *source.info(first)["shape"])
            plan(f"{prefix}.{part}.weight", shape,
                 lambda prefix=prefix, part=part: np.stack([source.get(f"{prefix}.{e}.{part}.weight") for e in range(experts)]),
                 source.is_bf16(first))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, make in plans:
        writer.write_tensor_data(make().view(np.uint8) if make().dtype == np.uint16 else make())
    writer.close()


if __name__ == "__main__":
    main()
