//! compressed-tensors, the integer formats. Per module X of (out, in) with b bits and G groups (1 where a row or the whole
//! matrix has one scale):
//!
//! ```text
//! pack-quantized                   X.weight_packed i32 (out, words)   codes along the rows, less 2^(b−1)
//! int-quantized, naive-quantized   X.weight i8 (out, in)
//! both   X.weight_scale (out, G) or (1)
//!        X.weight_zero_point       i32 (ceil(out · b / 32), G), codes down the columns; i8 (out, G) beside bytes; absent: 0
//!        X.weight_g_idx i32 (in)   group of every column, with actorder `group`
//!        X.weight_shape i64 (2)
//! sparse-24-bitmask                X.compressed (out, in / 2), X.bitmask u8 (out, ceil(in / 8)), X.shape i64 (2, 1)
//! W[o, i] = scale[o, g] · (code[o, i] − zero[o, g])
//! ```
//!
//! Codes of 3, 5, 6 and 7 bits follow each other without gaps since version 0.17 and began every word anew before: the number
//! of words tells.

mod export;

pub use export::CompressedTensorsExport;

use super::codes::{Codes, Layout, WORD, words};
use super::error::PackedError;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::{Module, groups};
use crate::disk::tensor_file::StoredTensor;
use crate::disk::{Config, ConfigError, DenseTensor, SharedBytes};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;
use serde_json::Value;

pub(super) const METHOD: &str = "compressed-tensors";
/// Tensors of a packed module.
pub(super) const PACKED_ENDS: [&str; 5] =
    [".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx"];
/// Tensors of a module in bytes.
pub(super) const BYTES_ENDS: [&str; 4] = [".weight_scale", ".weight", ".weight_zero_point", ".weight_g_idx"];
/// Scales of inputs and of caches: slmc finds its own while it computes.
pub(super) const OF_INPUTS: [&str; 7] =
    [".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".k_scale", ".v_scale", ".q_scale"];
const FORMATS: [&str; 5] = ["pack-quantized", "int-quantized", "naive-quantized", "mixed-precision", "dense"];
const SPARSE_FORMATS: [&str; 2] = ["dense", "sparse-24-bitmask"];

/// What the configuration says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Bits of any group of modules.
    bits: Vec<usize>,
    /// Columns of a group of any group of modules.
    sizes: Vec<usize>,
    /// Whether any group of modules is in words, in bytes, with a bitmask.
    pub(super) sparse: bool,
}

impl Settings {
    /// Reads `quantization_config`; everything whose meaning is not known is refused by key.
    pub(super) fn of(section: &Config) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        check_format(section)?;
        if section.value("transform_config").is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty())) {
            return Err(section.unsupported("transform_config", METHOD, "only models without rotations"));
        }
        if let Some(sparsity) = section.section("sparsity_config")? {
            let format = sparsity.optional_text("format")?.unwrap_or("dense");
            if !SPARSE_FORMATS.contains(&format) {
                return Err(sparsity.unsupported("format", METHOD, &SPARSE_FORMATS.join(", ")));
            }
            settings.sparse = format == SPARSE_FORMATS[1];
        }
        let Some(groups) = section.section("config_groups")? else { return Ok(settings) };
        for name in groups.map().keys() {
            let Some(group) = groups.section(name)? else { continue };
            check_format(&group)?;
            let Some(weights) = group.section("weights")? else { continue };
            settings.add(&weights)?;
        }
        Ok(settings)
    }

    fn add(&mut self, weights: &Config) -> Result<(), ConfigError> {
        if weights.optional_text("type")?.unwrap_or("int") != "int" {
            return Err(weights.unsupported("type", METHOD, "int"));
        }
        let strategy = weights.optional_text("strategy")?;
        if !matches!(strategy, None | Some("tensor" | "channel" | "group")) {
            return Err(weights.unsupported("strategy", METHOD, "tensor, channel, group"));
        }
        let bits = weights.optional_size("num_bits")?.unwrap_or(8);
        if !(2..=8).contains(&bits) {
            return Err(weights.unsupported("num_bits", METHOD, "2 to 8"));
        }
        self.bits.push(bits);
        if weights.value("group_size").and_then(Value::as_i64) != Some(-1) {
            self.sizes.extend(weights.optional_size("group_size")?);
        }
        Ok(())
    }
}

fn check_format(section: &Config) -> Result<(), ConfigError> {
    match section.optional_text("format")? {
        Some(format) if !FORMATS.contains(&format) => Err(section.unsupported("format", METHOD, &FORMATS.join(", "))),
        _ => Ok(()),
    }
}

/// The matrix of a module in words.
pub(super) fn read_packed(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(".weight_packed", Dtype::I32)?;
    let (rows, width) = module.matrix(".weight_packed", weights)?;
    let (stated, columns) = shape(module, ".weight_shape")?;
    if stated != rows {
        return Err(module.shape(".weight_packed", weights, format!("{stated} rows, as `.weight_shape` says")));
    }
    let (bits, fields) = coding(module, weights, columns, width, settings)?;
    let half = 1i16 << (bits - 1);
    let codes = Codes { bytes: weights.bytes.clone(), width, layout: Layout::AlongRows, bits, fields, add: -half };
    let (scales, order, count) = scales(module, rows)?;
    let zeros = match module.find(".weight_zero_point") {
        Some(tensor) if tensor.dtype == Dtype::I32 => {
            let down = words(rows, bits, fields);
            module.expect(".weight_zero_point", &[down, count])?;
            let bytes = tensor.bytes.clone();
            Some(Codes { bytes, width: count, layout: Layout::DownRows, bits, fields, add: -half })
        }
        _ => zero_bytes(module, rows, count)?,
    };
    let groups = grouping(module, columns, count, settings)?;
    Ok(PackedMatrix { rows, columns, codes, zeros, minima: None, scales, order, groups, count })
}

/// The matrix of a module in bytes.
pub(super) fn read_bytes(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(".weight", Dtype::I8)?;
    let (rows, columns) = module.matrix(".weight", weights)?;
    let (scales, order, count) = scales(module, rows)?;
    let zeros = zero_bytes(module, rows, count)?;
    let groups = grouping(module, columns, count, settings)?;
    let codes = bytes_of(weights, columns);
    Ok(PackedMatrix { rows, columns, codes, zeros, minima: None, scales, order, groups, count })
}

/// Codes that are signed bytes.
pub(super) fn bytes_of(tensor: &StoredTensor, width: usize) -> Codes {
    Codes { bytes: tensor.bytes.clone(), width, layout: Layout::Bytes, bits: 8, fields: None, add: 0 }
}

/// Bits, and codes of a word where each begins anew, by the number of words.
fn coding(
    module: &Module<'_>,
    weights: &StoredTensor,
    columns: usize,
    width: usize,
    settings: &Settings,
) -> Result<(usize, Option<usize>), ModelFormatError> {
    let mut bits = settings.bits.clone();
    bits.sort_unstable();
    bits.dedup();
    let codings = bits.iter().flat_map(|&bits| {
        let anew = (!WORD.is_multiple_of(bits)).then_some(WORD / bits);
        [Some((bits, None)), anew.map(|fields| (bits, Some(fields)))].into_iter().flatten()
    });
    let fitting: Vec<(usize, Option<usize>)> =
        codings.filter(|(bits, fields)| words(columns, *bits, *fields) == width).collect();
    match fitting[..] {
        [one] => Ok(one),
        [] if bits.is_empty() => {
            let problem = "no group of `quantization_config.config_groups` says of how many bits it is; fetch the config.json that \
                           belongs to it";
            let (file, tensor) = (weights.file.clone(), module.full(".weight_packed"));
            Err(PackedError::Unclear { file, tensor, problem: problem.to_owned() }.into())
        }
        [] => {
            let known: Vec<String> = bits.iter().map(ToString::to_string).collect();
            let expected = format!("words of {columns} columns of {} bits", known.join(" or "));
            Err(module.shape(".weight_packed", weights, expected))
        }
        _ => {
            let problem = format!(
                "{width} words of {columns} columns can be of several bits or layouts; export the model with a width that is a \
                 multiple of {WORD}, or pass the model it was made from"
            );
            let (file, tensor) = (weights.file.clone(), module.full(".weight_packed"));
            Err(PackedError::Unclear { file, tensor, problem }.into())
        }
    }
}

/// Scales, their order, and how many a row has.
fn scales(module: &Module<'_>, rows: usize) -> Result<(DenseTensor, Order, usize), ModelFormatError> {
    let scales = module.scales(".weight_scale")?;
    match scales.shape() {
        [] | [1] | [1, 1] => Ok((scales, Order::Single, 1)),
        [found] if *found == rows => Ok((scales, Order::Groups, 1)),
        [found, count] if *found == rows && *count > 0 => {
            let count = *count;
            Ok((scales, Order::Rows, count))
        }
        _ => {
            let expected = format!("[{rows}, groups], [{rows}, 1] or [1]");
            Err(module.shape(".weight_scale", module.part(".weight_scale")?, expected))
        }
    }
}

/// Zeros in bytes, one for every scale.
fn zero_bytes(module: &Module<'_>, rows: usize, count: usize) -> Result<Option<Codes>, ModelFormatError> {
    let end = ".weight_zero_point";
    if module.find(end).is_none() {
        return Ok(None);
    }
    let tensor = module.typed(end, Dtype::I8)?;
    if let &[zero] = tensor.bytes.as_slice() {
        let bytes = SharedBytes::owned(vec![zero; rows]);
        return Ok((count == 1 && zero != 0).then(|| Codes { bytes, ..bytes_of(tensor, 1) }));
    }
    if count > 1 || tensor.shape != [rows] {
        module.expect(end, &[rows, count])?;
    }
    Ok(Some(bytes_of(tensor, count)))
}

/// Which column is in which group.
fn grouping(
    module: &Module<'_>,
    columns: usize,
    count: usize,
    settings: &Settings,
) -> Result<Groups, ModelFormatError> {
    let sizes = if count == 1 { &[][..] } else { &settings.sizes };
    let size = module.group_size(".weight_scale", columns, count, sizes)?;
    let end = ".weight_g_idx";
    // Without an order, the list may be there and hold nothing but −1.
    let empty = |tensor: &StoredTensor| tensor.bytes.as_slice().iter().all(|byte| *byte == 0xFF);
    if module.find(end).is_none_or(empty) {
        return Ok(Groups::Even(size));
    }
    let list = module.listed(end, columns, count)?;
    let mut members = vec![0; count];
    list.iter().for_each(|&group| members[group as usize] += 1);
    if let Some(group) = members.iter().position(|&found| found != size) {
        let problem = format!(
            "group {group} has {} columns, expected {size}, so that columns cannot be told from its order; fetch the checkpoint \
             again",
            members[group]
        );
        let (file, tensor) = (module.part(end)?.file.clone(), module.full(end));
        return Err(PackedError::Unclear { file, tensor, problem }.into());
    }
    Ok(groups(list, size))
}

/// A shape that is stored as a tensor of two numbers.
pub(super) fn shape(module: &Module<'_>, end: &'static str) -> Result<(usize, usize), ModelFormatError> {
    let tensor = module.part(end)?;
    let bytes = tensor.bytes.as_slice();
    let numbers: Vec<i64> = match tensor.dtype {
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect(),
        Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|word| i64::from(i32::from_le_bytes(*word))).collect(),
        _ => return Err(module.typed(end, Dtype::I64).expect_err("it has another type")),
    };
    let [rows, columns] = numbers[..] else {
        return Err(module.shape(end, tensor, "two numbers, the shape of the matrix".to_owned()));
    };
    let size = |index: usize, found: i64| {
        let in_range = usize::try_from(found).ok().filter(|size| (1..=crate::disk::config::MAX_SIZE).contains(size));
        in_range.ok_or_else(|| {
            let (file, tensor, expected) = (tensor.file.clone(), module.full(end), "a size".to_owned());
            ModelFormatError::from(PackedError::Value { file, tensor, index, found, expected })
        })
    };
    Ok((size(0, rows)?, size(1, columns)?))
}
