//! Every matrix in every coding its item may have, rounded on its own by the method that will round the chosen assignment: the
//! inputs are those of the original model, so that no matrix depends on the schemes of others. Rows do not depend on each
//! other either, so a split takes its rows from the whole matrix rounded in each of its schemes.

use super::items::Item;
use crate::calibrate::collect;
use crate::calibrate::layerwise::{Change, Changed, Layerwise};
use crate::calibrate::moments::Moments;
use crate::model::id::LinearId;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::transform::Sparsity;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::error::RoundingError;
use crate::quantize::gptq::{self, Hessian};
use crate::quantize::method::Method;
use crate::quantize::{Scales, input_importance, search};
use burn::tensor::Device;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Every matrix, all its rows in each scheme that a coding has for any of them.
#[derive(Debug, Default)]
pub struct Database(BTreeMap<(LinearId, QuantScheme), QuantizedMatrix>);

impl Database {
    /// All rows in a scheme that they share.
    ///
    /// # Panics
    /// If no coding has it.
    pub fn whole(&self, id: LinearId, scheme: QuantScheme) -> &QuantizedMatrix {
        &self.0[&(id, scheme)]
    }

    /// A matrix in a coding.
    ///
    /// # Panics
    /// If no item has it.
    pub fn matrix(&self, id: LinearId, scheme: QuantScheme) -> Cow<'_, QuantizedMatrix> {
        if let Some(matrix) = self.0.get(&(id, scheme)) {
            return Cow::Borrowed(matrix);
        }
        let shape = self.whole(id, scheme.of_row(0)).values.dim();
        let part = |rows: Range<usize>, scheme| self.whole(id, scheme).part(rows, scheme);
        Cow::Owned(QuantizedMatrix::of_parts(scheme, shape, part))
    }
}

/// Rounds everything. Zeros of the matrices in `sparsity` stay zero.
///
/// # Errors
/// [`RoundingError`].
pub fn database(
    model: &Model,
    items: &[Item],
    sparsity: &Sparsity,
    (method, scales): (Method, Scales),
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
) -> Result<Database, RoundingError> {
    let mut database = Database::default();
    let matrices = model.spec.matrices();
    let rows: BTreeMap<LinearId, usize> = matrices.iter().map(|&(id, rows, _)| (id, rows)).collect();
    let schemes = |id: LinearId| -> BTreeSet<QuantScheme> {
        let item = items.iter().find(|item| item.members.contains(&id));
        let codings = item.into_iter().flat_map(|item| &item.codings);
        codings.flat_map(|coding| coding.scheme.parts(rows[&id]).map(|(_, scheme)| scheme)).collect()
    };
    if method == Method::Gptq {
        let mut rounder = Rounder { model, sparsity, scales, schemes: &schemes, database: &mut database };
        let pass = Layerwise { model, sequences, device, with_original: false, with_lookups: true };
        pass.run(&mut rounder, progress, "rounding every matrix in every scheme")?;
    }
    let statistics = match method {
        Method::Keep | Method::Rtn => None,
        // Every matrix with inputs is there already; tables that are looked up have no importance.
        Method::Gptq => None,
        Method::Search => Some(collect(model, sequences, device, progress)?),
    };
    let left = |(id, ..): &(LinearId, usize, usize)| -> Vec<QuantScheme> {
        schemes(*id).into_iter().filter(|scheme| !database.0.contains_key(&(*id, *scheme))).collect()
    };
    let left = matrices.iter().map(|matrix| (matrix.0, left(matrix))).filter(|(_, schemes)| !schemes.is_empty());
    let left: Vec<(LinearId, Vec<QuantScheme>)> = left.collect();
    progress.begin("rounding the other matrices in every scheme", left.len() as u64, "matrices");
    for (id, schemes) in left {
        let weights = model.matrix(id)?;
        let importance = statistics.as_ref().and_then(|statistics| input_importance(model, statistics, id));
        for scheme in schemes {
            let matrix = search::quantize_matrix_on(weights.view(), (scheme, scales), importance);
            database.0.insert((id, scheme), matrix);
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(database)
}

/// Rounds every matrix with the moments of its inputs, and changes none.
struct Rounder<'a> {
    model: &'a Model,
    sparsity: &'a Sparsity,
    scales: Scales,
    schemes: &'a dyn Fn(LinearId) -> BTreeSet<QuantScheme>,
    database: &'a mut Database,
}

impl Change for Rounder<'_> {
    type Error = RoundingError;

    fn kept(&mut self, _ids: &[LinearId]) -> Result<Option<Changed>, RoundingError> {
        Ok(None)
    }

    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, RoundingError> {
        // A matrix that cannot be solved is rounded plainly, as the solver does.
        let Some(moments) = moments else { return Ok(Changed::new()) };
        let Ok(hessian) = Hessian::new(&moments) else { return Ok(Changed::new()) };
        for &id in ids {
            let weights = self.model.matrix(id)?;
            let held = self.sparsity.contains_key(&id).then(|| weights.mapv(|weight| weight == 0.0));
            for scheme in (self.schemes)(id) {
                let held = held.as_ref().map(|held| held.view());
                let rounded = gptq::quantize_matrix(weights.view(), (scheme, self.scales), &hessian, held);
                self.database.0.insert((id, scheme), rounded.matrix);
            }
        }
        Ok(Changed::new())
    }
}
