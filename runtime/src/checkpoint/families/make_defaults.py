"""Extracts the defaults of transformers' configuration classes into defaults.json.

    pip download transformers==5.24.0 --no-deps && unzip transformers-*.whl -d unpacked
    python make_defaults.py unpacked/transformers/models > defaults.json

The classes are parsed, not imported, so that torch is not needed. Left out are keys that do not change
numbers (training, dropout, caches, tokens), and biases: where a checkpoint does not say whether it
has them, its tensors do.
"""

import ast
import json
import pathlib
import sys

MODEL_TYPES = [
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe_lite",
    "gpt_oss",
    "lfm2_moe",
    "llama",
    "mistral",
    "mixtral",
    "olmoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
]
LEFT_OUT = {
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
    "use_cache",
}
# `__post_init__` computes it from other keys: one dense layer, then sparse ones.
COMPUTED = {"glm4_moe_lite": {"first_k_dense_replace": 1}}
# Another name for the number of MTP layers.
RENAMED = {"num_mtp_layers": "num_nextn_predict_layers", "default_theta": "rope_theta"}


def literal(node):
    """The value of a constant expression, `4096 * 32` included."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return literal(node.left) * literal(node.right)
    return ast.literal_eval(node)


def defaults(models, model_type):
    path = models / model_type / f"configuration_{model_type}.py"
    tree = ast.parse(path.read_text())
    (config,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found, aliases = {}, {}
    for node in config.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            name, value = node.target.id, node.value
        elif isinstance(node, ast.Assign):
            name, value = node.targets[0].id, node.value
        else:
            continue
        if name == "attribute_map":
            aliases = literal(value)
        elif name not in LEFT_OUT:
            found[RENAMED.get(name, name)] = literal(value)
    for node in ast.walk(config):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            target = node.targets[0]
            if isinstance(target, ast.Attribute) and target.attr == "rope_parameters":
                found["rope_parameters"] = literal(node.value)
    found |= COMPUTED.get(model_type, {})
    given = {aliases.get(k, k): value for k, value in found.items() if value is not None}
    aliases.pop("head_dim", None)  # which the network of MLA does not read
    return {"defaults": dict(sorted(given.items())), "aliases": aliases}


models = pathlib.Path(sys.argv[1])
print(json.dumps({name: defaults(models, name) for name in MODEL_TYPES}, indent=2))
