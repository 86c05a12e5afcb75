//! AWQ, as AutoAWQ writes it: 4 bits, zeros as they are, groups of contiguous columns. The scales of its activations are in
//! the neighbouring norms and linears already. Per linear X of (out, in) with G groups:
//!
//! ```text
//! gemm        X.qweight i32 (in, out / 8)   X.qzeros i32 (G, out / 8)   X.scales f16 (G, out)     words in AWQ's order
//! gemv        X.qweight i32 (out, in / 8)   X.qzeros i32 (out, Z)       X.scales f16 (out, 8 Z)   plain, padded
//! gemv_fast   X.qweight i16 (out / 4, in)   X.qzeros f16 (8 Z, out)     X.scales f16 (8 Z, out)   interleaved, padded
//! W[o, i] = scales[g, o] · (code[o, i] − zero[g, o])
//! gemv_fast   W[o, i] = scales[g, o] · code[o, i] + qzeros[g, o]
//! ```
//!
//! gemv_fast stores −scale · zero, rounded to f16, in the place of the zero: its sum is exact in f32.

use super::codes::{Codes, Layout, WORD};
use super::error::PackedError;
use super::gptq::group_size;
use super::matrix::{Groups, Order, PackedMatrix};
use super::module::Module;
use crate::disk::tensor_file::StoredTensor;
use crate::disk::{Config, ConfigError};
use crate::formats::error::ModelFormatError;
use safetensors::Dtype;

pub(super) const ENDS: [&str; 3] = [".qweight", ".qzeros", ".scales"];
const METHOD: &str = "AWQ";
const BITS: usize = 4;
const PER_WORD: usize = WORD / BITS;

/// Columns of one block of gemv_fast's words, and rows that share a word's place.
const INTERLEAVED: (usize, usize) = (64, 4);

/// How AutoAWQ names its layouts.
#[derive(Clone, Copy)]
enum Version {
    Gemm,
    Gemv,
    GemvFast,
}

/// What the configuration says.
pub(super) struct Settings {
    version: Version,
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
        let version = match section.optional_text(key)?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("gemm") => Version::Gemm,
            Some("gemv") => Version::Gemv,
            Some("gemv_fast") => Version::GemvFast,
            Some(_) => return Err(section.unsupported(key, METHOD, "gemm, gemv, gemv_fast")),
        };
        Ok(Settings { version, group: group_size(section, &["group_size", "q_group_size"])?, overrides: false })
    }

    /// Reads AutoRound's configuration for this layout.
    pub(super) fn of_auto_round(section: &Config) -> Result<Settings, ConfigError> {
        if section.size("bits")? != BITS {
            return Err(section.unsupported("bits", "AutoRound in AWQ's layout", "4"));
        }
        Ok(Settings { version: Version::Gemm, group: group_size(section, &["group_size"])?, overrides: true })
    }
}

/// The matrix of a module.
pub(super) fn read(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    match settings.version {
        Version::Gemm => gemm(module, settings),
        Version::Gemv => gemv(module, settings),
        Version::GemvFast => gemv_fast(module, settings),
    }
}

fn codes(tensor: &StoredTensor, width: usize, layout: Layout) -> Codes {
    Codes { bytes: tensor.bytes.clone(), width, layout, bits: BITS, fields: None, add: 0 }
}

/// Codes in words, with rows and columns of the words.
type Words<'m> = (&'m StoredTensor, (usize, usize));

/// Those of weights and of zeros.
fn words<'m>(module: &'m Module<'_>) -> Result<[Words<'m>; 2], ModelFormatError> {
    let of = |end| {
        let tensor = module.typed(end, Dtype::I32)?;
        Ok::<_, ModelFormatError>((tensor, module.matrix(end, tensor)?))
    };
    Ok([of(".qweight")?, of(".qzeros")?])
}

fn gemm(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let [(weights, (columns, width)), (zeros, _)] = words(module)?;
    let rows = width * PER_WORD;
    let scales = module.scales(".scales")?;
    let (count, _) = module.matrix(".scales", module.part(".scales")?)?;
    module.expect(".scales", &[count, rows])?;
    module.expect(".qzeros", &[count, width])?;
    let stated = settings.group.unwrap_or(columns);
    let stated = if settings.overrides && columns.div_ceil(stated) != count { Vec::new() } else { vec![stated] };
    let size = module.group_size(".scales", columns, count, &stated)?;
    let across = Layout::AcrossRows { awq: true };
    Ok(PackedMatrix {
        rows,
        columns,
        codes: codes(weights, width, across),
        zeros: Some(codes(zeros, width, across)),
        minima: None,
        scales,
        order: Order::Groups,
        groups: Groups::Even(size),
        count,
    })
}

fn gemv(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let [(weights, (rows, width)), (zeros, (_, zero_words))] = words(module)?;
    let columns = width * PER_WORD;
    let scales = module.scales(".scales")?;
    module.expect(".qzeros", &[rows, zero_words])?;
    module.expect(".scales", &[rows, zero_words * PER_WORD])?;
    let padded = zero_words * PER_WORD;
    let (size, count) = padded_groups(module, settings, (rows, columns), padded, |row, group| row * padded + group)?;
    Ok(PackedMatrix {
        rows,
        columns,
        codes: codes(weights, width, Layout::AlongRows),
        zeros: Some(codes(zeros, zero_words, Layout::AlongRows)),
        minima: None,
        scales,
        order: Order::Rows,
        groups: Groups::Even(size),
        count,
    })
}

fn gemv_fast(module: &Module<'_>, settings: &Settings) -> Result<PackedMatrix, ModelFormatError> {
    let weights = module.typed(".qweight", Dtype::I16)?;
    let (quarter, columns) = module.matrix(".qweight", weights)?;
    let (block, interleaved) = INTERLEAVED;
    if !columns.is_multiple_of(block) {
        return Err(module.shape(".qweight", weights, format!("[rows / {interleaved}, a multiple of {block}]")));
    }
    let rows = quarter * interleaved;
    let (scales, minima) = (module.scales(".scales")?, module.scales(".qzeros")?);
    let (padded, _) = module.matrix(".scales", module.part(".scales")?)?;
    module.expect(".scales", &[padded, rows])?;
    module.expect(".qzeros", &[padded, rows])?;
    let (size, count) = padded_groups(module, settings, (rows, columns), padded, |row, group| group * rows + row)?;
    Ok(PackedMatrix {
        rows,
        columns,
        codes: codes(weights, columns, Layout::Interleaved),
        zeros: None,
        minima: Some(minima),
        scales,
        order: Order::Groups,
        groups: Groups::Even(size),
        count,
    })
}

/// Columns of a group and how many a row has. There is room for more, up to `padded` at (row, group) of `at`: these have a scale
/// of 0, and nothing else says how many groups there are.
fn padded_groups(
    module: &Module<'_>,
    settings: &Settings,
    (rows, columns): (usize, usize),
    padded: usize,
    at: impl Fn(usize, usize) -> usize,
) -> Result<(usize, usize), ModelFormatError> {
    let size = settings.group.unwrap_or(columns);
    let (count, scales) = (columns.div_ceil(size), module.scales(".scales")?);
    let stored = module.part(".scales")?;
    if count > padded || !columns.is_multiple_of(size) {
        let expected = format!("numbers of groups of {size} columns, as `group_size` says, for {columns} columns");
        return Err(module.shape(".scales", stored, expected));
    }
    let values = scales.dtype().decode(&scales.bytes());
    let is_there = |group: usize| (0..rows).any(|row| values[at(row, group)] != 0.0);
    let found = (0..padded).filter(|group| is_there(*group)).count();
    if found == count {
        return Ok((size, count));
    }
    let problem = format!(
        "has numbers of {found} groups a row, and {columns} columns have {count} of {size}, which `group_size` says; fetch the \
         config.json that belongs to it"
    );
    let (file, tensor) = (stored.file.clone(), module.full(".scales"));
    Err(PackedError::Unclear { file, tensor, problem }.into())
}
