"""One matrix in every form of quantized checkpoints, with the weights that each form stands for.

The layouts and the arithmetic, including the types that it rounds to, are those of the packages, from their sources
(they need PyTorch to run; this script needs numpy alone):

- compressed-tensors 0.20.1: compressors/{pack_quantized,nvfp4,mxfp4,naive_quantized}, quantization/lifecycle
  (`_dequantize`: codes and scales in the type of the scales)
- nvidia-modelopt 0.47.0: torch/quantization/qtensor/nvfp4_tensor.py, `dequantize`
- autoawq 0.2.7: utils/packing_utils.py, `dequantize_gemm`
- GPTQ: `(code - (zero + 1)) * scale`, as gptqmodel's and transformers' reading of `checkpoint_format: gptq`
- DeepSeek: e4m3 and e2m1 with ue8m0 exponents of the OCP microscaling formats

    python3 make_quantized.py    # writes quantized.safetensors
"""

import json
import numpy as np

ROWS, COLS = 64, 128
rng = np.random.default_rng(20261129)
tensors = {}

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])
E4M3 = np.array([
    (-1.0 if b & 128 else 1.0) * ((b & 7) * 2.0**-9 if b >> 3 & 15 == 0 else (1 + (b & 7) / 8) * 2.0 ** ((b >> 3 & 15) - 7))
    for b in range(256)
], np.float32)
E4M3[[0x7F, 0xFF]] = np.nan


def bf16(x):
    """Rounds to bfloat16, ties to even; stays float32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def put(name, array, dtype):
    tensors[name] = (dtype, list(array.shape), np.ascontiguousarray(array).tobytes())


def put_bf16(name, array):
    put(name, (np.asarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16), "BF16")


def f16_scales(*shape):
    return rng.uniform(0.001, 0.02, shape).astype(np.float16)


def bf16_scales(*shape):
    return bf16(rng.uniform(0.001, 0.02, shape))


def expected(form, weights):
    """The weights, in the smallest type that holds them."""
    weights = weights.astype(np.float32)
    assert np.isfinite(weights).all()
    if (bf16(weights) == weights).all():
        put_bf16(f"{form}.expected", weights)
    elif (weights.astype(np.float16) == weights).all():
        put(f"{form}.expected", weights.astype(np.float16).view(np.uint16), "F16")
    else:
        put(f"{form}.expected", weights, "F32")


def pack(codes, axis, bits=4):
    """Packs along an axis into int32, the first code lowest."""
    per = 32 // bits
    codes = np.moveaxis(codes.astype(np.uint32), axis, -1)
    pad = -codes.shape[-1] % per
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, pad)])
    words = codes.reshape(*codes.shape[:-1], -1, per) << (np.arange(per, dtype=np.uint32) * bits)
    return np.moveaxis(np.bitwise_or.reduce(words, -1), -1, axis).view(np.int32)


def compressed_int4(form, group, symmetric=True, bits=4, act_order=False):
    half = 1 << (bits - 1)
    groups = COLS // group
    q = rng.integers(-half, half, (ROWS, COLS))
    scale = bf16_scales(ROWS, groups)
    zero = np.zeros((ROWS, groups), int) if symmetric else rng.integers(-half, half, (ROWS, groups))
    order = rng.permutation(COLS) // group if act_order else np.arange(COLS) // group
    put(f"{form}.weight_packed", pack(q + half, 1, bits), "I32")
    put_bf16(f"{form}.weight_scale", scale)
    put(f"{form}.weight_shape", np.array([ROWS, COLS], np.int64), "I64")
    if not symmetric:
        put(f"{form}.weight_zero_point", pack(zero + half, 0, bits), "I32")
    if act_order:
        put(f"{form}.weight_g_idx", order.astype(np.int32), "I32")
    expected(form, bf16((q - zero[:, order]).astype(np.float32) * scale[:, order]))


compressed_int4("int4-g32", 32)
compressed_int4("int4-g128", 128)
compressed_int4("int4-asymmetric", 32, symmetric=False)
compressed_int4("int4-act-order", 32, act_order=True)
compressed_int4("int8-g128", 128, bits=8)


def finite_e4m3(*shape):
    codes = rng.integers(0, 256, shape).astype(np.uint8)
    codes[codes & 0x7F == 0x7F] = 0
    return codes


for form, scale in [("fp8-channel", bf16_scales(ROWS, 1)), ("fp8-tensor", bf16_scales(1))]:
    codes = finite_e4m3(ROWS, COLS)
    put(f"{form}.weight", codes, "F8_E4M3")
    put_bf16(f"{form}.weight_scale", scale)
    expected(form, bf16(E4M3[codes] * scale))

codes = rng.integers(-127, 128, (ROWS, COLS)).astype(np.int8)
scale = bf16_scales(ROWS, 1)
put("int8-channel.weight", codes, "I8")
put_bf16("int8-channel.weight_scale", scale)
expected("int8-channel", bf16(codes.astype(np.float32) * scale))

# Blocks of 32 x 32 with exponents.
codes, exponents = finite_e4m3(ROWS, COLS), rng.integers(110, 128, (ROWS // 32, COLS // 32)).astype(np.uint8)
put("fp8-32x32.weight", codes, "F8_E4M3")
put("fp8-32x32.weight_scale_inv", exponents, "F8_E8M0")
expected("fp8-32x32", E4M3[codes] * np.repeat(np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, 0), 32, 1))


def nvfp4(form, divides):
    codes = rng.integers(0, 16, (ROWS, COLS)).astype(np.uint8)
    scale = rng.integers(0x28, 0x78, (ROWS, COLS // 16)).astype(np.uint8)
    relative = np.float32(rng.uniform(0.0005, 0.001))
    put(f"{form}.{'weight_packed' if divides else 'weight'}", codes[:, ::2] | codes[:, 1::2] << 4, "U8")
    put(f"{form}.weight_scale", scale, "F8_E4M3")
    if divides:
        stored = np.float32(1) / relative
        put(f"{form}.weight_global_scale", np.array([stored]), "F32")
        scales = E4M3[scale] / stored
    else:
        put(f"{form}.weight_scale_2", np.array(relative), "F32")
        put(f"{form}.input_scale", np.array(np.float32(1)), "F32")
        scales = E4M3[scale] * relative
    expected(form, bf16(E2M1[codes] * np.repeat(scales, 16, 1)))


nvfp4("nvfp4-compressed", True)
nvfp4("nvfp4-modelopt", False)


def mxfp4(form, codes_name, scale_name, code_type, scale_type):
    codes = rng.integers(0, 16, (ROWS, COLS)).astype(np.uint8)
    exponents = rng.integers(112, 130, (ROWS, COLS // 32)).astype(np.uint8)
    put(f"{form}.{codes_name}", codes[:, ::2] | codes[:, 1::2] << 4, code_type)
    put(f"{form}.{scale_name}", exponents, scale_type)
    expected(form, E2M1[codes] * np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, 1))


mxfp4("mxfp4-compressed", "weight_packed", "weight_scale", "U8", "U8")
mxfp4("mxfp4-deepseek", "weight", "scale", "I8", "F8_E8M0")


def qweight(form, group, awq, act_order=False):
    groups = COLS // group
    q, zero = rng.integers(0, 16, (COLS, ROWS)), rng.integers(1, 16, (groups, ROWS))
    scale = f16_scales(groups, ROWS)
    order = rng.permutation(COLS) // group if act_order else np.arange(COLS) // group
    if awq:
        # Output numbers in the order of AWQ_ORDER within a word.
        mix = lambda x: x.reshape(x.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(x.shape)
        put(f"{form}.qweight", pack(mix(q), 1), "I32")
        put(f"{form}.qzeros", pack(mix(zero), 1), "I32")
    else:
        put(f"{form}.qweight", pack(q, 0), "I32")
        put(f"{form}.qzeros", pack(zero - 1, 1), "I32")
        put(f"{form}.g_idx", order.astype(np.int32), "I32")
    put(f"{form}.scales", scale.view(np.uint16), "F16")
    weights = ((q - zero[order]).astype(np.float16) * scale[order]).astype(np.float32)
    expected(form, weights.T)


qweight("gptq-g32", 32, awq=False)
qweight("gptq-act-order", 32, awq=False, act_order=True)
qweight("awq-g128", 128, awq=True)
qweight("awq-g32", 32, awq=True)

weights = rng.normal(0, 0.02, (ROWS, COLS))
put("f64.weight", weights, "F64")
expected("f64", weights)

header, at = {}, 0
for name, (dtype, shape, data) in tensors.items():
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
    at += len(data)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open("quantized.safetensors", "wb") as out:
    out.write(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))
