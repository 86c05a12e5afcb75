//! Which block type every tensor of a file gets, and what is lost by it.
//!
//! | in slmc | in the file |
//! |---|---|
//! | vectors, norms, kernels, tables of positions and token types | F32, as llama.cpp reads them |
//! | integers of 3 and 4 bits | Q4_0 |
//! | integers of 8 bits, and tensors with rows of 8 and of 4 | Q8_0 |
//! | integers of a matrix whose columns are no multiple of 32; floating point | F16, or as `--dtype` says |

use super::super::block::BlockType;
use super::super::layout::NewTensor;
use crate::disk::DenseType;
use crate::formats::export::{Described, ExportPlan, Kept};
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::scheme::QuantScheme;

/// Columns of a block.
const BLOCK: usize = 32;

/// The block type of floating-point matrices.
pub(super) fn float_type(dtype: Option<DenseType>) -> BlockType {
    match dtype {
        Some(DenseType::F32) => BlockType::F32,
        Some(DenseType::Bf16) => BlockType::Bf16,
        Some(DenseType::F16) | None => BlockType::F16,
    }
}

/// The block type of a tensor.
pub(super) fn block_type(tensor: &NewTensor, model: &Described<'_>, floats: BlockType) -> BlockType {
    let is_read_as_f32 = |id: ParameterId| match id {
        ParameterId::Linear(id, Part::Weight) => matches!(id.role, Role::PositionEmbedding | Role::TypeEmbedding),
        _ => true,
    };
    if tensor.parts.iter().any(|part| is_read_as_f32(part.id)) {
        return BlockType::F32;
    }
    let schemes: Option<Vec<(QuantScheme, usize)>> =
        tensor.parts.iter().map(|part| Some((scheme(model, part.id)?, part.shape[0]))).collect();
    match schemes {
        Some(_) if !tensor.shape().1.is_multiple_of(BLOCK) => floats,
        Some(schemes) if schemes.iter().all(|(scheme, rows)| scheme.wide_rows(*rows) == 0) => BlockType::Q4_0,
        Some(_) => BlockType::Q8_0,
        None => floats,
    }
}

fn scheme(model: &Described<'_>, id: ParameterId) -> Option<QuantScheme> {
    match id {
        ParameterId::Linear(id, Part::Weight) => model.matrix(id).scheme,
        _ => None,
    }
}

/// Adds a tensor to a plan: its type, its bytes, what is lost.
pub(super) fn add(plan: &mut ExportPlan, tensor: &NewTensor, kind: BlockType, model: &Described<'_>) {
    for part in &tensor.parts {
        let values: usize = part.shape.iter().product();
        let bytes = values / kind.values() * kind.bytes();
        let kept = match kind {
            kind if !kind.is_float() => Kept::Integers,
            BlockType::F32 => Kept::Values,
            _ => Kept::Rounded,
        };
        plan.add(part.id, &model.stored_name(part.id), kind.name(), (values as u64, bytes as u64), kept);
        if let ParameterId::Linear(id, Part::Weight) = part.id {
            lose(plan, id, kind, part.shape[0], model);
        }
    }
}

/// Notes what a matrix was made for and a block type does not have.
fn lose(plan: &mut ExportPlan, id: LinearId, kind: BlockType, rows: usize, model: &Described<'_>) {
    let matrix = model.matrix(id);
    let Some(scheme) = matrix.scheme else { return };
    let taken = 8.0 * kind.bytes() as f64 / kind.values() as f64;
    if matrix.two_of_four {
        let sparse = if scheme.def().bits == 8 { 5.0 } else { 3.25 };
        let instead = format!("zeros are stored, a weight takes {taken} bits instead of {sparse}");
        plan.lose("2:4 sparsity", id, instead);
    }
    if scheme.wide_rows(rows) > 0 && scheme.wide_rows(rows) < rows {
        plan.lose("two parts", id, format!("all rows take {taken} bits a weight, also those of 4 bits"));
    }
    if scheme.def().bits < 4 {
        plan.lose("3-bit integers", id, format!("they take {taken} bits a weight instead of 3.5"));
    }
    if matrix.wide && !kind.is_float() {
        plan.lose("16-bit inputs", id, "llama.cpp rounds inputs to 8 bits, with a scale for every 32 of them");
    }
}
