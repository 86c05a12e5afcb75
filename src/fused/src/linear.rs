//! Products with weights, several matrices over one input at once, with biases and the residual that the result is added
//! to:
//!
//! ```text
//! y = [x · W₁ᵀ + b₁, x · W₂ᵀ + b₂, …] + residual
//! dx = Σ dyᵢ · Wᵢ        dWᵢ += dyᵢᵀ · x        dbᵢ += Σ_tokens dyᵢ        dresidual = dy
//! ```

use crate::node::{Value, record, recycle, slice, tensor};
use crate::weights::{TermKind, Weight};
use rayon::prelude::*;
use slm_numerics::lanes::vectorised;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};
use slm_numerics::scratch::{Scratch, take};

/// Tokens whose gradients are summed before they go into a bias.
const BLOCK: usize = 64;

/// Most tokens of which weights are multiplied as they lie: to pack them would take as long as the product.
const FEW: usize = 128;
/// Tokens whose outputs are turned back together.
const TURNED: usize = 16;

/// A matrix (out, in) and its bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (out, in)
    pub matrix: Weight,
    /// (out)
    pub bias: Option<Weight>,
    /// Largest magnitude c of what a head gives, which losses take as c · tanh(z / c); [`linear`] leaves that to
    /// [`crate::activation::cap`].
    pub cap: Option<f32>,
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
        multiply_by(output, slice(&x), linear.matrix.values(), inputs);
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
            match linear.matrix.terms() {
                Some(terms) => {
                    let dy = columns_of(slice(&gradient), [total, first, count]);
                    terms.keep([0, tokens, tokens], TermKind::Products { dy, x: slice(&x).to_vec(), inputs });
                }
                None => linear.matrix.add_gradient(|sum, add| {
                    let output = Output { add, ..Output::over(sum, inputs) };
                    multiply(output, Left::Columns(own), Right::Rows(Matrix::new(slice(&x), inputs)));
                }),
            }
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

/// x · weightsᵀ. Few tokens are the columns of the product and not its rows, which changes no bit of it.
fn multiply_by(output: Output<'_>, x: &[f32], weights: &[f32], inputs: usize) {
    let (tokens, outputs) = (x.len() / inputs, weights.len() / inputs);
    let (x, weights) = (Matrix::new(x, inputs), Matrix::new(weights, inputs));
    if tokens > FEW || outputs <= tokens {
        multiply(output, Left::Rows(x), Right::Columns(weights));
        return;
    }
    let Output { values, stride, first, add } = output;
    let mut turned = Scratch::take(outputs * tokens);
    let turned = turned.values();
    if add {
        for (token, row) in values.chunks(stride).take(tokens).enumerate() {
            turned[token..].iter_mut().step_by(tokens).zip(&row[first..]).for_each(|(turned, value)| *turned = *value);
        }
    }
    multiply(Output { add, ..Output::over(turned, tokens) }, Left::Rows(weights), Right::Columns(x));
    values.par_chunks_mut(TURNED * stride).enumerate().for_each(|(block, values)| {
        let from = block * TURNED;
        for (output, scores) in turned.chunks_exact(tokens).enumerate() {
            for (row, score) in values.chunks_mut(stride).zip(&scores[from..]) {
                row[first + output] = *score;
            }
        }
    });
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
    if let Some(terms) = vector.terms() {
        let all = rows.len() / stride;
        return terms.keep([0, all, all], TermKind::Vectors(columns_of(rows, [stride, first, count])));
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

/// `count` columns from `first` of rows of `stride`.
fn columns_of(rows: &[f32], [stride, first, count]: [usize; 3]) -> Vec<f32> {
    rows.chunks_exact(stride).flat_map(|row| &row[first..first + count]).copied().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    fn values(stream: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// Each token's outputs, with biases and a residual or without, whatever tokens go with it.
    #[test]
    fn other_tokens_change_no_bit() {
        let (inputs, outputs) = (70, [150, 9]);
        let weight = |stream, count| Weight::frozen(tensor(values(stream, count), &[count]));
        let linears = |bias: bool| -> Vec<Linear> {
            let one = |(stream, count): (u64, &usize)| Linear {
                matrix: weight(stream, count * inputs),
                bias: bias.then(|| weight(stream + 10, *count)),
                cap: None,
            };
            (1..).zip(&outputs).map(one).collect()
        };
        let total = outputs.iter().sum::<usize>();
        for tokens in [1, 3, 33, FEW, FEW + 40] {
            let rows = |stream, width, first: usize, count: usize| {
                let all = values(stream, tokens * width);
                Value::Plain(tensor(all[first * width..][..count * width].to_vec(), &[count, width]))
            };
            for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                let part = |first, count| {
                    let residual = residual.then(|| rows(7, total, first, count));
                    let out = linear(&rows(8, inputs, first, count), linears(bias), residual.as_ref()).tensor();
                    slice(&out).to_vec()
                };
                let whole = part(0, tokens);
                for first in [0, tokens / 2, tokens - 1] {
                    assert_eq!(part(first, 1), whole[first * total..][..total], "{tokens} tokens, {first}");
                }
            }
        }
    }
}
