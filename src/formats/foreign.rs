//! Weights that another tool has quantized in a way that is not read here, or an adapter's: told by `quantization_config`,
//! else by the names of tensors, and refused by the name of the method.

use crate::disk::Config;
use serde_json::Value;

/// Methods by `quant_method`, as people call them.
const METHODS: [(&str, &str); 15] = [
    ("gptq", "GPTQ"),
    ("awq", "AWQ"),
    ("bitsandbytes", "bitsandbytes"),
    ("compressed-tensors", "compressed-tensors"),
    ("torchao", "torchao"),
    ("quanto", "quanto"),
    ("hqq", "HQQ"),
    ("aqlm", "AQLM"),
    ("eetq", "EETQ"),
    ("bitnet", "BitNet"),
    ("higgs", "HIGGS"),
    ("fbgemm_fp8", "FBGEMM in FP8"),
    ("fp8", "fine-grained FP8"),
    ("mxfp4", "MXFP4"),
    ("auto-round", "AutoRound"),
];

/// Ends of names that only weights of one kind have.
const ENDS: [(&str, &str); 12] = [
    (".g_idx", "quantized by GPTQ"),
    (".qweight", "quantized by GPTQ or AWQ"),
    (".SCB", "quantized by bitsandbytes to 8 bits"),
    (".absmax", "quantized by bitsandbytes to 4 bits"),
    (".quant_map", "quantized by bitsandbytes to 4 bits"),
    (".weight_packed", "quantized by compressed-tensors"),
    (".weight_scale_inv", "quantized to FP8"),
    (".weight_scale", "quantized by compressed-tensors or to FP8"),
    (".W_q", "quantized by HQQ"),
    ("_blocks", "quantized to MXFP4"),
    (".lora_A.weight", "with a LoRA adapter that was not merged into them"),
    (".lora_A.default.weight", "with a LoRA adapter that was not merged into them"),
];

/// The method of a `quantization_config` that is not slmc's, with its bits; `None` where it names none.
pub(super) fn method(section: &Config) -> Option<String> {
    let number = |key: &str| section.value(key).and_then(Value::as_u64);
    let is = |key: &str| section.value(key).and_then(Value::as_bool) == Some(true);
    let bits = match (number("bits"), number("w_bit")) {
        (Some(bits), _) | (None, Some(bits)) => Some(bits),
        _ if is("load_in_4bit") || is("_load_in_4bit") => Some(4),
        _ if is("load_in_8bit") || is("_load_in_8bit") => Some(8),
        _ => None,
    };
    let group = number("group_size").or_else(|| number("q_group_size"));
    let size = match (bits, group) {
        (Some(bits), Some(group)) => format!(" ({bits} bits, groups of {group})"),
        (Some(bits), None) => format!(" ({bits} bits)"),
        _ => String::new(),
    };
    let name = match section.value("quant_method").and_then(Value::as_str) {
        Some(method) => METHODS.iter().find(|(key, _)| *key == method).map_or(method, |(_, name)| name),
        // MLX writes bits and group_size alone.
        None if bits.is_some() && group.is_some() => "MLX",
        None if bits.is_some() => "bitsandbytes",
        None => return None,
    };
    Some(format!("quantized by {name}{size}"))
}

/// What weights are whose names end so, by the first of the kinds there is any of, with the tensor.
pub(super) fn by_names<'n>(names: impl Iterator<Item = &'n String> + Clone) -> Option<(&'static str, &'n str)> {
    ENDS.iter().find_map(|(end, what)| {
        let found = names.clone().find(|name| name.ends_with(end))?;
        Some((*what, found.as_str()))
    })
}

/// Whether a tensor is one that is read where a configuration says how: here none did.
pub(super) fn is_packed(tensor: &str) -> bool {
    [".g_idx", ".qweight", ".weight_packed"].iter().any(|end| tensor.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn methods_are_named_with_their_bits() {
        let cases = [
            (json!({"quant_method": "gptq", "bits": 4, "group_size": 128}), Some("GPTQ (4 bits, groups of 128)")),
            (json!({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}), Some("AWQ (4 bits, groups of 64)")),
            (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), Some("bitsandbytes (8 bits)")),
            (json!({"load_in_4bit": true}), Some("bitsandbytes (4 bits)")),
            (json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}), Some("compressed-tensors")),
            (json!({"bits": 4, "group_size": 64}), Some("MLX (4 bits, groups of 64)")),
            (json!({"quant_method": "new"}), Some("new")),
            (json!({}), None),
        ];
        for (value, expected) in cases {
            let config = Config::parse(Path::new("m/config.json"), value.to_string().as_bytes()).expect("an object");
            assert_eq!(method(&config), expected.map(|name| format!("quantized by {name}")), "{value}");
        }
        let names = ["a.qzeros", "a.qweight", "a.g_idx"].map(str::to_owned);
        assert_eq!(by_names(names.iter()), Some(("quantized by GPTQ", "a.g_idx")));
        assert_eq!(by_names(names[..2].iter()), Some(("quantized by GPTQ or AWQ", "a.qweight")));
        assert_eq!(by_names(["a.weight".to_owned()].iter()), None);
    }
}
