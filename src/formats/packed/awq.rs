//! AWQ, as AutoAWQ writes it: 4 bits, zeros as they are, groups of contiguous columns. The scales of its activations are in
//! the neighbouring norms and linears already. Per linear X of (out, in) with G groups:
//!
//! ```text
//! gemm   X.qweight i32 (in, out / 8)   X.qzeros i32 (G, out / 8)   X.scales f16 (G, out)   words in AWQ's order
//! gemv   X.qweight i32 (out, in / 8)   X.qzeros i32 (out, Z)       X.scales f16 (out, 8 Z)   plain, padded
//! W[o, i] = scales[g, o] · (code[o, i] − zero[g, o])
//! ```

use super::codes::{Codes, Layout, WORD};
use super::gptq::group_size;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::Module;
use crate::disk::{Config, ConfigError};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;

pub(super) const ENDS: [&str; 3] = [".qweight", ".qzeros", ".scales"];
const METHOD: &str = "AWQ";
const BITS: usize = 4;
const PER_WORD: usize = WORD / BITS;

/// What the configuration says.
pub(super) struct Settings {
    /// Whether the layout is gemv's.
    gemv: bool,
    /// Stated size of groups; none where it is the whole row.
    group: Option<usize>,
    /// Whether single matrices may have other groups.
    overrides: bool,
}

impl Settings {
    /// Reads `quantization_config` or quant_config.json.
    pub(super) fn of(section: &Config) -> Result<Settings, ConfigError> {
        let key = if section.value("bits").is_some() { "bits" } else { "w_bit" };
        if section.optional_size(key)?.is_some_and(|bits| bits != BITS) {
            return Err(section.unsupported(key, METHOD, "4"));
        }
        let key = if section.value("version").is_some() { "version" } else { "format" };
        let gemv = match section.optional_text(key)?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("gemm") => false,
            Some("gemv") => true,
            Some(_) => return Err(section.unsupported(key, METHOD, "gemm, gemv")),
        };
        Ok(Settings { gemv, group: group_size(section, &["group_size", "q_group_size"])?, overrides: false })
    }

    /// Reads AutoRound's configuration for this layout.
    pub(super) fn of_auto_round(section: &Config) -> Result<Settings, ConfigError> {
        if section.size("bits")? != BITS {
            return Err(section.unsupported("bits", "AutoRound in AWQ's layout", "4"));
        }
        Ok(Settings { gemv: false, group: group_size(section, &["group_size"])?, overrides: true })
    }
}

/// The matrix of a module.
pub(super) fn read(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(".qweight", Dtype::I32)?;
    let zeros = module.typed(".qzeros", Dtype::I32)?;
    let scales = module.scales(".scales")?;
    let (first, second) = module.matrix(".qweight", weights)?;
    let sizes = |columns: usize| vec![settings.group.unwrap_or(columns)];
    let codes = |bytes, width, layout| Codes { bytes, width, layout, bits: BITS, fields: None, add: 0 };
    if settings.gemv {
        let (rows, columns) = (first, second * PER_WORD);
        let (_, zero_words) = module.matrix(".qzeros", zeros)?;
        module.expect(".qzeros", &[rows, zero_words])?;
        module.expect(".scales", &[rows, zero_words * PER_WORD])?;
        let size = settings.group.unwrap_or(columns);
        let count = columns.div_ceil(size);
        if count > zero_words * PER_WORD {
            let expected = format!("zeros of {count} groups of {size} columns");
            return Err(module.shape(".qzeros", zeros, expected));
        }
        return Ok(PackedMatrix {
            rows,
            columns,
            codes: codes(weights.bytes.clone(), second, Layout::AlongRows),
            zeros: Some(codes(zeros.bytes.clone(), zero_words, Layout::AlongRows)),
            scales,
            order: Order::Rows,
            groups: Groups::Even(size),
            count,
        });
    }
    let (rows, columns) = (second * PER_WORD, first);
    let (count, _) = module.matrix(".scales", module.part(".scales")?)?;
    module.expect(".scales", &[count, rows])?;
    module.expect(".qzeros", &[count, second])?;
    let sizes = sizes(columns);
    let sizes = if settings.overrides && columns.div_ceil(sizes[0]) != count { Vec::new() } else { sizes };
    let size = module.group_size(".scales", columns, count, &sizes)?;
    Ok(PackedMatrix {
        rows,
        columns,
        codes: codes(weights.bytes.clone(), second, Layout::AcrossRows { awq: true }),
        zeros: Some(codes(zeros.bytes.clone(), second, Layout::AcrossRows { awq: true })),
        scales,
        order: Order::Groups,
        groups: Groups::Even(size),
        count,
    })
}
