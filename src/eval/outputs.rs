//! Runs a model, and a reference beside it, over many sequences in batches of bounded size, checks the outputs,
//! and hands the outputs over one sequence at a time: no more than one batch of outputs is ever in memory. On the way
//! it hashes the model's outputs: SHA-256 of the little-endian f32 of every position of every sequence, in order.

use super::error::{EvalError, Side};
use super::forward::Forward;
use crate::progress::Progress;
use sha2::{Digest, Sha256};
use slm_numerics::scratch;

/// Outputs of one batch of one model, in bytes, unless a single sequence has more. Several windows of a large vocabulary
/// fit, since the f32 forward prepares every matrix once a batch.
pub(crate) const BATCH_BYTES: usize = 208 << 20;
/// Values that are turned into bytes at a time for the hash.
const HASHED: usize = 4096;

/// Rows a sequence's output has.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    /// One per token.
    PerToken,
    /// One for the whole sequence.
    One,
}

impl Rows {
    fn of(self, tokens: usize) -> usize {
        match self {
            Rows::PerToken => tokens,
            Rows::One => 1,
        }
    }
}

/// A model, its reference if there is one, and the shapes of their outputs.
pub(super) struct Pair<'a> {
    pub(super) model: &'a dyn Forward,
    pub(super) reference: Option<&'a dyn Forward>,
    /// The first columns that are compared, where both models have more and their widths may differ.
    pub(super) shared: Option<usize>,
    pub(super) rows: Rows,
    /// Rows of the reference's outputs.
    pub(super) reference_rows: Rows,
    /// Name of a column of the output, plural.
    pub(super) columns: &'static str,
    /// Name of the work, and the plural name of a sequence, for progress.
    pub(super) work: (&'static str, &'static str),
}

impl Pair<'_> {
    /// Calls `visit(sequence, model's output, reference's output)` for every sequence in order, each output
    /// (rows, the width of its own model), and returns the hash of the model's outputs in hexadecimal.
    pub(super) fn for_each(
        &self,
        sequences: &[Vec<u32>],
        batch_bytes: Option<usize>,
        progress: &dyn Progress,
        mut visit: impl FnMut(usize, &[f32], Option<&[f32]>) -> Result<(), EvalError>,
    ) -> Result<String, EvalError> {
        let width = self.model.output_width();
        let differs = |&other: &usize| match self.shared {
            None => other != width,
            Some(shared) => shared > width.min(other),
        };
        let other = self.reference.map(Forward::output_width);
        if let Some(reference) = other.filter(differs) {
            return Err(EvalError::WidthsDiffer { model: width, reference, what: self.columns });
        }
        let most = batch_bytes.unwrap_or(BATCH_BYTES) / size_of::<f32>();
        let mut hash = Sha256::new();
        let mut first = 0;
        while first < sequences.len() {
            let values = |n: usize| self.rows.of(sequences[n].len()) * width.max(other.unwrap_or(0));
            let (mut end, mut total) = (first + 1, values(first));
            while end < sequences.len() && total + values(end) <= most {
                total += values(end);
                end += 1;
            }
            let outputs = self.run(Side::Model, self.model, sequences, first..end)?;
            let references = match self.reference {
                Some(reference) => Some(self.run(Side::Reference, reference, sequences, first..end)?),
                None => None,
            };
            // The hash is one chain over all outputs: beside the visits, by one of the program's threads, it costs no time.
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| outputs.iter().for_each(|output| add(&mut hash, output)));
                outputs.iter().enumerate().try_for_each(|(n, output)| {
                    visit(first + n, output, references.as_ref().map(|all| all[n].as_slice()))
                })
            })?;
            self.model.reuse(outputs);
            if let (Some(reference), Some(references)) = (self.reference, references) {
                reference.reuse(references);
            }
            progress.advance((end - first) as u64);
            first = end;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn run(
        &self,
        side: Side,
        forward: &dyn Forward,
        sequences: &[Vec<u32>],
        range: std::ops::Range<usize>,
    ) -> Result<Vec<Vec<f32>>, EvalError> {
        let batch = &sequences[range.clone()];
        let width = forward.output_width();
        let rows = match side {
            Side::Model => self.rows,
            Side::Reference => self.reference_rows,
        };
        let outputs = forward.logits(batch).map_err(|source| EvalError::Forward {
            side,
            first: range.start,
            last: range.end - 1,
            source,
        })?;
        if outputs.len() != batch.len() {
            return Err(EvalError::Count { side, expected: batch.len(), found: outputs.len() });
        }
        for (n, (output, tokens)) in outputs.iter().zip(batch).enumerate() {
            let (sequence, rows) = (range.start + n, rows.of(forward.positions(tokens)));
            if output.len() != rows * width {
                return Err(EvalError::Shape { side, sequence, rows, width, found: output.len() });
            }
            // All of them first, which is done many at a time.
            if output.iter().fold(true, |all, value| all & value.is_finite()) {
                continue;
            }
            if let Some(place) = output.iter().position(|value| !value.is_finite()) {
                return Err(EvalError::NotFinite { side, sequence, position: place / width, value: output[place] });
            }
        }
        Ok(outputs)
    }

    /// Reports the work's beginning and end to `progress` around [`Pair::for_each`].
    pub(super) fn watched(
        &self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
        visit: impl FnMut(usize, &[f32], Option<&[f32]>) -> Result<(), EvalError>,
    ) -> Result<String, EvalError> {
        progress.begin(self.work.0, sequences.len() as u64, self.work.1);
        let hash = self.for_each(sequences, None, progress, visit);
        // The memory of outputs has no further use.
        scratch::forget();
        progress.finish();
        hash
    }
}

/// Adds values to a hash as little-endian bytes.
fn add(hash: &mut Sha256, values: &[f32]) {
    let mut bytes = [[0; size_of::<f32>()]; HASHED];
    for values in values.chunks(HASHED) {
        bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
        hash.update(bytes[..values.len()].as_flattened());
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A model that is a table: the output for each token, regardless of its context.

    use super::super::forward::{Forward, ForwardError};

    /// Row `token` of the table is the output at that token; with `one`, only the first token's.
    pub(in super::super) struct Table {
        pub(in super::super) rows: Vec<Vec<f32>>,
        pub(in super::super) one: bool,
    }

    impl Table {
        pub(in super::super) fn per_token(rows: &[&[f32]]) -> Self {
            Table { rows: rows.iter().map(|row| row.to_vec()).collect(), one: false }
        }

        pub(in super::super) fn per_sequence(rows: &[&[f32]]) -> Self {
            Table { one: true, ..Table::per_token(rows) }
        }
    }

    impl Forward for Table {
        fn output_width(&self) -> usize {
            self.rows[0].len()
        }

        fn logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ForwardError> {
            let row = |&token: &u32| {
                self.rows.get(token as usize).cloned().ok_or_else(|| ForwardError::new(format!("no token {token}")))
            };
            sequences
                .iter()
                .map(|tokens| {
                    let tokens = if self.one { &tokens[..1] } else { &tokens[..] };
                    Ok(tokens.iter().map(row).collect::<Result<Vec<_>, _>>()?.concat())
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Table;
    use super::*;
    use crate::progress::Silent;

    fn pair<'a>(model: &'a dyn Forward, reference: Option<&'a dyn Forward>) -> Pair<'a> {
        let (rows, work) = (Rows::PerToken, ("testing", "sequences"));
        Pair { model, reference, shared: None, rows, reference_rows: rows, columns: "tokens", work }
    }

    #[test]
    fn batches_of_any_size_visit_all_in_order_with_one_hash() {
        let model = Table::per_token(&[&[0.0, 1.0], &[2.0, -3.5]]);
        let sequences = vec![vec![0, 1], vec![1], vec![0, 0, 1]];
        let expected: Vec<f32> = vec![0.0, 1.0, 2.0, -3.5, 2.0, -3.5, 0.0, 1.0, 0.0, 1.0, 2.0, -3.5];
        let bytes: Vec<u8> = expected.iter().flat_map(|value| value.to_le_bytes()).collect();
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        for batch_bytes in [None, Some(0), Some(24), Some(40)] {
            let mut seen = Vec::new();
            let found = pair(&model, None)
                .for_each(&sequences, batch_bytes, &Silent, |_, output, _| {
                    seen.extend_from_slice(output);
                    Ok(())
                })
                .expect("runs");
            assert_eq!((&seen, &found), (&expected, &hash));
        }
    }

    #[test]
    fn bad_outputs_are_named() {
        let good = Table::per_token(&[&[0.0, 1.0], &[2.0, 3.0]]);
        let infinite = Table::per_token(&[&[0.0, 1.0], &[2.0, f32::NAN]]);
        let wide = Table::per_token(&[&[0.0; 3], &[0.0; 3]]);
        let short = Table::per_sequence(&[&[0.0, 1.0], &[2.0, 3.0]]);
        type Case<'a> = (&'a dyn Forward, &'a dyn Forward, Vec<u32>, &'static str);
        let cases: [Case<'_>; 4] = [
            (&good, &infinite, vec![0, 1], "the reference computed NaN at position 1 of sequence 0"),
            (&good, &wide, vec![0, 1], "the model has 2 outputs and the reference 3"),
            (&short, &good, vec![0, 1], "the model returned 2 values for sequence 0; expected 2 rows of 2"),
            (&good, &good, vec![7], "cannot run the model on sequences 0 to 0"),
        ];
        for (model, reference, tokens, expected) in cases {
            let error = pair(model, Some(reference)).watched(&[tokens], &Silent, |_, _, _| Ok(())).expect_err(expected);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
