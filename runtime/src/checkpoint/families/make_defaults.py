"""Extracts the defaults of transformers' configuration classes into defaults.json.

    pip download transformers==5.24.0 --no-deps && unzip transformers-*.whl -d unpacked
    python make_defaults.py unpacked/transformers/models > defaults.json

The classes are parsed, not imported, so that torch is not needed. Left out of the defaults are keys that
do not change numbers (training, dropout, caches, tokens), and biases: where a checkpoint does not say
whether it has them, its tensors do. `keys` are all that a class reads.
"""

import ast
import json
import pathlib
import sys

MODEL_TYPES = [
    "bailing_hybrid",
    "deepseek_v2",
    "deepseek_v3",
    "ernie4_5_moe",
    "gemma3_text",
    "gemma4_text",
    "glm4_moe",
    "glm4_moe_lite",
    "gpt_oss",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "granitemoeshared",
    "kimi_linear",
    "laguna",
    "lfm2_moe",
    "llama",
    "minimax_m2",
    "mistral",
    "mixtral",
    "olmoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "smollm3",
]
LEFT_OUT = {
    "base_config_key",
    "ignore_keys_at_rope_validation",
    "attention_bias",
    "attention_dropout",
    "base_model_ep_plan",
    "base_model_pp_plan",
    "base_model_tp_plan",
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
    "mlp_bias",
    "model_type",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "qkv_bias",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "time_step_limit",
    "use_cache",
}
# `__post_init__` computes them: one dense layer, then sparse ones; the rotated share of a head. Granite
# always rotates, unless it is a hybrid.
COMPUTED = {
    **{
        name: {"partial_rotary_factor": 0.25}
        for name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
    },
    "gemma3_text": {
        "default_theta": None,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1000000.0,
        "sliding_window_pattern": 6,
    },
    "gemma4_text": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 1000000.0,
                "partial_rotary_factor": 0.25,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "granite": {"position_embedding_type": "rope"},
    "glm4_moe": {"partial_rotary_factor": 0.5},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "kimi_linear": {"first_k_dense_replace": 1},
    "laguna": {
        "first_k_dense_replace": 1,
        "rope_parameters": {
            "full_attention": {"rope_theta": 500000.0, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        },
    },
}
# Another name for the number of MTP layers.
RENAMED = {"num_mtp_layers": "num_nextn_predict_layers", "default_theta": "rope_theta"}
# Keys that the configuration reader knows by the name that other families use.
KIMI = {
    "model_max_length": "max_position_embeddings",
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts": "n_routed_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_local_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
}
COMMON = {
    "bailing_hybrid": KIMI,
    "ernie4_5_moe": {
        "moe_k": "num_experts_per_tok",
        "moe_layer_start_index": "first_k_dense_replace",
        "moe_num_experts": "num_experts",
        "moe_num_shared_experts": "n_shared_experts",
    },
    "gemma4_text": {"top_k_experts": "num_experts_per_tok"},
    "granitemoeshared": {"shared_intermediate_size": "shared_expert_intermediate_size"},
    "granitemoehybrid": {"shared_intermediate_size": "shared_expert_intermediate_size"},
    "kimi_linear": KIMI,
    "laguna": {"moe_routed_scaling_factor": "routed_scaling_factor"},
    "lfm2_moe": {"num_dense_layers": "first_k_dense_replace"},
}


def literal(node):
    """The value of a constant expression, `4096 * 32` included."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return literal(node.left) * literal(node.right)
    return ast.literal_eval(node)


def stated_type(node):
    """The `model_type` that a line of a class states."""
    if isinstance(node, ast.Assign) and node.targets[0].id == "model_type":
        return literal(node.value)


def defaults(models, model_type):
    module = model_type.removesuffix("_text")
    path = models / module / f"configuration_{module}.py"
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (config,) = [node for node in classes if model_type in map(stated_type, node.body)]
    found, aliases, keys = {}, {}, set()
    for node in config.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            name, value = node.target.id, node.value
            keys.add(name)
        elif isinstance(node, ast.Assign):
            name, value = node.targets[0].id, node.value
        else:
            continue
        if name == "attribute_map":
            aliases = literal(value)
        elif name not in LEFT_OUT:
            found[RENAMED.get(name, name)] = literal(value)
    for node in ast.walk(config):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("kwargs.get", "kwargs.pop"):
            keys.add(literal(node.args[0]))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            target = node.targets[0]
            computed = any(isinstance(part, ast.Attribute) for part in ast.walk(node.value))
            if isinstance(target, ast.Attribute) and target.attr == "rope_parameters" and not computed:
                found["rope_parameters"] = literal(node.value)
    found |= COMPUTED.get(model_type, {})
    common = COMMON.get(model_type, {})
    aliases = {k: own for k, own in aliases.items() if own not in common} | common
    given = {aliases.get(k, k): value for k, value in found.items() if value is not None}
    aliases.pop("head_dim", None)  # which the network of MLA does not read
    keys = {aliases.get(key, key) for key in keys | set(given)} - set(aliases)
    return {"defaults": dict(sorted(given.items())), "aliases": aliases, "keys": sorted(keys)}


models = pathlib.Path(sys.argv[1])
print(json.dumps({name: defaults(models, name) for name in MODEL_TYPES}, indent=2))
