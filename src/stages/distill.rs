//! `slmc distill`: a smaller student from a teacher.

use super::adapter_output::{check_adapter, check_modules};
use super::arguments::groups::{BackendArg, MODEL_AND_OUTPUT, NumericsArg, OutArg, TRAINING, TokenizerArg};
use super::arguments::scope::ScopeArgs;
use super::arguments::shape::{CUTTING, Init, ShapeArgs};
use super::arguments::training::{DataArgs, TrainingArgs, with_defaults};
use super::arguments::{DenseModel, DenseOrConfiguration, SharedFile, path};
use super::backend::{OnTrainingBackend, on_workers};
use super::known::{Files, Known, KnownModel, same_tokens};
use super::numerics;
use super::prediction::Prediction;
use super::shaping::shape_of;
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use super::training::{Start, TrainOptions, check, check_data, check_need, sparsity_of_layers, train};
use crate::formats;
use crate::model::spec::{Head, ModelKind};
use crate::model::transform::Sparsity;
use crate::shell::Shell;
use crate::train::loss::table::{Against, LossKind};
use crate::train::on_policy::OnPolicy;
use crate::train::settings::{Settings, since};
use crate::train::student::{state_pairs, take_layers};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Train a smaller student from a teacher
///
/// The student is a directory, a configuration, or cut out of the teacher: some of its layers, heads and channels, those that
/// carry most over the data, with the matrices that are kept fitted by least squares; --fit chooses how many of each. The loss is the cross entropy plus half
/// the relative distance of hidden states, layer by layer; --kl adds the divergence from the teacher's predictions.
/// A killed run goes on from its last checkpoint when the same command is repeated.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(with_defaults(&Settings::DISTILL)),
    after_help = "\
Examples:
  slmc distill --teacher models/tales-6m --layers 0,2,4 \\
      --data tales.txt -o out/student
  slmc distill --teacher models/tales-6m --ffn 256 --data tales.txt \\
      --kl 1 -o out/narrow
  slmc distill --teacher models/tales-6m --fit cortex-m55 --budget 1MiB \\
      --data tales.txt --kl 1 -o out/fits
  slmc distill --teacher models/tales-6m --student small/config.json \\
      --data tales.txt --kl 1 --tokens 1500000 -o out/student"
)]
pub struct Args {
    /// Dense directories to learn from
    ///
    /// From several the student learns the mixture of their distributions, and the hidden states of each. --layers and the
    /// tokenizer are those of the first.
    #[arg(long, value_name = "DIR", num_args = 1.., required = true, help_heading = MODEL_AND_OUTPUT)]
    teacher: Vec<DenseModel>,

    /// What each of several teachers counts [default: all alike]
    ///
    /// As many numbers as teachers; they are divided by their sum.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = TRAINING)]
    teacher_weights: Vec<f64>,

    /// Directory or configuration to start from
    #[arg(
        long,
        value_name = "DIR|CONFIG",
        conflicts_with = "layers",
        required_unless_present_any = ["layers"].into_iter().chain(CUTTING),
        help_heading = MODEL_AND_OUTPUT
    )]
    student: Option<DenseOrConfiguration>,

    /// Layers of the teacher to start from: 0,2,4
    ///
    /// Counted from 0.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = MODEL_AND_OUTPUT)]
    layers: Vec<usize>,

    #[command(flatten)]
    shape: ShapeArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// Teacher layers compared [default: spread evenly]
    ///
    /// The teacher's layer for each layer of the student, between whose hidden states --hidden measures.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = TRAINING)]
    layer_map: Vec<usize>,

    /// Share of the steps on text that the student writes
    ///
    /// As it is at that step, after beginnings of the data, at temperature 1; the teacher scores it by the losses that compare
    /// with it (on-policy distillation). Such a step takes several times as long, since its text is written token by token.
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    on_policy: Option<f64>,

    /// Tokens of a window that are given to it [default: a quarter]
    ///
    /// From conversations and records, everything before the first token that is learned.
    #[arg(long, value_name = "N", requires = "on_policy", help_heading = TRAINING)]
    on_policy_prefix: Option<usize>,
    /// File that keeps what the teachers say
    ///
    /// For every token, --teacher-draws ids drawn from the teachers' distribution, an unbiased estimate of it. Samples that
    /// the file has need no teacher: in later passes, with other seeds, students and stages on the same data. It is made where it is
    /// not there; its size is told before. For --kl alone.
    #[arg(long, value_name = "FILE", help_heading = TRAINING)]
    teacher_cache: Option<SharedFile>,

    /// Ids drawn for every token of --teacher-cache [default: 32]
    ///
    /// 2 bytes each, with more than 65,536 tokens 4; more make the estimate less noisy.
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    teacher_draws: Option<usize>,

    #[command(flatten)]
    training: TrainingArgs,

    #[command(flatten)]
    scope: ScopeArgs,

    #[command(flatten)]
    backend: BackendArg,

    #[command(flatten)]
    numerics: NumericsArg,

    #[command(flatten)]
    out: OutArg,
}

/// Ids drawn for every token where nothing is said.
const DRAWS: usize = 32;

/// The kind of stage.
pub struct Distill;

impl Args {
    fn on_policy(&self) -> Option<OnPolicy> {
        let share = self.on_policy.filter(|share| *share > 0.0)?;
        Some(OnPolicy { share, prefix: self.on_policy_prefix })
    }

    /// Notes text of the student that cannot be written, or that no loss would look at.
    fn check_on_policy(&self, settings: &Settings, student: Option<&KnownModel>, faults: &mut Faults) {
        let Some(share) = self.on_policy else { return };
        if !(0.0..=1.0).contains(&share) {
            faults.add("on-policy", anyhow!("--on-policy is {share}; expected a share of the steps, 0 to 1"));
        }
        if share > 0.0 && settings.loss.used().all(|def| def.against == Against::Targets) {
            let error = anyhow!(
                "--on-policy has the teacher score the student's text, and no loss compares with the teacher; add --kl"
            );
            faults.add("on-policy", error);
        } else if let Some(pause) = settings.loss.pause(Some(LossKind::CrossEntropy)).filter(|_| share > 0.0) {
            let error = anyhow!(
                "--on-policy has the teacher score the student's text, and {} no loss compares with the teacher; give --kl a \
                 weight at every step",
                since(pause)
            );
            faults.add("on-policy", error);
        }
        if share > 0.0 && self.teacher_cache.is_some() {
            let error = anyhow!(
                "--teacher-cache keeps what the teachers say of the data, which the student's own text is not part of; leave it \
                 out, or --on-policy"
            );
            faults.add("on-policy", error);
        }
        if self.on_policy_prefix.is_some_and(|prefix| prefix == 0 || prefix >= settings.window) {
            let (prefix, window) = (self.on_policy_prefix.unwrap_or(0), settings.window);
            let error =
                anyhow!("--on-policy-prefix is {prefix}; expected 1 to less than the window of {window} tokens");
            faults.add("on-policy-prefix", error);
        }
        if student.is_some_and(|student| student.spec.kind != ModelKind::Decoder) {
            let error = anyhow!("--on-policy is for decoders, which write on: this student is not one; leave it out");
            faults.add("on-policy", error);
        }
    }

    /// The student as far as it is known.
    fn student(&self, known: &Known, start: &Start, faults: &mut Faults) -> Option<KnownModel> {
        let first = self.teacher.first()?;
        let teacher = known.planned(first);
        if let Start::Cut(shape) = start {
            let teacher = teacher?;
            faults.check("", shape.check(&teacher.spec));
            let spec = faults.check("", shape.spec(&teacher.spec))??;
            return Some(KnownModel::dense(spec, Some(Sparsity::new())).with_files(self.files(teacher)));
        }
        if let (Start::CutTo(path, _), Some(teacher)) = (start, teacher)
            && path.exists()
        {
            faults.check("student", shape_of(path, &teacher.spec));
        }
        if let Some(path) = &self.student {
            for teacher in &self.teacher {
                faults.check("student", same_tokens(known, ("student", path), ("teacher", teacher)));
            }
            let student = known.planned(path).cloned()?;
            let own = student.files.clone().filter(|files| files.has_tokenizer());
            let files = match &self.tokenizer.tokenizer {
                Some(path) => Files::at(path),
                None => own.or_else(|| teacher?.files.clone()),
            };
            return Some(student.with_files(files));
        }
        let teacher = teacher?;
        let spec = faults.check("layers", take_layers(&teacher.spec, &self.layers))?;
        let sparsity = teacher.sparsity.clone().map(|sparsity| sparsity_of_layers(sparsity, &self.layers));
        Some(KnownModel::dense(spec, sparsity).with_files(self.files(teacher)))
    }

    /// The teachers, each with its part; notes weights that are none.
    fn teachers(&self, faults: &mut Faults) -> Vec<(PathBuf, f64)> {
        let (count, given) = (self.teacher.len(), &self.teacher_weights);
        let weights = if given.is_empty() { vec![1.0; count] } else { given.clone() };
        if weights.len() != count {
            let error = anyhow!(
                "--teacher-weights has {} numbers, and there are {count} teachers; give each one",
                weights.len()
            );
            faults.add("teacher-weights", error);
        }
        if let Some(wrong) = weights.iter().find(|weight| !weight.is_finite() || **weight <= 0.0) {
            faults.add("teacher-weights", anyhow!("--teacher-weights: {wrong} is no weight; give numbers above 0"));
        }
        let sum: f64 = weights.iter().sum();
        let of = |(path, weight): (&DenseModel, f64)| (path.to_path_buf(), weight / sum);
        self.teacher.iter().zip(weights).map(of).collect()
    }

    /// The file of what the teachers say, and ids of a row; notes losses that need more than it has.
    fn cache(&self, faults: &mut Faults) -> Option<(PathBuf, usize)> {
        let draws = self.teacher_draws.unwrap_or(DRAWS);
        if self.teacher_draws.is_some() && self.teacher_cache.is_none() {
            faults.add(
                "teacher-draws",
                anyhow!("--teacher-draws is for --teacher-cache FILE; add it, or leave this out"),
            );
        }
        if !(1..=4096).contains(&draws) {
            faults.add("teacher-draws", anyhow!("--teacher-draws is {draws}; expected 1 to 4096"));
        }
        self.teacher_cache.as_ref().map(|path| (path.to_path_buf(), draws))
    }

    /// Where the student's tokenizer comes from, where it is made of the teacher's layers.
    fn files(&self, teacher: &KnownModel) -> Option<Arc<Files>> {
        match &self.tokenizer.tokenizer {
            Some(path) => Files::at(path),
            None => teacher.files.clone(),
        }
    }
}

impl Stage for Distill {
    type Args = Args;
    type Options = OnTrainingBackend<TrainOptions>;
    const NAME: &'static str = "distill";
    const MAKES: Product = Product::Dense;
    const REVISION: u32 = 2;
    const ARITHMETIC: Arithmetic = Arithmetic::Float;
    const INPUTS: &'static [&'static str] = &["teacher", "student"];
    const RESUMES: Resumes = Resumes::Always;

    fn defaults() -> Value {
        json!(Settings::DISTILL)
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Self::Options> {
        let mut faults = Faults::default();
        if args.shape.init.is_some() && args.student.is_none() {
            let error = anyhow!(
                "--init says how the configuration of --student starts, and there is none; add it, or leave this out"
            );
            faults.add("init", error);
        }
        let sliced = args.shape.init == Some(Init::Slice);
        if let Some(path) = args.student.as_ref().filter(|path| sliced && formats::contents(path).weights) {
            let error = anyhow!(
                "--init slice: {} has weights of its own to start from; pass its config.json alone, or leave --init out",
                path.display()
            );
            faults.add("init", error);
        }
        let shape = args.shape.start(&args.layers, sliced, &mut faults).map(Box::new);
        let start = match (&args.student, shape) {
            (Some(path), Some(shape)) if sliced => Start::CutTo(path.to_path_buf(), shape),
            (Some(path), _) => Start::Path(path.to_path_buf()),
            (None, Some(shape)) => Start::Cut(shape),
            (None, None) => Start::Layers(args.layers.clone()),
        };
        if matches!(&start, Start::Layers(layers) if layers.is_empty()) && !args.shape.is_faulty() {
            faults.add("layers", anyhow!("--layers names no layer; name at least one, such as 0,2,4"));
        }
        let student = args.student(known, &start, &mut faults);
        let layer_map = (!args.layer_map.is_empty()).then(|| args.layer_map.clone());
        let mut context = usize::MAX;
        for path in &args.teacher {
            if let (Some(student), Some(teacher)) = (&student, known.planned(path)) {
                faults.check("layer-map", state_pairs(&student.spec, &teacher.spec, layer_map.as_deref()));
            }
            context = context.min(faults.check("teacher", known.context(path)).unwrap_or(usize::MAX));
        }
        if let Some(path) = &args.student {
            context = context.min(faults.check("student", known.context(path)).unwrap_or(usize::MAX));
        }
        let options = TrainOptions {
            invocation: run.invocation.clone(),
            start,
            teachers: args.teachers(&mut faults),
            cache: args.cache(&mut faults),
            layer_map,
            tokenizer: path(&args.tokenizer.tokenizer),
            data: args.data.data(),
            on_policy: args.on_policy(),
            task: args.data.task,
            exits: None,
            settings: args.training.settings(Settings::DISTILL, run, context),
            scope: args.scope.scope(),
            lora_output: args.scope.output(),
            privacy: None,
            out: args.out.out.clone(),
            metrics: path(&args.training.metrics),
            max_ram: run.max_ram,
        };
        if options.teachers.len() > 1 && options.settings.loss.uses(LossKind::Logits) {
            let error = anyhow!(
                "--logits compares with one teacher, and there are {}; take --kl, or one teacher",
                args.teacher.len()
            );
            faults.add("logits", error);
        }
        if options.cache.is_some() {
            let loss = &options.settings.loss;
            let more = loss.used().find(|def| def.against == Against::Logits && def.kind != LossKind::Divergence);
            if let Some(def) = more {
                let error = anyhow!(
                    "--{} compares whole distributions, and --teacher-cache keeps draws; leave one out",
                    def.option
                );
                faults.add(def.option, error);
            } else if !loss.uses(LossKind::Divergence) {
                faults.add(
                    "teacher-cache",
                    anyhow!("--teacher-cache is for --kl, which has no weight; add --kl 1, or leave it out"),
                );
            }
        }
        let spec = student.as_ref().map(|student| &student.spec);
        args.check_on_policy(&options.settings, student.as_ref(), &mut faults);
        check(&options.settings, &options.data, options.task, spec, true, &mut faults);
        let part = match &args.student {
            Some(path) => known.part_of(path),
            None => {
                student.as_ref().map(|student| (student.spec.clone(), student.sparsity.clone().unwrap_or_default()))
            }
        };
        args.scope.check(part.as_ref().map(|(spec, sparsity)| (spec, sparsity)), &mut faults);
        let weights =
            args.student.as_ref().is_none_or(|path| known.planned(path).is_some() || formats::contents(path).weights);
        faults.check("lora-output", check_adapter(&options, weights, false));
        if let Some((spec, sparsity)) = &part
            && let Ok(scope) = options.scope.of(spec, sparsity)
        {
            faults.check("lora-output", check_modules(&options, spec, &scope));
        }
        let teacher = args.teacher.first().and_then(|path| known.planned(path));
        check_data(&options, student.as_ref(), teacher, &mut faults);
        args.data.check(&mut faults);
        args.training.check_metrics(&mut faults);
        let backend = faults.check("backend", args.backend.training());
        let mut predicted = Prediction::default();
        if let Some(backend) = &backend {
            numerics::check(args.numerics.numerics, &backend.device(), on_workers(backend), &mut faults);
            let teachers: Vec<_> = args.teacher.iter().filter_map(|path| known.spec(path)).collect();
            let first = teachers.first();
            let planned = args.teacher.first().is_some_and(|path| known.planned(path).is_some());
            let student = match (&options.start, &args.student) {
                // What is wrong with it has been noted.
                (Start::Cut(shape), _) if planned => first.and_then(|teacher| shape.spec(teacher).ok().flatten()),
                (Start::Cut(shape), _) => first.and_then(|teacher| {
                    faults.check("", shape.check(teacher));
                    faults.check("", shape.spec(teacher)).flatten()
                }),
                (_, Some(path)) => known.spec(path),
                _ => first.and_then(|teacher| take_layers(teacher, &args.layers).ok()),
            };
            let teachers: Vec<_> = teachers.iter().collect();
            predicted = check_need(&options, (student.as_ref(), &teachers), false, backend, &mut faults);
        }
        let task = options.task;
        let checked = backend.map(|backend| OnTrainingBackend { options, backend });
        // A bare encoder is given a classifier for labels that only the data has.
        let same = |student: &KnownModel| task.is_none() || !matches!(student.spec.head, Head::Hidden);
        Resolved::new(checked, student.filter(same), faults).predicting(predicted)
    }

    fn run(checked: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome> {
        let (options, devices) = (&checked.options, checked.connect(shell)?);
        for (teacher, _) in &options.teachers {
            shell.status("Distilling", teacher.display());
        }
        let report = train(options, &devices, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!("distilled on {} tokens, loss {:.3}", report.count("tokens")?, report.number("loss")?))
    }
}
