"""Changes one key of each golden's config.json after the other and records what transformers makes of it (float32,
eager attention), in keys/<name>.json.

    make_golden_keys.py [NAME...], with transformers 5.24

Each key of the file is left out once and has other values; so have the keys that the configuration class has and the
file has not, and the entries of `rope_parameters`. Keys of all other families' classes are added, too. A case has what
it leaves out (`without`), what it sets (`set`), and one of
- `logits`: those of a few tokens at a few positions, which differ from the golden's,
- `error`: transformers does not read or run it,
- `tensors`: it needs a tensor that the checkpoint has not, or one of another shape.
A case with none of these changes nothing. `foreign` lists keys, with values, of which the same is true.
"""

import copy
import json
import os
import sys
import typing
import warnings
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.filterwarnings("ignore")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FOLDER = Path(__file__).parent
LOGITS = 5  # recorded at each of two positions
WITHOUT_NUMBERS = {"architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "auto_map"}
TYPES = ["full_attention", "sliding_attention", "linear_attention", "conv", "chunked_attention"]
# Values of keys that are absent or of a kind whose other values do not follow from one.
VALUES = {
    "hidden_act": ["gelu", "relu"],
    "hidden_activation": ["silu", "gelu"],
    "position_embedding_type": [None, "rope", "nope"],
    "topk_method": ["greedy", "group_limited_greedy", "noaux_tc"],
    "gating": [True, False, "per-head", "per-element"],
    "mamba_d_head": ["auto", 8, 32],
    "use_bidirectional_attention": [True, False, "all", "vision"],
    "head_dim": [8, 16, 64],
    "q_lora_rank": [None, 16],
    "sliding_window": [None, 4, 0],
    "final_logit_softcapping": [None, 5.0],
    "time_step_limit": [[0.0, 0.5], [0.01, 100.0]],
    "attention_bias": [True, False],
    "num_attention_heads_per_layer": [[4, 8, 8, 8], [8, 8, 8, 8], [4, 4]],
    "mlp_only_layers": [[], [0], [1], [0, 1, 2, 3]],
    "no_rope_layers": [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0]],
    "no_rope_layer_interval": [2, 3],
    "layer_group_size": [2, 4, 6],
    "per_layer_config": [None, {}],
    "linear_attn_config": [{"kda_layers": [1, 3], "full_attn_layers": [2, 4]}],
    "moe_k": [2, 3],
    "moe_layer_end_index": [1, 2],
    "moe_layer_interval": [2],
    "moe_layer_start_index": [0, 2],
    "num_experts_per_tok": [1, 2],
    "top_k_experts": [1, 2],
    "scoring_func": ["softmax", "sigmoid"],
    "score_function": ["softmax", "sigmoid"],
}
ROPES = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 2.0, "mscale_all_dim": 0.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.5},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "longrope", "factor": 2.0, "short_factor": [2.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 16},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
]
# Keys that change the results of other networks, or of these in other programs, besides those of the classes here.
FOREIGN = {
    "alibi": True,
    "attention_chunk_size": 8,
    "attn_logit_softcapping": 5.0,
    "clip_qkv": 0.5,
    "embedding_multiplier": 3.0,
    "expert_swiglu_limit_list": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "full_attn_idxs": [0],
    "index_topk": 4,
    "logit_scale": 0.25,
    "moe_layer_freq": 2,
    "moe_router_activation_func": "softmax",
    "norm_eps": 0.5,
    "nope_layer_interval": 2,
    "no_rope_layer_interval": 2,
    "partial_rotary_factor": 0.5,
    "qk_layernorm": True,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "rope_theta": 77.0,
    "rotary_dim": 8,
    "rotary_pct": 0.5,
    "scale_emb": 3.0,
    "scoring_func": "softmax",
    "sliding_window_pattern": 2,
    "theta": 77.0,
    "tie_embedding": True,
    "topk_method": "greedy",
    "use_parallel_residual": True,
    "use_qk_norm": True,
}


def config_class(config):
    return CONFIG_MAPPING[config["model_type"]]


def own_keys(cls):
    """Keys of a configuration class with the types that it allows and its defaults."""
    keys = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, PreTrainedConfig) and base is not PreTrainedConfig:
            for key, hint in base.__dict__.get("__annotations__", {}).items():
                keys[key] = (hint, getattr(base, key, None))
    common = {"ignore_keys_at_rope_validation", "keys_to_ignore_at_inference", "model_type", "base_config_key"}
    keys = {k: v for k, v in keys.items() if k not in common and not k.startswith(("base_model_", "default_", "sub_"))}
    return keys | {"tie_word_embeddings": (bool, True)}


def others(key, value, hint):
    """Other values of a key."""
    if key in VALUES:
        found = VALUES[key]
    elif key == "layer_types":
        found = [list(reversed(value)), value[:-1]] if value else []
        found += [[ty] * len(value or [0] * 4) for ty in TYPES]
    elif key == "mlp_layer_types":
        found = [["dense"] + ["sparse"] * 3, ["sparse"] * 3, ["sparse", "dense", "sparse"], ["dense"] * 3]
        if value:
            layers = len(value)
            found = [["dense"] * n + ["sparse"] * (layers - n) for n in range(layers + 1)] + [["sparse"] * (layers - 1) + ["dense"]]
    elif isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int):
        found = [2 * value, value // 2] if value > 1 else [value + 1, 1 - value]
    elif isinstance(value, float):
        found = [2 * value + 0.25, value / 2]
    elif value is None:
        allowed = [None, *typing.get_args(hint)] if typing.get_args(hint) else [None, hint]
        samples = {bool: True, int: 2, float: 0.5}
        found = [samples[ty] for ty in allowed if ty in samples][:1]
    else:
        found = []
    if value is not None and type(None) in typing.get_args(hint):
        found = [*found, None]
    return [other for other in found if other != value or type(other) is not type(value)]


def cases(config):
    """What is left out and set, one case each."""
    cls = config_class(config)
    keys = own_keys(cls)
    for key in config:
        if key not in WITHOUT_NUMBERS:
            yield {"without": [key]}
    for key in dict.fromkeys([*config, *keys]):
        hint, default = keys.get(key, (None, None))
        if key in WITHOUT_NUMBERS or key == "rope_parameters":
            continue
        for value in others(key, config.get(key, default if key not in config else None), hint):
            yield {"set": {key: value}}
    for alias, key in (cls.attribute_map or {}).items():
        if key in config:
            yield {"without": [key], "set": {alias: config[key]}}
            for value in others(key, config[key], keys.get(key, (None, None))[0])[:1]:
                yield {"without": [key], "set": {alias: value}}
    yield from rope_cases(config)


def rope_cases(config):
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    nested = [key for key, value in rope.items() if isinstance(value, dict)]
    inner = [(key, rope[key]) for key in nested] or [(None, rope)]

    def case(name, entries):
        whole = {**rope, name: entries} if name else entries
        return {"set": {"rope_parameters": whole}}

    for name, entries in inner:
        for key, value in entries.items():
            rest = {k: v for k, v in entries.items() if k != key}
            yield case(name, rest)
            for other in others(key, value, None) if key != "rope_type" else []:
                yield case(name, {**rest, key: other})
        theta = entries.get("rope_theta", 10000.0)
        for kind in ROPES:
            yield case(name, {"rope_theta": theta, **kind})
    for name in nested:
        yield {"set": {"rope_parameters": {k: v for k, v in rope.items() if k != name}}}
        yield {"set": {"rope_parameters": rope[name]}}
    if not nested:
        # As checkpoints before transformers 5 state it.
        old = {k: v for k, v in rope.items() if k != "rope_theta"}
        old["type"] = old.pop("rope_type")
        theta = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
        scaling = None if old["type"] == "default" else old
        yield {"without": ["rope_parameters"], "set": {"rope_scaling": scaling, **theta}}
        yield {"without": ["rope_parameters"], "set": {**theta}} if theta else {"without": ["rope_parameters"]}
        yield {"set": {"rope_parameters": {"full_attention": rope, "sliding_attention": rope}}}
        other = {**rope, "rope_theta": 77.0}
        yield {"set": {"rope_parameters": {"full_attention": rope, "sliding_attention": other}}}


class Golden:
    def __init__(self, name):
        folder = FOLDER / name
        self.config = json.loads((folder / "config.json").read_text())
        golden = load_file(folder / "golden.safetensors")
        self.tokens = golden["input_ids"][:1]
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        self.model_class, self.state = type(model), model.state_dict()
        self.shapes = {name: tuple(x.shape) for name, x in self.state.items()}
        self.logits = self.run(self.config)
        assert (self.logits - golden["logits"][0]).abs().max() < 1e-4, name
        count, vocabulary = self.logits.shape
        self.positions = [count // 2, count - 1]
        self.ids = [(37 * i + 11) % vocabulary for i in range(LOGITS)]

    def build(self, config):
        config = PreTrainedConfig._decode_special_floats(copy.deepcopy(config))
        config = config_class(config).from_dict(config)
        config._attn_implementation = "eager"
        return self.model_class._from_config(config, dtype=torch.float32)

    def run(self, config):
        """The logits, or the name of a tensor that is not as the checkpoint has it."""
        with torch.device("meta"):
            shapes = {name: tuple(x.shape) for name, x in self.build(config).state_dict().items()}
        for name, shape in shapes.items():
            if self.shapes.get(name) != shape:
                return name
        model = self.build(config).eval()
        model.load_state_dict({name: self.state[name] for name in shapes})
        with torch.no_grad():
            return model(self.tokens, use_cache=False).logits[0]

    def some(self, logits):
        return [round(float(logits[p, i]), 4) for p in self.positions for i in self.ids]

    def outcome(self, case):
        config = {k: v for k, v in self.config.items() if k not in case.get("without", [])} | case.get("set", {})
        try:
            found = self.run(config)
        except Exception as error:  # of any kind: configuration classes and networks have no type of their own
            return {"error": f"{type(error).__name__}: {error}".split("\n")[0][:160]}
        if isinstance(found, str):
            return {"tensors": found}
        if torch.equal(found, self.logits):
            return {}
        if not torch.isfinite(found).all():
            return {"error": "the logits are no numbers"}
        if (found - self.logits).abs().max() < 1e-6:
            return {}
        return {"logits": self.some(found)}

    def foreign(self, others_keys):
        """Keys of other classes that change nothing, and the cases of those that do."""
        cls = config_class(self.config)
        own = set(own_keys(cls)) | set(self.config) | set(cls.attribute_map or {})
        keys = {key: value for key, value in others_keys.items() if key not in own}
        ignored, changing = [], []

        def halve(keys):
            if not keys:
                return
            case = {"set": {key: others_keys[key] for key in keys}}
            found = self.outcome(case)
            if not found:
                ignored.extend(keys)
            elif len(keys) == 1:
                changing.append(case | found)
            else:
                halve(keys[: len(keys) // 2])
                halve(keys[len(keys) // 2 :])

        halve(sorted(keys))
        return ignored, changing


def foreign_keys(names):
    """A changing value for each key of all classes."""
    keys = {}
    for name in names:
        config = json.loads((FOLDER / name / "config.json").read_text())
        cls = config_class(config)
        for key, (hint, default) in own_keys(cls).items():
            value = config.get(key, default)
            found = [other for other in others(key, value, hint) if other is not None]
            if found and key not in keys and key not in WITHOUT_NUMBERS:
                keys[key] = found[0]
        for alias, key in (cls.attribute_map or {}).items():
            if key in keys:
                keys.setdefault(alias, keys[key])
    return keys | FOREIGN


def main():
    torch.set_num_threads(1)
    names = sorted(path.parent.name for path in FOLDER.glob("*/golden.safetensors"))
    foreign = foreign_keys(names)
    for name in sys.argv[1:] or names:
        golden = Golden(name)
        seen, found = set(), []
        for case in cases(golden.config):
            text = json.dumps(case, sort_keys=True)
            if text not in seen:
                seen.add(text)
                found.append(case | golden.outcome(case))
        ignored, changing = golden.foreign(foreign)
        record = {
            "positions": golden.positions,
            "ids": golden.ids,
            "logits": golden.some(golden.logits),
            "foreign": {key: foreign[key] for key in ignored},
            "cases": found + changing,
        }
        lines = []
        for key, value in record.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                items = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value)
                lines.append(f'"{key}": [\n{items}\n]')
            else:
                lines.append(f'"{key}": {json.dumps(value, separators=(",", ":"))}')
        (FOLDER / "keys" / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        kinds = [next((k for k in ("logits", "error", "tensors") if k in case), "same") for case in record["cases"]]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("logits", "same", "error", "tensors"))
        print(f"{name:18} {counts}; {len(ignored)} foreign keys change nothing", flush=True)


if __name__ == "__main__":
    main()
