//! Products with weights, several matrices over one input at once, with biases and the residual that the result is added
//! to:
//!
//! ```text
//! y = [x · W₁ᵀ + b₁, x · W₂ᵀ + b₂, …] + residual
//! dx = Σ dyᵢ · Wᵢ        dWᵢ += dyᵢᵀ · x        dbᵢ += Σ_tokens dyᵢ        dresidual = dy
//! ```

use crate::node::{Value, record, recycle, slice, tensor};
use crate::weights::Weight;
use rayon::prelude::*;
use slm_numerics::lanes::vectorised;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::take;

/// Tokens whose gradients are summed before they go into a bias.
const BLOCK: usize = 64;

/// A matrix (out, in) and its bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (out, in)
    pub matrix: Weight,
    /// (out)
    pub bias: Option<Weight>,
}

impl Linear {
    fn outputs(&self, inputs: usize) -> usize {
        self.matrix.values().len() / inputs.max(1)
    }
}

/// The results of all `linears` side by side, (…, Σ out).
pub fn linear(input: &Value, linears: Vec<Linear>, residual: Option<&Value>) -> Value {
    let inputs = input.width();
    let total: usize = linears.iter().map(|linear| linear.outputs(inputs)).sum();
    let x = input.tensor();
    let tokens = slice(&x).len() / inputs;
    let mut out = match residual {
        Some(residual) => copy(slice(&residual.tensor())),
        None => take(tokens * total),
    };
    let mut first = 0;
    for linear in &linears {
        let count = linear.outputs(inputs);
        let mut add = residual.is_some();
        if let Some(bias) = &linear.bias {
            let over = !add;
            out.par_chunks_mut(total).with_min_len(BLOCK).for_each(|row| {
                let row = &mut row[first..first + count];
                if over {
                    row.copy_from_slice(bias.values());
                } else {
                    row.iter_mut().zip(bias.values()).for_each(|(out, bias)| *out += bias);
                }
            });
            add = true;
        }
        let output = Output { add, ..Output::over(&mut out, total).at(first) };
        let weights = Matrix::new(linear.matrix.values(), inputs);
        multiply(output, Left::Rows(Matrix::new(slice(&x), inputs)), Right::Columns(weights));
        first += count;
    }
    let result = tensor(out, &input.dims_with(total));
    let pull = move |gradient: burn_flex::FlexTensor, needed: bool| {
        let dy = Matrix::new(slice(&gradient), total);
        let mut dx = needed.then(|| take(tokens * inputs));
        let mut first = 0;
        for (number, linear) in linears.iter().enumerate() {
            let count = linear.outputs(inputs);
            let own = dy.columns(first, count);
            if let Some(dx) = &mut dx {
                let output = Output { add: number > 0, ..Output::over(dx, inputs) };
                multiply(output, Left::Rows(own), Right::Rows(Matrix::new(linear.matrix.values(), inputs)));
            }
            linear.matrix.add_gradient(|sum, add| {
                let output = Output { add, ..Output::over(sum, inputs) };
                multiply(output, Left::Columns(own), Right::Rows(Matrix::new(slice(&x), inputs)));
            });
            if let Some(bias) = &linear.bias {
                add_columns(bias, slice(&gradient), [total, first, count]);
            }
            first += count;
        }
        let dims = x.layout().shape().to_vec();
        recycle(x);
        recycle(gradient);
        dx.map(|dx| tensor(dx, &dims))
    };
    match residual {
        Some(residual) => record([input, residual], result, move |gradient, [input, residual]| {
            let through = residual.then(|| gradient.clone());
            [pull(gradient, input), through]
        }),
        None => record([input], result, move |gradient, [needed]| [pull(gradient, needed)]),
    }
}

/// The same values in memory of their own.
fn copy(values: &[f32]) -> Vec<f32> {
    let mut out = take(values.len());
    out.par_chunks_mut(1 << 14).zip(values.par_chunks(1 << 14)).for_each(|(out, values)| out.copy_from_slice(values));
    out
}

/// Adds the sums of `count` columns from `first` of rows of `stride` to a vector's gradient.
pub(crate) fn add_columns(vector: &Weight, rows: &[f32], [stride, first, count]: [usize; 3]) {
    if !vector.is_trained() {
        return;
    }
    let block = |rows: &[f32]| {
        vectorised(
            #[inline(always)]
            || {
                let mut sums = vec![0.0f32; count];
                for row in rows.chunks_exact(stride) {
                    sums.iter_mut().zip(&row[first..first + count]).for_each(|(sum, value)| *sum += value);
                }
                sums
            },
        )
    };
    let blocks: Vec<Vec<f32>> = rows.par_chunks(BLOCK * stride).map(block).collect();
    add_in_order(vector, blocks.iter().map(Vec::as_slice));
}

/// Adds vectors to a gradient, one after the other.
pub(crate) fn add_in_order<'a>(vector: &Weight, parts: impl Iterator<Item = &'a [f32]>) {
    vector.add_gradient(|sum, add| {
        if !add {
            sum.fill(0.0);
        }
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
    });
}
