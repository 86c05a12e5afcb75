//! Student, teachers and data of a training run: opened, compared, and the student cut out of its teacher where the start is one.

use super::{Start, TrainOptions, Work, identity, inputs};
use crate::formats::{self, ModelFormatError};
use crate::model::companions::{Companion, Companions, TOKENIZER_FILE};
use crate::model::described;
use crate::model::id::LinearId;
use crate::model::transform::{NmPattern, Sparsity};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::adapter_output::{check_adapter, check_modules};
use crate::stages::provenance::Inputs;
use crate::stages::resume::Resume;
use crate::stages::shaping::{ShapeReport, ShapeStart, shape, shape_of};
use crate::text::tokenizer::{Tokenizer, token_table};
use crate::train::data::Samples;
use crate::train::error::TrainError;
use crate::train::samples::{TrainTask, own_task, read};
use crate::train::start::{self, StartError};
use crate::workers::TrainingDevices;
use burn::tensor::Device;

impl<'o> Work<'o> {
    /// Opens the models, compares them, and reads the data. What can be refused without the data is refused first.
    pub(super) fn open(
        options: &'o TrainOptions,
        devices: &TrainingDevices,
        progress: &dyn Progress,
    ) -> Result<Self, StageError> {
        let seed = options.settings.seed;
        let mut teachers = Vec::new();
        for (path, _) in &options.teachers {
            teachers.push(formats::open_model(path)?);
        }
        let teacher = teachers.first();
        let mut student = match (&options.start, teacher) {
            (Start::Path(path), _) => start::open(path, seed)?,
            (Start::Layers(layers), Some(teacher)) => start::layers_of(teacher, layers)?,
            // The text is read as the teacher does; the student comes after, since it is measured on it.
            (Start::Cut(_) | Start::CutTo(..), Some(teacher)) => teacher.clone(),
            (_, None) => return Err(StageError::LayersWithoutTeacher),
        };
        let gains_classifier = options.task == Some(TrainTask::Classify) && start::lacks_classifier(&student);
        check_adapter(options, formats::contents(&student.path).weights, gains_classifier)?;
        if gains_classifier {
            student = start::with_classifier(&student, &options.data, seed)?;
        }
        if let Some(exits) = &options.exits {
            student = start::with_exits(&student, exits)?;
        }
        for teacher in &teachers {
            compare(&student, teacher)?;
        }
        let sparsity = kept_sparsity(options, teacher)?;
        student.companions = companions(options, &student, teacher)?;
        let mut tokenizer = Tokenizer::of(&student.companions)?;
        let own = student.spec.vocabulary;
        let rows = teachers.iter().map(|teacher| teacher.spec.vocabulary).fold(own, usize::min);
        tokenizer.check(rows)?;
        let padded = teachers.iter().any(|teacher| teacher.spec.vocabulary != own);
        let shared_tokens = padded.then(|| tokenizer.vocabulary_size());
        student.spec = described::spec_of(&student.companions, &student.config).map_err(StartError::from)?;
        options.settings.for_model(&student.spec).check().map_err(TrainError::from)?;
        // Of a student that is cut afterwards it is looked up again.
        let mut scope = options.scope.of(&student.spec, &sparsity)?;
        check_modules(options, &student.spec, &scope)?;
        let task = options.task.unwrap_or_else(|| own_task(&student.spec));
        let of_run = || -> Result<(Inputs, Resume), StageError> {
            let inputs = inputs(options)?;
            let resume = Resume::of(&options.out, &identity(options, (&student, task), &inputs, devices)?);
            Ok((inputs, resume))
        };
        if Resume::is_left(&options.out) {
            // The state of another run is refused now, not after everything that comes before it is read.
            of_run()?.1.check()?;
        }
        let of_student = (&student.spec, &student.companions);
        let samples = read(&options.data, task, of_student, &tokenizer, options.settings.window, progress)?;
        let (inputs, resume) = of_run()?;
        let mut shape = None;
        if let Some(teacher) = teachers.first()
            && let Some((cut, report)) = shaped(&options.start, teacher, &samples.samples, &devices.device, progress)?
        {
            let companions = std::mem::take(&mut student.companions);
            student = Model { companions, ..cut };
            student.spec = described::spec_of(&student.companions, &student.config).map_err(StartError::from)?;
            shape = Some(report);
            scope = options.scope.of(&student.spec, &sparsity)?;
        }
        Ok(Work { options, student, teachers, sparsity, scope, shared_tokens, samples, shape, inputs, resume })
    }
}

/// The student that is cut out of the teacher, where the start is one.
fn shaped(
    start: &Start,
    teacher: &Model,
    samples: &Samples,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Option<(Model, ShapeReport)>, StageError> {
    match start {
        Start::Path(_) | Start::Layers(_) => Ok(None),
        Start::Cut(asked) => Ok(Some(shape(asked, teacher, None, samples, device, progress)?)),
        Start::CutTo(path, asked) => {
            let (description, wanted) = shape_of(path, &teacher.spec)?;
            let asked = ShapeStart { wanted, ..(**asked).clone() };
            Ok(Some(shape(&asked, teacher, Some(description), samples, device, progress)?))
        }
    }
}

/// The patterns of the matrices that come pruned: of the start's directory, or of the teacher's layers that are taken.
fn kept_sparsity(options: &TrainOptions, teacher: Option<&Model>) -> Result<Sparsity, StageError> {
    match (&options.start, teacher) {
        (Start::Path(path), _) if formats::contents(path).weights => {
            Ok(formats::open(path)?.recorded_sparsity().map_err(StartError::from)?)
        }
        (Start::Layers(layers), Some(teacher)) => {
            let of_teacher = formats::open(&teacher.path)?.recorded_sparsity().map_err(StartError::from)?;
            Ok(sparsity_of_layers(of_teacher, layers))
        }
        _ => Ok(Sparsity::new()),
    }
}

/// The patterns of a student that consists of some layers of its teacher.
pub fn sparsity_of_layers(of_teacher: Sparsity, layers: &[usize]) -> Sparsity {
    let taken = |(id, pattern): (LinearId, NmPattern)| {
        let layer = match id.layer {
            Some(layer) => Some(layers.iter().position(|taken| *taken == usize::from(layer))? as u16),
            None => None,
        };
        Some((LinearId { layer, ..id }, pattern))
    };
    of_teacher.into_iter().filter_map(taken).collect()
}

/// The tokenizer and the other files that travel with the student: as asked for, else its own, else the teacher's.
fn companions(
    options: &TrainOptions,
    student: &Model,
    teacher: Option<&Model>,
) -> Result<Companions, ModelFormatError> {
    if let Some(path) = &options.tokenizer {
        return formats::companions(path);
    }
    let has_tokenizer = student.companions.find(TOKENIZER_FILE).is_some_and(Companion::exists);
    Ok(teacher.filter(|_| !has_tokenizer).unwrap_or(student).companions.clone())
}

/// Refuses a teacher whose tokens or outputs are others than the student's. Tables that are padded to different sizes may
/// have the same tokens: by their tokenizers, which must then be there, or be the teacher's.
fn compare(student: &Model, teacher: &Model) -> Result<(), StageError> {
    let different = |what, student: &dyn std::fmt::Display, teacher: &dyn std::fmt::Display| {
        StageError::StudentDiffers { what, student: student.to_string(), teacher: teacher.to_string() }
    };
    let stacks = |model: &Model| match model.spec.stacks() {
        Some(stacks) => format!("encoder and decoder, begun by token {}", stacks.start),
        None => "one stack".to_owned(),
    };
    if stacks(student) != stacks(teacher) {
        return Err(different("stacks", &stacks(student), &stacks(teacher)));
    }
    let (own, other) = (token_table(&student.companions), token_table(&teacher.companions));
    let known = other.is_some() && own.as_ref().is_none_or(|own| Some(own) == other.as_ref());
    if student.spec.vocabulary != teacher.spec.vocabulary && !known {
        return Err(different("vocabularies", &student.spec.vocabulary, &teacher.spec.vocabulary));
    }
    let tokens = |model: &Model| model.spec.output_width() == model.spec.vocabulary;
    if !(tokens(student) && tokens(teacher)) && student.spec.output_width() != teacher.spec.output_width() {
        return Err(different("output widths", &student.spec.output_width(), &teacher.spec.output_width()));
    }
    if own.zip(other).is_some_and(|(own, other)| own != other) {
        return Err(different("vocabularies", &"its tokens", &"others"));
    }
    Ok(())
}
