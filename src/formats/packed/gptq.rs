//! GPTQ, as AutoGPTQ and GPTQModel write it, and AutoRound in its layout. Per linear X of (out, in) with b bits and G groups:
//!
//! ```text
//! X.qweight  i32 (in · b / 32, out)   codes down the columns
//! X.qzeros   i32 (G, out · b / 32)    zeros along the rows; version 1 stores them less 1
//! X.scales   f16 (G, out)
//! X.g_idx    i32 (in)                 group of every column; absent: i / group_size
//! W[o, i] = scales[g, o] · (code[o, i] − zero[g, o])
//! ```
//!
//! A zero that version 1 stores as all ones is 0 to GPTQModel and 2^b to AutoGPTQ's CUDA kernels and llama.cpp: refused.

use super::codes::{Codes, Layout, WORD};
use super::error::PackedError;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::{Module, groups};
use crate::disk::{Config, ConfigError};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;
use serde_json::Value;

pub(super) const ENDS: [&str; 4] = [".qweight", ".qzeros", ".scales", ".g_idx"];
const WIDTHS: [usize; 4] = [2, 3, 4, 8];

/// What the configuration says.
pub(super) struct Settings {
    method: &'static str,
    /// What is added to a stored zero.
    add: i16,
    /// Stated size of groups; none where it is the whole row.
    group: Option<usize>,
    /// Stated bits.
    bits: usize,
    /// Whether single matrices may have other bits or groups.
    overrides: bool,
}

/// A number of columns, where −1 is all of them.
pub(super) fn group_size(section: &Config, keys: &[&str]) -> Result<Option<usize>, ConfigError> {
    let Some(key) = keys.iter().find(|key| section.value(key).is_some()) else { return Ok(None) };
    match section.value(key).and_then(Value::as_i64) {
        Some(-1) => Ok(None),
        _ => section.optional_size(key),
    }
}

/// Whether a key has something in it.
fn filled(section: &Config, key: &str) -> bool {
    section.value(key).is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
}

impl Settings {
    /// Reads `quantization_config`; `version_1` is given where the method has one version.
    pub(super) fn of(section: &Config, method: &'static str, version_1: Option<bool>) -> Result<Settings, ConfigError> {
        if section.flag_or("is_marlin_format", false)? {
            return Err(section.unsupported(
                "is_marlin_format",
                method,
                "the plain layout: export it with format `gptq`",
            ));
        }
        let version_1 = match version_1 {
            Some(version) => version,
            None => {
                let key = if section.value("checkpoint_format").is_some() { "checkpoint_format" } else { "format" };
                match section.optional_text(key)? {
                    None | Some("gptq") => true,
                    Some("gptq_v2") => false,
                    Some(_) => return Err(section.unsupported(key, method, "gptq, gptq_v2")),
                }
            }
        };
        let bits = Some(section.size("bits")?).filter(|bits| WIDTHS.contains(bits));
        Ok(Settings {
            method,
            add: i16::from(version_1),
            group: group_size(section, &["group_size"])?,
            bits: bits.ok_or_else(|| section.unsupported("bits", method, "2, 3, 4, 8"))?,
            overrides: filled(section, "dynamic") || filled(section, "extra_config"),
        })
    }
}

/// The matrix of a module.
pub(super) fn read(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(".qweight", Dtype::I32)?;
    let zeros = module.typed(".qzeros", Dtype::I32)?;
    let scales = module.scales(".scales")?;
    let (count, rows) = module.matrix(".scales", module.part(".scales")?)?;
    let (words, width) = module.matrix(".qweight", weights)?;
    if width != rows {
        return Err(module.shape(".qweight", weights, format!("{rows} columns, as `{}`", module.full(".scales"))));
    }
    let (_, zero_words) = module.matrix(".qzeros", zeros)?;
    let bits = WIDTHS.into_iter().find(|bits| rows * bits == zero_words * WORD);
    let expected = || format!("[{count}, {rows} · bits / {WORD}] with 2, 3, 4 or 8 bits");
    let bits = bits.ok_or_else(|| module.shape(".qzeros", zeros, expected()))?;
    if !settings.overrides && bits != settings.bits {
        let expected = format!("[{count}, {}] by `bits`, which is {}", rows * settings.bits / WORD, settings.bits);
        return Err(module.shape(".qzeros", zeros, expected));
    }
    module.expect(".qzeros", &[count, zero_words])?;
    if !(words * WORD).is_multiple_of(bits) {
        return Err(module.shape(".qweight", weights, format!("whole numbers of {bits} bits down its columns")));
    }
    let columns = words * WORD / bits;
    let stated = settings.group.unwrap_or(columns);
    let stated = if settings.overrides && columns.div_ceil(stated) != count { Vec::new() } else { vec![stated] };
    let groups = match module.find(".g_idx") {
        Some(_) => {
            let size = module.group_size(".scales", columns, count, &stated)?;
            groups(module.listed(".g_idx", columns, count)?, size)
        }
        None => Groups::Even(module.group_size(".scales", columns, count, &stated)?),
    };
    let codes = |bytes, width, layout, add| Codes { bytes, width, layout, bits, fields: None, add };
    let matrix = PackedMatrix {
        rows,
        columns,
        codes: codes(weights.bytes.clone(), rows, Layout::DownColumns, 0),
        zeros: Some(codes(zeros.bytes.clone(), zero_words, Layout::AcrossRows { awq: false }, settings.add)),
        minima: None,
        scales,
        order: Order::Groups,
        groups,
        count,
    };
    if settings.add == 1
        && let Some(index) = matrix.largest_zero(1 << bits)
    {
        let problem = format!(
            "zero {index} has all {bits} bits set, which {} of version 1 reads as 0 by one program and as {} by others; export \
             the model with format `gptq_v2`, or pass the model it was made from",
            settings.method,
            1 << bits
        );
        let (file, tensor) = (zeros.file.clone(), module.full(".qzeros"));
        return Err(PackedError::Unclear { file, tensor, problem }.into());
    }
    Ok(matrix)
}
