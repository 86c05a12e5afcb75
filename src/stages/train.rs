//! `slmc train`: a model from a checkpoint, or from a configuration alone.

use super::adapter_output::{check_adapter, check_modules};
use super::arguments::exits::ExitArgs;
use super::arguments::groups::{BackendArg, MODEL_AND_OUTPUT, NumericsArg, OutArg, TokenizerArg};
use super::arguments::privacy::PrivacyArgs;
use super::arguments::rounds::RoundArgs;
use super::arguments::scope::{LoraOutput, ScopeArgs};
use super::arguments::training::{DataArgs, TrainingArgs, with_defaults};
use super::arguments::{DenseOrConfiguration, path};
use super::backend::{OnTrainingBackend, on_workers};
use super::known::{Files, Known, KnownModel};
use super::numerics;
use super::prediction::Prediction;
use super::rounds::{self, RoundOptions, round};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use super::training::{Start, TrainOptions, check, check_data, check_need, train};
use crate::disk::atomic;
use crate::formats;
use crate::model::device::Backend;
use crate::model::spec::{Head, ModelSpec};
use crate::shell::Shell;
use crate::text::reasoning::ReasoningForm;
use crate::train::error::TrainError;
use crate::train::samples::TrainTask;
use crate::train::settings::Settings;
use serde_json::{Value, json};

/// Train a model from a checkpoint, or from a configuration alone
///
/// DIR with weights is fine-tuned; a config.json (or a directory with no weights beside it) starts from random ones and
/// needs a tokenizer.json beside it or --tokenizer. A bare encoder given --task classify gets a classifier for the
/// labels of its data. --train-only and --lora-rank train a part, --exits adds heads
/// after earlier layers, --dp-epsilon hides every single sample behind noise, and
/// --round-from averages what several clients trained from the same model. A killed run goes on from its last checkpoint when the same command is repeated.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(with_defaults(&Settings::TRAIN)),
    mut_arg("data", |data| data.required(false).required_unless_present("round_from")),
    after_help = "\
Examples:
  slmc train config.json --tokenizer tok --data tales.txt -o out/tales
  slmc train models/tales-6m --data more.txt --tokens 5000000 -o out/tuned
  slmc train models/minilm --task classify --data labelled.jsonl -o out/c
  slmc train models/tales-6m --data more.txt --lora-rank 8 -o out/tuned
  slmc train models/tales-6m --round-from out/a out/b -o out/averaged"
)]
pub struct Args {
    /// Hugging Face directory, GGUF file, or a configuration
    #[arg(value_name = "DIR|CONFIG", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: DenseOrConfiguration,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    #[command(flatten)]
    training: TrainingArgs,

    #[command(flatten)]
    scope: ScopeArgs,

    #[command(flatten)]
    exits: ExitArgs,

    #[command(flatten)]
    privacy: PrivacyArgs,

    #[command(flatten)]
    round: RoundArgs,

    #[command(flatten)]
    backend: BackendArg,

    #[command(flatten)]
    numerics: NumericsArg,

    #[command(flatten)]
    out: OutArg,
}

/// Key of labels where none is named, as the option has it.
const LABEL_FIELD: &str = "label";

/// The kind of stage.
pub struct Train;

/// Checked options: of training, or of a round.
pub enum Work {
    /// Training.
    Train(Box<TrainOptions>),
    /// The average of what clients trained.
    Round(RoundOptions),
}

impl Args {
    fn settings(&self, run: &RunSettings, context: usize) -> Settings {
        let settings = self.training.settings(Settings::TRAIN, run, context);
        Settings { loss: self.exits.weights(settings.loss), ..settings }
    }

    /// A round: nothing of training is looked at but whether it is there.
    fn round(&self, run: &RunSettings, known: &Known) -> Resolved<OnTrainingBackend<Work>> {
        let mut faults = Faults::default();
        let data = self.data.data();
        let plain = ReasoningForm::default();
        let given = [
            (!self.data.is_empty()).then_some("data"),
            self.data.task.map(|_| "task"),
            data.form.field.is_some().then_some("field"),
            data.form.separator.is_some().then_some("separator"),
            (data.label_field != LABEL_FIELD).then_some("label-field"),
            (data.reasoning.parts != plain.parts).then_some("loss-on"),
            (data.reasoning.without_reasoning != plain.without_reasoning).then_some("without-reasoning"),
            (data.reasoning.prompt != plain.prompt).then_some("prompt-field"),
            (data.reasoning.answer != plain.answer).then_some("answer-field"),
            (data.reasoning.reasoning != plain.reasoning).then_some("reasoning-field"),
            self.tokenizer.tokenizer.as_ref().map(|_| "tokenizer"),
            self.training.given(),
            self.scope.given(),
            (self.scope.output() != LoraOutput::default()).then_some("lora-output"),
            self.exits.given(),
            self.privacy.given(),
        ];
        self.round.check(given.into_iter().flatten().next(), &mut faults);
        faults.check("out", atomic::check_directory(&self.out.out));
        let device = faults.check("backend", self.backend.device());
        let options = self.round.options(&self.model, &self.out.out, run);
        let makes = known.planned(&self.model).cloned();
        let checked =
            device.map(|device| OnTrainingBackend { options: Work::Round(options), backend: Backend::Device(device) });
        Resolved::new(checked, makes, faults)
    }
}

impl Stage for Train {
    type Args = Args;
    type Options = OnTrainingBackend<Work>;
    const NAME: &'static str = "train";
    const MAKES: Product = Product::Dense;
    const REVISION: u32 = 2;
    const ARITHMETIC: Arithmetic = Arithmetic::Float;
    const RESUMES: Resumes = Resumes::Always;

    fn defaults() -> Value {
        json!(Settings::TRAIN)
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Self::Options> {
        if args.round.is_given() {
            return args.round(run, known);
        }
        let mut faults = Faults::default();
        let context = faults.check("model", known.context(&args.model)).unwrap_or(usize::MAX);
        let planned = known.planned(&args.model);
        let options = TrainOptions {
            invocation: run.invocation.clone(),
            start: Start::Path(args.model.to_path_buf()),
            teachers: Vec::new(),
            cache: None,
            layer_map: None,
            tokenizer: path(&args.tokenizer.tokenizer),
            data: args.data.data(),
            on_policy: None,
            task: args.data.task,
            settings: args.settings(run, context),
            scope: args.exits.scope(args.scope.scope()),
            exits: args.exits.exits(),
            lora_output: args.scope.output(),
            privacy: args.privacy.privacy(),
            out: args.out.out.clone(),
            metrics: path(&args.training.metrics),
            max_ram: run.max_ram,
        };
        let student = known.part_of(&args.model);
        let of_student = student.as_ref().map(|(spec, _)| spec);
        let settings = match of_student {
            // Exits that it has or gains are a part of the loss.
            Some(spec) => {
                let exits = options.exits.clone().unwrap_or_else(|| spec.exits.clone());
                options.settings.for_model(&ModelSpec { exits, ..spec.clone() })
            }
            None => options.settings.clone(),
        };
        check(&settings, &options.data, options.task, planned.map(|model| &model.spec), false, &mut faults);
        args.privacy.check(args.training.gives_pieces_and_clip(), &mut faults);
        let headless = |spec: &ModelSpec| options.task.is_some() && matches!(spec.head, Head::Hidden);
        // A bare encoder is given a head that only the data decides.
        let whole = student.as_ref().filter(|(spec, _)| !headless(spec));
        args.scope.check(whole.map(|(spec, sparsity)| (spec, sparsity)), &mut faults);
        let gains = options.task == Some(TrainTask::Classify) && of_student.is_some_and(headless);
        args.exits.check((of_student, gains), args.scope.given(), &mut faults);
        if options.privacy.is_some()
            && (options.exits.is_some() || of_student.is_some_and(|spec| !spec.exits.is_empty()))
        {
            faults.add("dp-epsilon", TrainError::PrivateExits);
        }
        if let Some((spec, _)) = &student {
            let gains = options.task == Some(TrainTask::Classify) && headless(spec);
            let weights = planned.is_some() || formats::contents(&args.model).weights;
            faults.check("lora-output", check_adapter(&options, weights, gains));
        }
        if let Some((spec, sparsity)) = whole
            && let Ok(scope) = options.scope.of(spec, sparsity)
        {
            faults.check("lora-output", check_modules(&options, spec, &scope));
        }
        check_data(&options, planned, None, &mut faults);
        args.data.check(&mut faults);
        args.training.check_metrics(&mut faults);
        let backend = faults.check("backend", args.backend.training());
        let mut predicted = Prediction::default();
        if let Some(backend) = &backend {
            numerics::check(args.numerics.numerics, &backend.device(), on_workers(backend), &mut faults);
            let spec = known.spec(&args.model);
            predicted = check_need(&options, (spec.as_ref(), &[]), false, backend, &mut faults);
        }
        // A bare encoder is given a classifier for labels that only the data has.
        let same = |model: &&KnownModel| options.task.is_none() || !matches!(model.spec.head, Head::Hidden);
        let makes = planned.filter(same).cloned().map(|mut model| {
            if let Some(exits) = &options.exits {
                model.spec.exits = exits.clone();
            }
            match &options.tokenizer {
                Some(path) => model.with_files(Files::at(path)),
                None => model,
            }
        });
        let checked = backend.map(|backend| OnTrainingBackend { options: Work::Train(Box::new(options)), backend });
        Resolved::new(checked, makes, faults).predicting(predicted)
    }

    fn run(checked: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome> {
        let options = match &checked.options {
            Work::Train(options) => options,
            Work::Round(options) => {
                shell.status(
                    "Averaging",
                    format_args!("{} clients of {}", options.clients.len(), options.start.display()),
                );
                let report = round(options, shell)?;
                shell.status("Wrote", options.out.display());
                return Outcome::passed(&report);
            }
        };
        let devices = checked.connect(shell)?;
        if let Start::Path(path) = &options.start {
            shell.status("Training", path.display());
        }
        let report = train(options, &devices, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        if let Some(clients) = report.0.get("clients") {
            return rounds::summary(clients, report.number("update_norm")?);
        }
        Some(format!("trained on {} tokens, loss {:.3}", report.count("tokens")?, report.number("loss")?))
    }
}
