#!/usr/bin/env python3
"""Makes what the tests of GGUF compare with, by the format's own packages.

    make.py           writes every file of this folder
    make.py --check   makes them in a temporary directory and compares, byte for byte; exits with 1 on a difference
    make.py --large F writes a file in the shape of TinyLlama-1.1B, in the types of Q4_K_M, with random values, to measure with

- blocks.safetensors: for every block type `TYPE.blocks`, random bytes with scales that are finite, and `TYPE.values`, what
  gguf's `quants.dequantize` makes of them in f32.
- NAME.gguf: golden checkpoints (../golden) as llama.cpp's converter writes them, in their stored types: names by gguf's own
  table, rows of queries and keys of Llama swapped, Gemma's norms with one added, GPT-2's matrices turned, LFM2's kernels
  without their middle dimension, Llama 3's scaling as rope_freqs.weight. llama-mha is quantized: Q8_0, and Q4_1 where the
  rows are swapped; llama-mha.safetensors has the values of the attention of layer 0 in the order of transformers.
- split-0000N-of-00002.gguf: llama-gqa-tied in two files.
- TOKENIZER.gguf: keys of a tokenizer and no tensors, and in tokenizers.json the tokens of some texts as the tokenizer's own
  library gives them: sentencepiece for `spm` and `spm-plain` (no space before a text, no opening token), tokenizers for
  `bpe-*` and `wpm`. All are trained here on README.md of this repository as it is in TRAINED_ON beside this file.

Made with Python 3.11, gguf 0.19.0, numpy, safetensors, sentencepiece 0.2.3, tokenizers 0.23.3.
"""
import argparse
import collections
import io
import json
import pathlib
import sys
import tempfile

import gguf
import numpy
import sentencepiece
import tokenizers
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden"
BLOCKS = 4
TEXTS = ["Hello, world! 123 and 4567.", "  two  spaces\nand a line,\tand a tab", "it's Zoë's naïve café: 数字 и слово",
         "a\r\n\r\nb ...don't — WON'T 1,000,000", "😀 <s> [MASK] <|end|> x"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# ------------------------------------------------------------------------------------------------ blocks

# Bytes of a block at which its f16 scales stand.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.IQ4_NL: [0],
          Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
          Type.IQ4_XS: [0]}


def blocks(out):
    random = numpy.random.default_rng(16)
    tensors = {}
    for kind, places in SCALES.items():
        values, size = gguf.GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, (BLOCKS, size), dtype=numpy.uint8)
        for place in places:
            # Ordinary, small, subnormal and negative scales.
            scales = numpy.array([0.0123, -3.1e-4, 2.0e-7, 17.5], dtype=numpy.float16) * numpy.float16(1 + place / 100)
            stored[:, place:place + 2] = scales.astype(numpy.float16).view(numpy.uint8).reshape(BLOCKS, 2)
        dequantized = gguf.quants.dequantize(stored, kind)
        assert dequantized.dtype == numpy.float32 and dequantized.size == BLOCKS * values
        tensors[f"{kind.name}.blocks"] = stored.reshape(-1)
        tensors[f"{kind.name}.values"] = numpy.ascontiguousarray(dequantized.reshape(-1))
    save_file(tensors, out / "blocks.safetensors")


# ------------------------------------------------------------------------------------------------ architectures

def stored(folder):
    """Tensors by name as (raw bytes as rows, shape, type)."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with open(file, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
            for name, info in header.items():
                if name == "__metadata__":
                    continue
                start, end = info["data_offsets"]
                raw.seek(8 + length + start)
                width = {"F32": numpy.float32, "F16": numpy.float16, "BF16": numpy.uint16}[info["dtype"]]
                values = numpy.frombuffer(raw.read(end - start), dtype=width).reshape(info["shape"])
                tensors[name] = (values, {"F32": Type.F32, "F16": Type.F16, "BF16": Type.BF16}[info["dtype"]])
    return tensors


def widened(values, kind):
    if kind == Type.BF16:
        return (values.astype(numpy.uint32) << 16).view(numpy.float32)
    return values.astype(numpy.float32)


def swapped(values, heads):
    """Rows of queries or keys in the order of llama.cpp: pairs side by side."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def rope_freqs(config, scaling):
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    freqs = 1.0 / (scaling["rope_theta"] ** (numpy.arange(0, dim, 2, dtype=numpy.float64) / dim))
    factors = []
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    for freq in freqs:
        wavelength = 2 * numpy.pi / freq
        if wavelength < original / high:
            factors.append(1)
        elif wavelength > original / low:
            factors.append(scaling["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return numpy.array(factors, dtype=numpy.float32)


ARCHITECTURES = {"llama-gqa-tied": "llama", "llama-mha": "llama", "llama3-rope-scaling": "llama", "qwen2-qkv-bias": "qwen2",
                 "qwen3-qk-norm": "qwen3", "gemma3-text": "gemma3", "phi3-fused-qkv": "phi3", "gpt2": "gpt2",
                 "bert-encoder": "bert", "bert-classifier": "bert", "lfm2-short-conv": "lfm2"}


def architecture(out, name, split=0):
    arch, folder = ARCHITECTURES[name], GOLDEN / name
    config = json.loads((folder / "config.json").read_text())
    layers = config.get("num_hidden_layers") or config["n_layer"]
    hidden = config.get("hidden_size") or config["n_embd"]
    heads = config.get("num_attention_heads") or config["n_head"]
    rope = config.get("rope_parameters") or {}
    tensors = stored(folder)
    path = out / (f"{name}.gguf" if not split else "split.gguf")
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
    writer.add_type("model")
    writer.add_block_count(layers)
    writer.add_embedding_length(hidden)
    writer.add_context_length(config.get("max_position_embeddings") or config["n_positions"])
    writer.add_head_count(heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_feed_forward_length(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden)
    if arch in ("gpt2", "bert"):
        writer.add_layer_norm_eps(config.get("layer_norm_eps") or config["layer_norm_epsilon"])
    else:
        writer.add_layer_norm_rms_eps(config.get("rms_norm_eps") or config["norm_eps"])
        key_heads = config["num_key_value_heads"]
        if arch == "lfm2":
            writer.add_head_count_kv([key_heads if kind == "full_attention" else 0 for kind in config["layer_types"]])
            writer.add_shortconv_l_cache(config["conv_L_cache"])
        else:
            writer.add_head_count_kv(key_heads)
        if "head_dim" in config and config["head_dim"]:
            writer.add_key_length(config["head_dim"])
            writer.add_value_length(config["head_dim"])
            writer.add_rope_dimension_count(config["head_dim"])
        whole = rope.get("full_attention", rope)
        writer.add_rope_freq_base(whole.get("rope_theta") or config.get("rope_theta"))
    if arch == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_array("gemma3.attention.sliding_window_pattern",
                         [kind == "sliding_attention" for kind in config["layer_types"]])
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if arch == "bert":
        writer.add_causal_attention(False)
        writer.add_token_type_count(config["type_vocab_size"])
        if name == "bert-classifier":
            labels = config["id2label"]
            writer.add_classifier_output_labels([labels[str(index)] for index in range(len(labels))])
            writer.add_pooling_type(gguf.PoolingType.RANK)
        else:
            writer.add_pooling_type(gguf.PoolingType.MEAN)
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_freqs(config, rope))
    writer.add_tokenizer_model("none")
    for token in ("bos", "eos", "pad"):
        if config.get(f"{token}_token_id") is not None:
            getattr(writer, f"add_{token}_token_id")(config[f"{token}_token_id"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], layers)
    # What the table of gguf calls otherwise, or not at all: BERT's pooler as RoBERTa's first layer of the classifier.
    own = {"bert.pooler.dense": "cls", "classifier": "cls.output"}
    expected = {}
    for source, (values, kind) in sorted(tensors.items()):
        stem, part = source.rsplit(".", 1)
        if source == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        if name == "bert-encoder" and stem.startswith("pooler"):
            continue
        bare = source.removeprefix("bert.")
        target = f"{own[stem]}.{part}" if stem in own else names.get_name(bare, try_suffixes=(".weight", ".bias"))
        assert target, source
        if arch == "llama" and ".attn_q." in target:
            values = swapped(values, heads)
        if arch == "llama" and ".attn_k." in target:
            values = swapped(values, config["num_key_value_heads"])
        if arch == "gpt2" and values.ndim == 2 and "h." in source:
            values = values.T
        if arch == "lfm2" and target.endswith("shortconv.conv.weight"):
            values, kind = widened(values.squeeze(1), kind), Type.F32
        if values.ndim == 1:
            values, kind = widened(values, kind), Type.F32
        if arch == "gemma3" and target.endswith("norm.weight"):
            values = values + numpy.float32(1)
        values = numpy.ascontiguousarray(values)
        if name == "llama-mha" and values.ndim == 2:
            kind = Type.Q4_1 if ".attn_q." in target or ".attn_k." in target else Type.Q8_0
            packed = gguf.quants.quantize(values.astype(numpy.float32), kind)
            if source.startswith("model.layers.0.self_attn."):
                whole = gguf.quants.dequantize(packed, kind)
                if kind == Type.Q4_1:
                    whole = whole.reshape(heads, -1, 2, whole.shape[1]).swapaxes(1, 2).reshape(whole.shape)
                expected[source] = numpy.ascontiguousarray(whole)
            writer.add_tensor(target, packed, raw_dtype=kind)
        elif kind == Type.BF16:
            writer.add_tensor(target, values.view(numpy.uint8), raw_dtype=kind)
        else:
            writer.add_tensor(target, values)
    finish(writer)
    if expected:
        save_file(expected, out / f"{name}.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ------------------------------------------------------------------------------------------------ tokenizers

def vocabulary(out, name, model, arch="llama"):
    writer = gguf.GGUFWriter(out / f"{name}.gguf", arch)
    writer.add_tokenizer_model(model)
    return writer


def spm(out, name, texts, prefix):
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts.splitlines()), model_writer=trained, vocab_size=600, model_type="bpe",
        byte_fallback=True, character_coverage=0.999, add_dummy_prefix=prefix, remove_extra_whitespaces=False,
        normalization_rule_name="identity", user_defined_symbols=["<|end|>"], num_threads=1, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    size = model.vocab_size()
    kinds = [gguf.TokenType.UNKNOWN if model.is_unknown(i) else gguf.TokenType.CONTROL if model.is_control(i)
             else gguf.TokenType.BYTE if model.is_byte(i)
             else gguf.TokenType.USER_DEFINED if model.id_to_piece(i) == "<|end|>"
             else gguf.TokenType.NORMAL for i in range(size)]
    writer = vocabulary(out, name, "llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(i) for i in range(size)])
    writer.add_token_scores([model.get_score(i) for i in range(size)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    if not prefix:
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(False)
    finish(writer)
    # Control tokens in a text are text for sentencepiece, and tokens for whoever reads prompts.
    # And a space after a token that users define is one for sentencepiece, and two for llama.cpp and transformers, which put
    # one before every part of a text.
    texts = [text.replace("<s>", "(s)").removesuffix(" x") for text in TEXTS]
    opening = [model.bos_id()] if prefix else []
    return [{"text": text, "tokens": opening + model.encode(text)} for text in texts]


def bpe(out, name, texts, pre, splitter, ignore_merges, normalizer):
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    specials = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator([texts], trainer)
    whole = json.loads(tokenizer.to_str())
    tokens = sorted(whole["model"]["vocab"], key=whole["model"]["vocab"].get)
    writer = vocabulary(out, name, "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in specials else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in whole["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    finish(writer)
    opening = [0] if pre == "llama-bpe" else []
    return [{"text": text, "tokens": opening + tokenizer.encode(text).ids} for text in TEXTS]


def wpm(out, name, texts):
    # Not trained, since the trainer's order differs from run to run: every letter, and the words and ends of words that are
    # met most.
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(texts))]
    letters = sorted({letter for word in words for letter in word})
    ends = [f"##{word[-3:]}" for word in words if len(word) > 4]
    met = collections.Counter(word for word in words + ends if len(word) > 1)
    most = sorted(met, key=lambda word: (-met[word], word))[:200]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*specials, *letters, *(f"##{letter}" for letter in letters), *most]
    tokenizer = tokenizers.Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(specials)
    vocabulary_ids = tokenizer.get_vocab()
    spelled = [token if token in specials else token[2:] if token.startswith("##") else "▁" + token for token in tokens]
    writer = vocabulary(out, name, "bert", "bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(spelled)
    writer.add_token_types([gguf.TokenType.CONTROL if token in specials else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_type_count(2)
    writer.add_uint32("bert.context_length", 64)
    for token, spelling in (("pad", "[PAD]"), ("unk", "[UNK]"), ("bos", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]")):
        getattr(writer, f"add_{token}_token_id")(vocabulary_ids[spelling])
    finish(writer)
    around = vocabulary_ids["[CLS]"], vocabulary_ids["[SEP]"]
    return [{"text": text, "tokens": [around[0], *tokenizer.encode(text).ids, around[1]]} for text in TEXTS]


def all_tokenizers(out):
    texts = (HERE / "TRAINED_ON").read_text(encoding="utf-8")
    split = pre_tokenizers.Split
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def by(expression):
        return pre_tokenizers.Sequence([split(tokenizers.Regex(expression), "isolated"), bytes_only])

    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    recorded = {
        "spm": spm(out, "spm", texts, True),
        "spm-plain": spm(out, "spm-plain", texts, False),
        "bpe-gpt-2": bpe(out, "bpe-gpt-2", texts, "gpt-2", whole, False, None),
        "bpe-smollm": bpe(out, "bpe-smollm", texts, "smollm", digits, False, None),
        "bpe-llama-bpe": bpe(out, "bpe-llama-bpe", texts, "llama-bpe", by(LLAMA3), True, None),
        "bpe-qwen2": bpe(out, "bpe-qwen2", texts, "qwen2", by(QWEN2), False, normalizers.NFC()),
        "wpm": wpm(out, "wpm", texts),
    }
    lines = ",\n".join(f' "{name}": ' + json.dumps(entries, ensure_ascii=False) for name, entries in recorded.items())
    (out / "tokenizers.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------

def make(out):
    out.mkdir(exist_ok=True)
    blocks(out)
    for name in ARCHITECTURES:
        architecture(out, name)
    tensors = len(stored(GOLDEN / "llama-gqa-tied"))
    architecture(out, "llama-gqa-tied", split=(tensors + 1) // 2)
    all_tokenizers(out)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)


def large(path):
    hidden, width, layers, heads, key_heads, head = 2048, 5632, 22, 32, 4, 64
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_block_count(layers)
    writer.add_embedding_length(hidden)
    writer.add_context_length(2048)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_feed_forward_length(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(head)
    writer.add_tokenizer_model("none")

    def matrix(name, rows, columns, kind):
        values, size = gguf.GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, (rows * columns // values, size), dtype=numpy.uint8)
        for place in SCALES[kind]:
            stored[:, place:place + 2] = numpy.array([0.0003], dtype=numpy.float16).view(numpy.uint8)
        writer.add_tensor(name, stored.reshape(rows, -1), raw_dtype=kind)

    def norm(name):
        writer.add_tensor(name, numpy.ones(hidden, dtype=numpy.float32))

    matrix("token_embd.weight", 32000, hidden, Type.Q4_K)
    matrix("output.weight", 32000, hidden, Type.Q6_K)
    norm("output_norm.weight")
    for layer in range(layers):
        finer = Type.Q6_K if layer % 2 else Type.Q4_K
        for name, rows, columns, kind in (
                ("attn_q", hidden, hidden, Type.Q4_K), ("attn_k", key_heads * head, hidden, Type.Q4_K),
                ("attn_v", key_heads * head, hidden, finer), ("attn_output", hidden, hidden, Type.Q4_K),
                ("ffn_gate", width, hidden, Type.Q4_K), ("ffn_up", width, hidden, Type.Q4_K),
                ("ffn_down", hidden, width, finer)):
            matrix(f"blk.{layer}.{name}.weight", rows, columns, kind)
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
    finish(writer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--large", metavar="F")
    arguments = parser.parse_args()
    if arguments.large:
        large(arguments.large)
        return
    if not arguments.check:
        make(HERE)
        return
    with tempfile.TemporaryDirectory() as directory:
        made = pathlib.Path(directory)
        make(made)
        differing = [file.name for file in sorted(made.iterdir()) if file.read_bytes() != (HERE / file.name).read_bytes()]
    if differing:
        sys.exit(f"differ: {', '.join(differing)}")


if __name__ == "__main__":
    main()
