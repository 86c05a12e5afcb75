//! Labels of texts: accuracy, how far a model can be trusted by its own probabilities, and where its exits leave.

use super::{Done, Measured, Work};
use crate::artifact::host::ArtifactFile;
use crate::confidence::Answer;
use crate::divergence::argmax;
use crate::eval::classify::{self, ClassifyReport, Example};
use crate::eval::exits;
use crate::eval::opened::OpenedModel;
use crate::eval::routing::ConfidenceMetrics;
use crate::train::samples::TEXT_FIELD;
use slm_runtime::exits::confidence;

impl Work<'_> {
    pub(super) fn classify(&self) -> Done {
        let Work { model, tokenizer, progress, .. } = *self;
        let (records, mut notes) = self.labelled(TEXT_FIELD)?;
        let (mut examples, mut truncated) = (Vec::new(), 0);
        for record in records {
            let (tokens, cut) = tokenizer.encode_within(&record.text, self.context())?;
            truncated += usize::from(cut);
            examples.push(Example { line: record.line, tokens, label: record.label });
        }
        notes.count_cut(truncated, self.context());
        notes.warn(progress);
        let mut answers = Vec::with_capacity(examples.len());
        let (artifact, bound) = (model.as_artifact(), self.options.route_below);
        let failed = |source| self.failed(source);
        let truth = classify::truth_of(&examples, &model.labels).map_err(failed)?;
        let oos = model.labels.iter().position(|label| label == classify::OUT_OF_SCOPE);
        let metrics = classify::evaluate(model, self.against(), &examples, &model.labels, progress, &mut |row| {
            let (label, truth) = (argmax(row), truth[answers.len()]);
            let answer =
                Answer { confidence: confidence(row, 1.0), right: label == truth, elsewhere: Some(label) == oos };
            answers.push(answer);
        });
        let metrics = metrics.map_err(failed)?;
        let mut exits = None;
        let mut calibrated = false;
        if let Some(file) = artifact {
            let view = file.view()?;
            calibrated = view.heads().len() > 0;
            if calibrated {
                let left = exits::leave(&view, &examples).map_err(failed)?;
                answers = exits::answers(&left, &truth, &model.labels);
                if view.heads().len() > 1 {
                    let labels = (&truth[..], &model.labels[..]);
                    let other =
                        self.reference.and_then(OpenedModel::as_artifact).map(ArtifactFile::view).transpose()?;
                    let views = (&view, other.as_ref());
                    exits = Some(exits::measure(views, &examples, &left, labels, progress).map_err(failed)?);
                }
            }
        }
        let confidence = (calibrated || bound.is_some()).then(|| ConfidenceMetrics::of(&answers, bound));
        let report = ClassifyReport { metrics, exits, confidence, subject: model.subject.clone() };
        Ok((Measured::Classify(report), notes))
    }
}
