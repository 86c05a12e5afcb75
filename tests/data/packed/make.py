#!/usr/bin/env python3
"""Makes the packed checkpoints of this folder anew, or compares them with a fresh run.

    make.py                       writes every folder
    make.py --model DIR --out OUT packs a whole Llama by the methods that people use most, for `SLMC_PACKED=OUT`
    make.py --check               compares: stored tensors and expected values bit for bit, computed logits within 1e-5 of the largest
                      magnitude, since the order of their sums depends on the CPU; exits with 1 on a difference

Integers, zeros and scales of every matrix are chosen first; the expected weights, scale · (integer − zero) in f32, come from
them and never from a packed tensor. The packing is written here from the rules of the public packers (README.md names them
with their versions). With compressed-tensors installed, its own packer must give the same words.
"""
import hashlib
import json
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import recorded  # noqa: E402

F32, F16, BF16, I32, I64, I8, U8 = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.int8,
                                    torch.uint8)
TOLERANCE = 1e-5
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
LENGTH = 16
# Width of the network, by folder: gemv_fast packs 64 columns at a time.
WIDTH, WIDTHS = 96, {"awq-gemv-fast": 128}


def base(source, width):
    """One layer of a golden checkpoint: configuration, and tensors in f32 rounded to f16."""
    config = json.load(open(os.path.join(GOLDEN, source, "config.json")))
    tensors = load_file(os.path.join(GOLDEN, source, "model.safetensors"))
    later = ("layers.1.", "layers.2.", "h.1.", "h.2.")
    tensors = {name: tensor.half().float() for name, tensor in tensors.items() if not any(part in name for part in later)}
    if source == "gpt2":
        config["n_layer"] = 1
    else:
        config |= {"num_hidden_layers": 1, "tie_word_embeddings": True}
        del tensors["lm_head.weight"]
    if source == "llama-mha":
        config["intermediate_size"] = width
        for name in tensors:
            if "gate_proj" in name or "up_proj" in name:
                tensors[name] = tensors[name][:width].clone()
            if "down_proj" in name:
                tensors[name] = tensors[name][:, :width].clone()
    return config, tensors


def whole(model):
    """All of a model: configuration, and tensors in f32 rounded to f16."""
    config = json.load(open(os.path.join(model, "config.json")))
    tensors = load_file(os.path.join(model, "model.safetensors"))
    return config, {name: tensor.half().float() for name, tensor in tensors.items()}


def is_linear(name, tensor):
    return tensor.dim() == 2 and any(part in name for part in ("_proj.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight"))


class Rounded:
    """A matrix (out, in) as integers with zeros and scales of groups; `groups` says which group each column is in."""

    def __init__(self, weights, bits, size, symmetric, dtype, order=None, signed_scale=False):
        rows, columns = weights.shape
        size = columns if size == -1 else size
        self.bits, self.columns, self.rows = bits, columns, rows
        self.count = -(-columns // size)
        self.groups = torch.arange(columns) // size if order is None else (order.argsort() // size)
        half, top = 2 ** (bits - 1), 2 ** bits - 1
        scales, zeros = torch.zeros(rows, self.count), torch.zeros(rows, self.count, dtype=I64)
        for group in range(self.count):
            part = weights[:, self.groups == group]
            if symmetric:
                scale = part.abs().amax(1) / (half if signed_scale else half - 0.5)
                zeros[:, group] = half
            else:
                low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
                scale = (high - low) / top
                zeros[:, group] = (-low / scale).round().clamp(1, top)
            scales[:, group] = scale.clamp(min=1e-4)
        self.scales, self.zeros = scales.to(dtype), zeros
        wide = self.scales.float()[:, self.groups]
        self.codes = ((weights / wide).round().long() + zeros[:, self.groups]).clamp(0, top)

    def weights(self):
        """What the integers stand for: one f32 product each."""
        return self.scales.float()[:, self.groups] * (self.codes - self.zeros[:, self.groups]).float()


def stream(codes, bits):
    """The last dimension as a stream of `bits` bits, low first, in 32-bit words: codes (…, n) -> (…, ceil(n · bits / 32))."""
    codes = codes.numpy().astype(np.uint64)
    words = np.zeros(codes.shape[:-1] + (-(-codes.shape[-1] * bits // 32),), np.uint64)
    for index in range(codes.shape[-1]):
        word, bit = divmod(index * bits, 32)
        words[..., word] |= codes[..., index] << np.uint64(bit) & np.uint64(0xFFFFFFFF)
        if bit + bits > 32:
            words[..., word + 1] |= codes[..., index] >> np.uint64(32 - bit)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32).copy())


def gptq(rounded, version, g_idx):
    """qweight (in · b / 32, out), qzeros (G, out · b / 32) with version 1 one less, scales (G, out)."""
    tensors = {
        "qweight": stream(rounded.codes, rounded.bits).T.contiguous(),
        "qzeros": stream((rounded.zeros - int(version == 1)).T, rounded.bits),
        "scales": rounded.scales.T.contiguous(),
    }
    return tensors | ({"g_idx": rounded.groups.int()} if g_idx else {})


def awq_words(codes):
    """(…, n) -> (…, n / 8): nibble k of a word is entry [0, 2, 4, 6, 1, 3, 5, 7][k]."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return stream(codes.unflatten(-1, (-1, 8))[..., order].flatten(-2), 4)


def awq_gemm(rounded):
    return {"qweight": awq_words(rounded.codes.T), "qzeros": awq_words(rounded.zeros.T), "scales": rounded.scales.T.contiguous()}


def awq_padding(rounded):
    """Groups that AutoAWQ's calculate_zeros_width adds."""
    size = rounded.columns // rounded.count
    multiple = {32: 4, 64: 2}.get(size, 1)
    width = -(-(-(-rounded.count // 8)) // multiple) * multiple
    return width * 8 - rounded.count


def awq_gemv(rounded):
    """qweight (out, in / 8) plain; qzeros and scales padded."""
    pad = awq_padding(rounded)
    zeros = torch.nn.functional.pad(rounded.zeros, (0, pad))
    scales = torch.nn.functional.pad(rounded.scales.float(), (0, pad)).to(rounded.scales.dtype)
    return {"qweight": stream(rounded.codes, 4), "qzeros": stream(zeros, 4), "scales": scales}


def awq_gemv_fast(rounded):
    """qweight i16 (out / 4, in): four rows of 64 columns in 64 words; scales and −scale · zero (groups, out), padded."""
    pad = awq_padding(rounded)
    codes = rounded.codes.unflatten(0, (-1, 4)).unflatten(2, (-1, 2, 4, 8))  # (blocks, row, step, half, nibble, place)
    places = codes.permute(0, 2, 1, 3, 5, 4)  # a word for (row, half, place)
    words = (places << torch.tensor([0, 4, 8, 12])).sum(-1).flatten(1)
    minima = -(rounded.scales.float() * rounded.zeros.float()).half()
    padded = [torch.nn.functional.pad(numbers.float(), (0, pad)).half().T.contiguous() for numbers in (rounded.scales, minima)]
    weights = rounded.scales.float()[:, rounded.groups] * rounded.codes.float() + minima.float()[:, rounded.groups]
    qweight = torch.from_numpy(words.numpy().astype(np.uint16).view(np.int16).copy())
    return weights, {"qweight": qweight, "scales": padded[0], "qzeros": padded[1]}


def int4_tensor(weights, size, symmetric, dtype):
    """torchao's Int4Tensor: qdata i8 (out, in / 2) of signed halves, scale and zero_point (groups, out), the latter added."""
    groups = weights.unflatten(1, (-1, size))
    if symmetric:
        scale = groups.abs().amax(2).clamp(min=1e-6) / 8
        zero = torch.zeros_like(scale)
        codes = (groups / scale[..., None]).round().clamp(-8, 7)
    else:
        low = groups.amin(2)
        scale = (groups.amax(2) - low).clamp(min=1e-6) / 15
        zero = low + scale * 8
        codes = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15) - 8
    scale, zero = scale.to(dtype), zero.to(dtype)
    weights = (codes * scale.float()[..., None] + zero.float()[..., None]).flatten(1)
    codes = codes.flatten(1).to(I8)
    qdata = (codes[:, 1::2] << 4) | (codes[:, ::2] & 15)
    return weights, {"qdata": qdata, "scale": scale.T.contiguous(), "zero_point": zero.T.contiguous()}


def check_with_package(codes, bits, dimension, words):
    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    except ImportError:
        return
    ours = pack_to_int32((codes - 2 ** (bits - 1)).to(I8), bits, packed_dim=dimension)
    assert torch.equal(ours, words), "compressed-tensors packs otherwise"


def ct_pack(rounded, symmetric, g_idx, old=False):
    """weight_packed (out, words), weight_shape, weight_scale (out, G), weight_zero_point packed along dimension 0."""
    bits = rounded.bits

    def words(codes):
        if not old:
            return stream(codes, bits)
        fields = 32 // bits  # before 0.17: every word begins anew
        padded = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % fields)).unflatten(-1, (-1, fields))
        return stream(padded, bits).flatten(-2)

    packed = words(rounded.codes)
    if not old:
        check_with_package(rounded.codes, bits, 1, packed)
    tensors = {"weight_packed": packed, "weight_shape": torch.tensor([rounded.rows, rounded.columns]),
               "weight_scale": rounded.scales}
    if not symmetric:
        zeros = words(rounded.zeros.T).T.contiguous()
        if not old:
            check_with_package(rounded.zeros, bits, 0, zeros)
        tensors["weight_zero_point"] = zeros
    return tensors | ({"weight_g_idx": rounded.groups.int()} if g_idx else {})


def in_bytes(rounded, symmetric, names):
    """Integers in i8 less 2^(b−1), scales (out, G), zeros likewise."""
    half = 2 ** (rounded.bits - 1)
    qdata, scale, zero = names
    tensors = {qdata: (rounded.codes - half).to(I8), scale: rounded.scales}
    return tensors | ({} if symmetric else {zero: (rounded.zeros - half).to(I8)})


def bitmask(weights):
    """The two of every four values that are largest: what stays, packed row by row, and bits, low first."""
    rows, columns = weights.shape
    kept = weights.abs().unflatten(1, (-1, 4)).topk(2, dim=2).indices
    mask = torch.zeros(rows, columns // 4, 4, dtype=torch.bool).scatter_(2, kept, True).flatten(1)
    bits = torch.from_numpy(np.packbits(mask.numpy(), axis=1, bitorder="little"))
    values = weights[mask].view(rows, columns // 2)
    return torch.where(mask, weights, 0.0), {"compressed": values.half(), "bitmask": bits, "shape": torch.tensor([[rows], [columns]])}


INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
PER_TOKEN = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


def ct_config(format, weights, inputs=None, **more):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
            "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


def gptq_config(bits, size, **more):
    return {"quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": False, "sym": True, "lm_head": False,
            **more}


def order_of(name, columns):
    """An order of activations."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return torch.randperm(columns, generator=torch.Generator().manual_seed(seed))


def parts(stem, tensors, separator="."):
    return {f"{stem}{separator}{name}": tensor for name, tensor in tensors.items()}


def llama_gptq_v1(stem, w):
    rounded = Rounded(w, 4, 32, True, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 1, True))


def llama_gptq_v2_order(stem, w):
    rounded = Rounded(w, 4, 32, False, F16, order=order_of(stem, w.shape[1]))
    return rounded.weights(), parts(stem, gptq(rounded, 2, True))


def llama_gptq_3bit(stem, w):
    rounded = Rounded(w, 3, 32, True, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 1, False))


def llama_gptq_2bit_old(stem, w):
    rounded = Rounded(w, 2, 32, True, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 1, True) | {"bias": torch.zeros(w.shape[0], dtype=F16)})


def gpt2_gptq_8bit(stem, w):
    rounded = Rounded(w, 8, -1, True, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 1, True))


def phi3_gptq(stem, w):
    rounded = Rounded(w, 4, 8, True, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 1, True))


def llama_awq_gemm(stem, w):
    rounded = Rounded(w, 4, 32, False, F16)
    return rounded.weights(), parts(stem, awq_gemm(rounded))


def llama_awq_gemv(stem, w):
    rounded = Rounded(w, 4, 32, False, F16)
    return rounded.weights(), parts(stem, awq_gemv(rounded))


def llama_awq_gemv_fast(stem, w):
    weights, tensors = awq_gemv_fast(Rounded(w, 4, 32, False, F16))
    return weights, parts(stem, tensors)


def llama_auto_round(stem, w):
    rounded = Rounded(w, 4, 32, False, F16)
    return rounded.weights(), parts(stem, gptq(rounded, 2, False))


def llama_ct_w4(stem, w):
    rounded = Rounded(w, 4, 32, True, BF16)
    return rounded.weights(), parts(stem, ct_pack(rounded, True, False))


def llama_ct_w4_order(stem, w):
    rounded = Rounded(w, 4, 32, False, F32, order=order_of(stem, w.shape[1]))
    return rounded.weights(), parts(stem, ct_pack(rounded, False, True))


def llama_ct_w3_old(stem, w):
    rounded = Rounded(w, 3, 32, False, F16)
    return rounded.weights(), parts(stem, ct_pack(rounded, False, False, old=True))


def llama_ct_mixed(stem, w):
    """Attention in bytes with scales of rows, inputs quantized with static scales; the network in words of 5 bits."""
    if "self_attn" in stem:
        rounded = Rounded(w, 8, -1, True, BF16)
        names = ("weight", "weight_scale", "weight_zero_point")
        static = {"input_scale": torch.tensor([0.02], dtype=BF16)}
        return rounded.weights(), parts(stem, in_bytes(rounded, True, names) | static)
    rounded = Rounded(w, 5, 32, False, BF16)
    return rounded.weights(), parts(stem, ct_pack(rounded, False, False))


def llama_ct_sparse(stem, w):
    weights, tensors = bitmask(w)
    return weights, parts(stem, tensors)


def llama_torchao(stem, w):
    """Attention: Int8Tensor, one scale a row; the network: IntxUnpackedToInt8Tensor with zero points."""
    names = ("qdata", "scale", "zero_point")
    if "self_attn" in stem:
        rounded = Rounded(w, 8, -1, True, F32)
        return rounded.weights(), parts(stem, in_bytes(rounded, True, names), "._weight_")
    rounded = Rounded(w, 4, 32, False, BF16)
    return rounded.weights(), parts(stem, in_bytes(rounded, False, names), "._weight_")


def llama_torchao_int4(stem, w):
    """Attention: symmetric, as for inputs in 8 bits; the network: with zero points."""
    weights, tensors = int4_tensor(w, 32, "self_attn" in stem, BF16)
    return weights, parts(stem, tensors, "._weight_")


MIXED = {
    "quant_method": "compressed-tensors", "format": "mixed-precision", "quantization_status": "compressed",
    "config_groups": {
        "group_0": {"targets": ["re:.*self_attn.*"], "weights": INT8, "input_activations": PER_TOKEN | {"dynamic": False},
                    "format": "int-quantized"},
        "group_1": {"targets": ["re:.*mlp.*"], "weights": INT4 | {"num_bits": 5, "symmetric": False},
                    "format": "pack-quantized"},
    },
    "ignore": ["lm_head"],
}
TORCHAO = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8DynamicActivationIntxWeightConfig", "_data": {}}}}
INT4_TENSOR = {"_type": "Int4Tensor", "_data": {"block_size": [1, 32]}, "_tensor_data_names": ["qdata", "scale", "zero_point"]}
AUTO_ROUND = {"quant_method": "auto-round", "packing_format": "auto_round", "bits": 4, "group_size": 32, "sym": False,
              "data_type": "int", "act_bits": 16}

# folder: (base, packer of a matrix, quantization_config, file that it stands in where that is not config.json)
CHECKPOINTS = {
    "gptq-v1": ("llama-mha", llama_gptq_v1, gptq_config(4, 32, checkpoint_format="gptq", pack_dtype="int32"), None),
    "gptq-v2-order": ("llama-mha", llama_gptq_v2_order,
                      gptq_config(4, 32, checkpoint_format="gptq_v2") | {"desc_act": True, "sym": False}, None),
    "gptq-3-bits": ("llama-mha", llama_gptq_3bit, gptq_config(3, 32), None),
    "gptq-2-bits-beside": ("llama-mha", llama_gptq_2bit_old,
                           {"bits": 2, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "sym": True,
                            "true_sequential": True, "model_name_or_path": None}, "quantize_config.json"),
    "gptq-gpt2": ("gpt2", gpt2_gptq_8bit, gptq_config(8, -1), None),
    "gptq-phi3": ("phi3-fused-qkv", phi3_gptq, gptq_config(4, 8), None),
    "awq-gemm": ("llama-mha", llama_awq_gemm,
                 {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
                  "modules_to_not_convert": None}, None),
    "awq-gemv-beside": ("llama-mha", llama_awq_gemv,
                        {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMV"}, "quant_config.json"),
    "awq-gemv-fast": ("llama-mha", llama_awq_gemv_fast,
                      {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemv_fast"}, None),
    "auto-round": ("llama-mha", llama_auto_round, AUTO_ROUND, None),
    "ct-4-bits": ("llama-mha", llama_ct_w4, ct_config("pack-quantized", INT4, version="0.20.1"), None),
    "ct-4-bits-order": ("llama-mha", llama_ct_w4_order,
                        ct_config("pack-quantized", INT4 | {"symmetric": False, "actorder": "group"}), None),
    "ct-3-bits-old": ("llama-mha", llama_ct_w3_old,
                      ct_config("pack-quantized", INT4 | {"num_bits": 3, "symmetric": False}, version="0.9.4"), None),
    "ct-mixed": ("llama-mha", llama_ct_mixed, MIXED, None),
    "ct-bitmask": ("llama-mha", llama_ct_sparse,
                   {"quant_method": "compressed-tensors", "format": "dense", "quantization_status": "compressed",
                    "config_groups": {}, "ignore": ["lm_head"],
                    "sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "targets": ["Linear"]}},
                   None),
    "torchao": ("llama-mha", llama_torchao, TORCHAO, None),
    "torchao-int4": ("llama-mha", llama_torchao_int4,
                     {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig",
                                                                            "_data": {"group_size": 32}}}}, None),
}


def computed(config, tensors):
    """Logits that transformers computes in f32 with these weights."""
    kind = transformers.AutoConfig.for_model(**config)
    kind._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(kind).eval().float()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("lm_head" in name for name in missing), (missing, unexpected)
    model.tie_weights()
    tokens = torch.randint(3, config["vocab_size"], (1, LENGTH), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    return {"input_ids": tokens.int(), "logits": logits.contiguous()}


def make(name, folder, model=None):
    source, pack, quantization, beside = CHECKPOINTS[name]
    config, tensors = base(source, WIDTHS.get(name, WIDTH)) if model is None else whole(model)
    stored, expected = {}, {}
    for tensor_name, tensor in tensors.items():
        if not is_linear(tensor_name, tensor):
            stored[tensor_name] = tensor.half()
            continue
        turned = source == "gpt2"  # Conv1D is turned before it is packed
        weights, packed = pack(tensor_name.removesuffix(".weight"), tensor.T if turned else tensor)
        tensors[tensor_name] = (weights.T if turned else weights).contiguous()
        expected[tensor_name] = hashlib.sha256(weights.contiguous().numpy().astype("<f4").tobytes()).hexdigest()
        stored |= {name: tensor.contiguous() for name, tensor in packed.items()}
    golden = computed(config, tensors)
    os.makedirs(folder, exist_ok=True)
    config.pop("dtype", None)
    config["torch_dtype"] = "float16"
    if beside is None:
        config["quantization_config"] = quantization
    else:
        recorded.write_json(os.path.join(folder, beside), quantization)
    recorded.write_json(os.path.join(folder, "config.json"), config)
    recorded.write_json(os.path.join(folder, "expected.json"), expected)
    metadata = {"format": "pt"}
    if name == "torchao-int4":  # as torchao's flatten_tensor_state_dict states kinds
        kinds = {name: INT4_TENSOR if name in expected else {"_type": "Tensor"} for name in tensors}
        metadata |= {name: json.dumps(kind) for name, kind in kinds.items()} | {"tensor_names": json.dumps(list(kinds))}
    save_file(stored, os.path.join(folder, "model.safetensors"), metadata)
    save_file(golden, os.path.join(folder, "golden.safetensors"))


def main():
    arguments = recorded.arguments(__doc__)
    arguments.add_argument("--model", help="a directory of a Llama to pack whole")
    arguments.add_argument("--out", help="where --model writes a folder for each method")
    options = arguments.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    if options.model:
        transformers.logging.set_verbosity_error()
        for name in ("gptq-v1", "gptq-v2-order", "awq-gemm", "ct-4-bits", "ct-4-bits-order"):
            make(name, os.path.join(options.out, name), options.model)
        return 0
    near = {"golden.safetensors": TOLERANCE}.get
    found = recorded.each(here, CHECKPOINTS, make, options.check, near)
    return recorded.ended(f"{len(CHECKPOINTS)} checkpoints", found, options.check)


if __name__ == "__main__":
    sys.exit(main())
