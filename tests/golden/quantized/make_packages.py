"""One matrix of a golden checkpoint (../qwen3-moe) in the forms that packages of quantization write, with the weights that the
same packages compute from them.

    python make_packages.py [NAME...]    # writes NAME.safetensors; all four without names

| file | package, in the version of 2026-11-29 | what writes | what reads |
|---|---|---|---|
| compressed-tensors | compressed-tensors 0.20.1 | `compress` of its compressors | `decompress` |
| modelopt | nvidia-modelopt 0.47.0 | `quantize` of its tensors | `dequantize` |
| awq | autoawq 0.2.7.post3 | `WQLinear_GEMM.from_linear` | `dequantize_gemm` |
| gptq | gptqmodel, commit of 2026-08-23 | `TorchLinear.pack_original` | `TorchLinear.dequantize_weight` |

Tensors are named `FORM.NAME`, and `FORM.expected` are the weights. The header has each form's `quantization_config` as the
package states it. Needs PyTorch for CPUs, and the packages, each on its own: their requirements contradict each other.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
MATRIX = "model.layers.1.self_attn.o_proj.weight"


def matrix() -> torch.Tensor:
    with safe_open(HERE.parent / "qwen3-moe/model.safetensors", "pt") as file:
        return file.get_tensor(MATRIX)


class Forms:
    """The tensors of all forms of a package."""

    def __init__(self) -> None:
        self.tensors, self.configs = {}, {}

    def add(self, form: str, config: dict, tensors: dict[str, torch.Tensor], expected: torch.Tensor) -> None:
        for name, tensor in {**tensors, "expected": expected}.items():
            self.tensors[f"{form}.{name}"] = tensor.detach().clone().contiguous()
        self.configs[form] = json.dumps(config)

    def save(self, name: str) -> None:
        save_file(self.tensors, HERE / f"{name}.safetensors", metadata=self.configs)
        print(name, *self.configs)


def bare(*packages: str) -> None:
    """Lets modules of packages be imported without what their `__init__` imports: data sets, kernels for GPUs."""
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = importlib.util.find_spec(name).submodule_search_locations
        sys.modules[name] = module


def groups(weights: torch.Tensor, size: int) -> torch.Tensor:
    return weights.reshape(len(weights), -1, size)


def compressed_tensors(forms: Forms) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    weights = matrix()
    activations = QuantizationArgs(num_bits=8, type="float", dynamic=True, strategy="token")
    block = dict(num_bits=8, type="float", strategy="block", block_structure=[32, 32])
    four = dict(num_bits=4, type="float")
    kinds = {
        "int4-g32": ("pack-quantized", dict(num_bits=4, strategy="group", group_size=32), None),
        "int4-g128": ("pack-quantized", dict(num_bits=4, strategy="group", group_size=128), None),
        "int4-asymmetric": ("pack-quantized", dict(num_bits=4, strategy="group", group_size=32, symmetric=False), None),
        "int4-channel": ("pack-quantized", dict(num_bits=4, strategy="channel"), None),
        "int8-g128": ("pack-quantized", dict(num_bits=8, strategy="group", group_size=128), None),
        "int8-channel": ("int-quantized", dict(num_bits=8, strategy="channel"), activations),
        "fp8-channel": ("float-quantized", dict(num_bits=8, type="float", strategy="channel"), activations),
        "fp8-tensor": ("float-quantized", dict(num_bits=8, type="float", strategy="tensor"), activations),
        "fp8-block": ("float-quantized", block, activations),
        "nvfp4": ("nvfp4-pack-quantized", dict(four, strategy="tensor_group", group_size=16, scale_dtype="float8_e4m3fn"), None),
        "mxfp4": ("mxfp4-pack-quantized", dict(four, strategy="group", group_size=32, scale_dtype="uint8"), None),
    }
    for form, (name, args, inputs) in kinds.items():
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args), input_activations=inputs)
        state = {"weight": weights}
        # Least and largest weights of each part that shares a scale, from which the package has the scales.
        parts = {
            "tensor": weights.reshape(1, -1),
            "channel": weights[:, None, :],
            "block": weights.reshape(2, 32, -1, 32).transpose(1, 2).reshape(2, -1, 1024),
        }.get(args["strategy"])
        parts = groups(weights, args["group_size"]) if parts is None else parts
        (least, most), whole = parts.aminmax(dim=-1), None
        if form == "nvfp4":
            whole = state["weight_global_scale"] = generate_gparam(weights.min().reshape(1), weights.max().reshape(1))
        scale, zero = calculate_qparams(least, most, scheme.weights, global_scale=whole)
        state |= {"weight_scale": scale, "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(name)
        stored = compressor.compress(state, scheme)
        expected = compressor.decompress(stored, scheme)["weight"]
        config = QuantizationConfig(config_groups={"group_0": scheme}, format=name, quantization_status="compressed")
        forms.add(form, config.model_dump(mode="json"), stored, expected)


def modelopt(forms: Forms) -> None:
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    def config(algorithm: str, **more) -> dict:
        stated = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"], **more}
        whole = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": stated}
        return convert_hf_quant_config_format(whole)

    weights = matrix()
    packed, scale, whole = NVFP4QTensor.quantize(weights, 16)
    expected = packed.dequantize(scale=scale, double_scale=whole, block_sizes={-1: 16})
    stored = {"weight": packed._quantized_data, "weight_scale": scale, "weight_scale_2": whole}
    for form, algorithm in [("nvfp4", "NVFP4"), ("nvfp4-weights", "W4A16_NVFP4")]:
        forms.add(form, config(algorithm, group_size=16), stored, expected)
    for form, algorithm, axis in [("fp8-tensor", "FP8", None), ("fp8-channel", "FP8_PER_CHANNEL_PER_TOKEN", 0)]:
        # Its export has the scales in single precision.
        bytes, scale = FP8QTensor.quantize(weights.float(), axis=axis)
        expected = bytes.dequantize(scale=scale)
        forms.add(form, config(algorithm), {"weight": bytes._quantized_data, "weight_scale": scale}, expected)


def grid(weights: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points `[rows, groups]` of four bits, as methods with zero points choose them."""
    least, most = groups(weights, size).aminmax(dim=-1)
    scale = ((most - least) / 15).half().float()
    return scale, (-least / scale).round().clamp(1, 15)


def awq(forms: Forms) -> None:
    bare("awq", "awq.models")
    from awq.models._config import AwqConfig
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    weights = matrix().float()
    linear = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    linear.weight.data = weights
    for size in (32, 128):
        scale, zero = grid(weights, size)
        # Groups of inputs first, as its quantizer hands them over.
        found = WQLinear_GEMM.from_linear(linear, 4, size, scales=scale.t().contiguous(), zeros=zero.t().contiguous())
        stored = {name: getattr(found, name) for name in ("qweight", "qzeros", "scales")}
        expected = dequantize_gemm(**stored, bits=4, group_size=size).t()
        forms.add(f"g{size}", AwqConfig(w_bit=4, q_group_size=size).to_transformers_dict(), stored, expected)


def gptq(forms: Forms) -> None:
    bare("gptqmodel", "gptqmodel.models")
    sys.modules["gptqmodel"].DEBUG_ON = False
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import QuantizeConfig

    weights = matrix().float()
    rows, columns = weights.shape
    linear = torch.nn.Linear(columns, rows, bias=False)
    linear.weight.data = weights
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(5))
    for form, size, acts, version in [("g32", 32, False, "gptq"), ("act-order", 32, True, "gptq"), ("v2", 128, False, "gptq_v2")]:
        place = torch.argsort(order) if acts else torch.arange(columns)
        scale, zero = grid(weights[:, torch.argsort(place)], size)
        found = TorchLinear(4, size, False, acts, columns, rows, bias=False)
        found.pack_original(linear, scale, zero, (place // size).int())
        found.post_init()
        expected = found.dequantize_weight().t()
        config = QuantizeConfig(bits=4, group_size=size, desc_act=acts, sym=False, format=version, offload_to_disk=False)
        if version == "gptq":
            # Of four bits, as its `convert_gptq_v2_to_v1_format_module` does it.
            found.qzeros -= 0b00010001000100010001000100010001
        stored = {name: getattr(found, name) for name in ("qweight", "qzeros", "scales", "g_idx")}
        forms.add(form, config.to_dict(), stored, expected)


def main() -> None:
    torch.set_num_threads(1)
    packages = {"compressed-tensors": compressed_tensors, "modelopt": modelopt, "awq": awq, "gptq": gptq}
    for name in sys.argv[1:] or packages:
        forms = Forms()
        packages[name](forms)
        forms.save(name)


if __name__ == "__main__":
    main()
