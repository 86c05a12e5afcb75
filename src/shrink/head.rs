//! The head of a student: its matrices fitted as those of the layers are, and the last gain of a tied one. A tied head has no
//! matrix that could be fitted, since the token table is what embeds too; what is free is the gain γ̃ of the norm before it.
//! With E and Ẽ the two tables, every row less their mean row (a number added to all logits changes nothing), and x the
//! head's input,
//!
//! ```text
//! min over a of Σ ‖E x − Ẽ diag(x̃) a‖²      (ẼᵀẼ ∘ Σ x̃ x̃ᵀ) a = diag(Ẽᵀ E Σ x x̃ᵀ)      γ̃ ← a γ̃
//! ```

use super::ShrinkError;
use super::least_squares::Residuals;
use super::walk::At;
use crate::calibrate::batches::with_values;
use crate::model::forward::{DenseWeights, StagedForward};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::matrix::{from_rows, row_major};
use crate::model::spec::Head;
use burn::tensor::Tensor;
use ndarray::Array2;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

impl At<'_, '_> {
    /// The norm after the last layer, and the head.
    pub(super) fn head(&mut self) -> Result<(), ShrinkError> {
        if let Some(norm) = self.walk().cut.spec.final_norm {
            self.scale_gain(None, NormSite::Final, norm)?;
        }
        match self.walk().cut.spec.head {
            Head::Hidden => Ok(()),
            Head::LanguageModel { tied: true, .. } => self.tied(),
            Head::LanguageModel { tied: false, .. } => {
                let [teacher, student] = self.finished()?;
                self.language(&teacher, &student)
            }
            Head::MaskedLanguageModel { tied, .. } => {
                let [teacher, student] = self.finished()?;
                self.readers(&[LinearId::global(Role::MlmTransform)], &teacher, &student)?;
                let [teacher, student] = self.before_last(teacher, student)?;
                if self.narrower() {
                    self.fit_channels(None, NormSite::MlmTransform, &teacher, &student)?;
                }
                if tied { Ok(()) } else { self.language(&teacher, &student) }
            }
            Head::LastClassifier { .. } => {
                let [teacher, student] = self.finished()?;
                self.readers(&[LinearId::global(Role::Classifier)], &teacher, &student)
            }
            Head::Classifier { norm, .. } => {
                let [teacher, student] = self.finished()?;
                self.readers(&[LinearId::global(Role::Pooler)], &teacher, &student)?;
                let [teacher, student] = self.before_last(teacher, student)?;
                if norm.is_some() && self.narrower() {
                    self.fit_channels(None, NormSite::MlmTransform, &teacher, &student)?;
                }
                self.readers(&[LinearId::global(Role::Classifier)], &teacher, &student)
            }
            Head::TokenClassifier { .. } | Head::Answers { .. } => {
                let [teacher, student] = self.finished()?;
                self.readers(&[LinearId::global(Role::Classifier)], &teacher, &student)
            }
        }
    }

    /// Inputs of the head's last matrix.
    fn before_last(
        &self,
        teacher: Vec<Tensor<3>>,
        student: Vec<Tensor<3>>,
    ) -> Result<[Vec<Tensor<3>>; 2], ShrinkError> {
        let walk = self.walk();
        let around = DenseWeights::part(walk.cut.teacher, walk.device, |id| id.layer().is_none())?;
        let forward = StagedForward::new(&walk.cut.teacher.spec, &around, walk.device);
        let teacher = teacher.into_iter().map(|input| forward.before_last(input)).collect();
        let around = walk.weights(&self.values, None)?;
        let forward = StagedForward::new(walk.cut.spec, &around, walk.device);
        Ok([teacher, student.into_iter().map(|input| forward.before_last(input)).collect()])
    }

    /// Σ x x̃ᵀ and Σ x̃ x̃ᵀ over tokens.
    fn crossed(&self, teacher: &[Tensor<3>], student: &[Tensor<3>]) -> Result<[Array2<f64>; 2], ShrinkError> {
        let width = |inputs: &[Tensor<3>]| inputs.first().map_or(0, |input| input.dims()[2]);
        let (other, own) = (width(teacher), width(student));
        let mut sums = [Array2::<f64>::zeros((other, own)), Array2::<f64>::zeros((own, own))];
        let mut block = vec![0.0f32; other.max(own) * own];
        for (teacher, student) in teacher.iter().zip(student) {
            with_values(teacher, |teacher| {
                with_values(student, |student| {
                    for (sums, (left, rows)) in sums.iter_mut().zip([(teacher, other), (student, own)]) {
                        let block = &mut block[..rows * own];
                        let (left, right) = (Matrix::new(left, rows), Matrix::new(student, own));
                        multiply(Output::over(block, own), Left::Columns(left), Right::Rows(right));
                        sums.iter_mut().zip(block.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
                    }
                })
            })??;
        }
        Ok(sums)
    }

    /// A head of its own: R = W Σ x x̃ᵀ − W̃ Σ x̃ x̃ᵀ, since its outputs are many.
    fn language(&mut self, teacher: &[Tensor<3>], student: &[Tensor<3>]) -> Result<(), ShrinkError> {
        if !self.walk().refit {
            return Ok(());
        }
        let id = LinearId::global(Role::LmHead);
        let [crossed, gram] = self.crossed(teacher, student)?;
        let (matrix, own) = (self.walk().cut.teacher.matrix(id)?, self.own(id));
        let rows = matrix.nrows();
        let mut products = product(&matrix, &crossed);
        let made = product(&own, &gram);
        products.iter_mut().zip(made).for_each(|(sum, made)| *sum -= made);
        let columns = gram.ncols();
        self.apply(&[id], &[rows], columns, &Residuals::of(gram, products))
    }

    /// The student's own values of a matrix that reads the stream.
    fn own(&self, id: LinearId) -> Array2<f32> {
        let values = self.values.get(&ParameterId::weight(id)).cloned().unwrap_or_default();
        from_rows(values, self.walk().cut.spec.hidden)
    }

    /// The last gain of a tied head, where the stream is narrower.
    fn tied(&mut self) -> Result<(), ShrinkError> {
        if !self.narrower() || !self.walk().refit {
            return Ok(());
        }
        let table = LinearId::global(Role::TokenEmbedding);
        let [teacher, student] = self.finished()?;
        let [crossed, gram] = self.crossed(&teacher, &student)?;
        let (of_teacher, own) = (centred(&self.walk().cut.teacher.matrix(table)?), centred(&self.own(table)));
        let columns = own.ncols();
        // Ẽᵀ E, (kept, hidden), and Ẽᵀ Ẽ.
        let between = transposed_product(&own, &of_teacher);
        let within = transposed_product(&own, &own);
        let system = Array2::from_shape_fn((columns, columns), |at| within[at] * gram[at]);
        let wanted = |i: usize| -> f64 { between.row(i).iter().zip(crossed.column(i)).map(|(a, b)| a * b).sum() };
        let residual: Vec<f64> = (0..columns).map(|i| wanted(i) - system.row(i).sum()).collect();
        let Some((change, _)) = Residuals::of(system, residual).solve() else { return Ok(()) };
        let id = ParameterId::Norm(None, NormSite::Final, Part::Weight);
        let added = if self.walk().cut.spec.counts_from_one(id) { 1.0 } else { 0.0 };
        self.values.entry(id).and_modify(|gain| {
            gain.iter_mut().zip(&change).for_each(|(gain, change)| {
                *gain = ((f64::from(*gain) + added) * (1.0 + change) - added) as f32;
            });
        });
        Ok(())
    }
}

/// Every row less the mean row.
fn centred(table: &Array2<f32>) -> Array2<f64> {
    let rows = table.nrows().max(1) as f64;
    let means: Vec<f64> =
        table.columns().into_iter().map(|column| column.iter().map(|w| f64::from(*w)).sum::<f64>() / rows).collect();
    Array2::from_shape_fn(table.dim(), |(row, column)| f64::from(table[[row, column]]) - means[column])
}

/// W M, (rows, columns), row-major.
fn product(matrix: &Array2<f32>, right: &Array2<f64>) -> Vec<f64> {
    let columns = right.ncols();
    let mut out = vec![0.0; matrix.nrows() * columns];
    let left: Vec<f64> = matrix.iter().map(|value| f64::from(*value)).collect();
    let (left, right) = (Matrix::new(&left, matrix.ncols()), Matrix::new(row_major(right.view()), columns));
    multiply(Output::over(&mut out, columns), Left::Rows(left), Right::Rows(right));
    out
}

/// Aᵀ B.
fn transposed_product(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let columns = b.ncols();
    let mut out = vec![0.0; a.ncols() * columns];
    let left = Left::Columns(Matrix::new(row_major(a.view()), a.ncols()));
    let right = Right::Rows(Matrix::new(row_major(b.view()), columns));
    multiply(Output::over(&mut out, columns), left, right);
    from_rows(out, columns)
}
