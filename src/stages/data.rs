//! `slmc data`: training data of files, cleaned, tagged, balanced and split.

mod rules;

use super::arguments::groups::{BackendArg, DATA};
use super::arguments::{ModelOrArtifact, ReadFile, path, paths};
use super::error::StageError;
use super::known::Known;
use super::prediction::Prediction;
use super::provenance::{Inputs, provenance};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use super::texts::check_stream;
use crate::data::filters::Limits;
use crate::data::scrub::Kind;
use crate::data::{
    DataError, DataOptions, DataReport, FieldWeight, HELD_OUT_FILE, QualityOptions, TEXTS_FILE, prepare,
};
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{self, NewDirectory};
use crate::progress::Progress;
use crate::report::{grouped, json_line};
use crate::shell::Shell;
use crate::text::form::{Separator, TextForm};
use rules::RuleArgs;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

/// Prepare training data: duplicates, filters, quality, tags, balance, a held-out split
///
/// Reads texts of files of text, one a line or between separators, and rows of JSONL, JSON or Parquet. Writes a directory with
/// data.jsonl, held-out.jsonl (with --held-out) and slmc.json; rows keep their other fields. Files of text and JSONL, also with
/// gzip, may be larger than memory: they are read two or three times, and about 600 bytes are held of each text. The same
/// bytes for any number of threads. docs/data.md has the rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc data --data web.jsonl --held-out 0.02 -o out/web
  slmc data --data a.txt b.txt --file-weights 1 0.5 --rules none -o out/ab
  slmc data --data chat.jsonl --scrub all --tags tags.toml --balance tags -o out/c
  slmc data --data web.jsonl --quality-model models/small -o out/best
  slmc train config.json --tokenizer tok --data out/web/data.jsonl --field text -o m")]
pub struct Args {
    /// Files of text, JSONL, JSON or Parquet
    #[arg(long, value_name = "FILE", num_args = 1.., required = true, help_heading = DATA)]
    data: Vec<ReadFile>,

    /// How often the texts of each file are written, in the order of --data [default: 1]
    ///
    /// 2: twice. 0.25: a quarter of them, chosen by hashes of their content. One number for every file.
    #[arg(long, value_name = "W", num_args = 1.., help_heading = DATA)]
    file_weights: Vec<f64>,

    /// Key of the text in rows [default: text]
    #[arg(long, value_name = "KEY", help_heading = DATA)]
    field: Option<String>,

    /// What stands between the documents of a text file [default: every line is a text]
    #[arg(long, value_name = "TEXT", conflicts_with = "field", allow_hyphen_values = true, help_heading = DATA)]
    separator: Option<Separator>,

    #[command(flatten)]
    rules: RuleArgs,

    /// How alike near duplicates are, from 0 to 1; 1 looks for exact ones alone
    ///
    /// The share of the five words in a row that two texts have in common of all that they have, estimated from 128 hashes of
    /// each. Of a cluster the first text stays.
    #[arg(long, value_name = "J", default_value_t = 0.8, help_heading = DUPLICATES)]
    similarity: f64,

    /// Keep duplicates; the split still has every cluster on one side
    #[arg(long, help_heading = DUPLICATES)]
    keep_duplicates: bool,

    /// Replace email, phone, card, iban, ip, or all, by placeholders
    ///
    /// Card numbers and IBANs only where their check digits agree. It comes before everything else. It is a help and no
    /// promise: names and addresses of streets stay.
    #[arg(long, value_name = "KIND", num_args = 1.., value_parser = scrubbed, help_heading = CONTENT)]
    scrub: Vec<Scrub>,

    /// Tag texts by words and patterns; kept as the field `tags`
    ///
    /// A TOML file with a table for each tag: words = ["fox", "bear"] are whole words in any case, patterns = ['\?\s*$'] regular
    /// expressions.
    #[arg(long, value_name = "FILE.toml", help_heading = CONTENT)]
    tags: Option<ReadFile>,

    /// Score texts by a language model, and leave out the best and the worst
    ///
    /// The mean surprise of the model over the first tokens of a text, as `eval` computes it.
    #[arg(long, value_name = "MODEL", help_heading = QUALITY)]
    quality_model: Option<ModelOrArtifact>,

    /// Share of texts to leave out that surprise the model most
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, requires = "quality_model", help_heading = QUALITY)]
    drop_worst: f64,

    /// Share of texts to leave out that surprise it least
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, requires = "quality_model", help_heading = QUALITY)]
    drop_best: f64,

    /// Tokens of a text that are scored
    #[arg(long, value_name = "N", default_value = "256", requires = "quality_model", help_heading = QUALITY)]
    quality_tokens: NonZeroUsize,

    /// Make the values of a field as frequent as the rarest
    ///
    /// A field of the rows, or `tags`. The texts that stay are chosen by hashes of content and seed.
    #[arg(long, value_name = "FIELD", help_heading = CHOICE)]
    balance: Option<String>,

    /// How often texts with a value of a field are written: FIELD:VALUE=W
    #[arg(long, value_name = "FIELD:VALUE=W", num_args = 1.., value_parser = field_weight, help_heading = CHOICE)]
    weights: Vec<FieldWeight>,

    /// Share of texts to hold out, as held-out.jsonl
    ///
    /// Clusters of near duplicates go to one side whole. Weights and balance are for data.jsonl alone.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = CHOICE)]
    held_out: f64,

    #[command(flatten)]
    backend: BackendArg,

    /// Directory to write; replaced if slmc made it
    #[arg(short, long, value_name = "OUT", help_heading = DATA)]
    out: PathBuf,
}

const DUPLICATES: &str = "Duplicates";
const CONTENT: &str = "Content";
const QUALITY: &str = "Quality";
const CHOICE: &str = "Choice";

/// What is scrubbed: a kind, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scrub(Option<Kind>);

fn scrubbed(text: &str) -> Result<Scrub, String> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    match kind {
        None if text == "all" => Ok(Scrub(None)),
        None => Err("known: email, phone, card, iban, ip, and all".to_owned()),
        kind => Ok(Scrub(kind)),
    }
}

fn field_weight(text: &str) -> Result<FieldWeight, String> {
    let parts = text.split_once(':').and_then(|(field, rest)| Some((field, rest.rsplit_once('=')?)));
    let read = parts.and_then(|(field, (value, weight))| {
        let weight = f64::from_str(weight).ok().filter(|weight| is_weight(*weight))?;
        Some(FieldWeight { field: field.to_owned(), value: value.to_owned(), weight })
    });
    read.filter(|own| !own.field.is_empty())
        .ok_or_else(|| "expected FIELD:VALUE=WEIGHT with a weight from 0 to 1000, such as label:rare=3".to_owned())
}

fn is_weight(weight: f64) -> bool {
    (0.0..=1000.0).contains(&weight)
}

/// Options of the stage.
pub struct PrepareOptions {
    data: DataOptions,
    settings: Value,
    invocation: super::invocation::Invocation,
    out: PathBuf,
}

/// The kind of stage.
pub struct Data;

impl Stage for Data {
    type Args = Args;
    type Options = PrepareOptions;
    const NAME: &'static str = "data";
    const MAKES: Product = Product::Data;
    const INPUTS: &'static [&'static str] = &["data"];
    const REVISION: u32 = 2;
    // Scores decide by their order alone, and are f32; everything else is exact.
    const ARITHMETIC: Arithmetic = Arithmetic::Float;

    fn defaults() -> Value {
        json!(Limits::gopher())
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<PrepareOptions> {
        let mut faults = Faults::default();
        let limits = args.rules.limits(&mut faults);
        let mut share = |name: &'static str, value: f64, least: f64| {
            if !(value >= least && value <= 1.0) {
                faults.add(name, StageError::Share { name, value });
            }
        };
        share("similarity", args.similarity, 0.1);
        share("drop-worst", args.drop_worst, 0.0);
        share("drop-best", args.drop_best, 0.0);
        share("held-out", args.held_out, 0.0);
        if !args.file_weights.is_empty() && args.file_weights.len() != args.data.len() {
            let (weights, files) = (args.file_weights.len(), args.data.len());
            faults.add("file-weights", StageError::FileWeights { weights, files });
        }
        if let Some(&value) = args.file_weights.iter().find(|weight| !is_weight(**weight)) {
            faults.add("file-weights", StageError::FileWeight { value });
        }
        if let Some(tags) = args.tags.as_deref().filter(|tags| tags.exists()) {
            faults.check("tags", crate::data::tags::Tags::read(tags).map_err(StageError::from));
        }
        faults.check("out", atomic::check_directory(&args.out));
        let device = faults.check("backend", args.backend.device());
        if let Some(model) = args.quality_model.as_deref().and_then(|path| known.planned(path))
            && !matches!(model.spec.head, crate::model::spec::Head::LanguageModel { .. })
        {
            let path = path(&args.quality_model).unwrap_or_default();
            let output = "no next-token logits";
            faults.add("quality-model", StageError::from(DataError::NoLanguageHead { path, output }));
        }
        let scrub = match args.scrub.iter().any(|kind| kind.0.is_none()) {
            true => Kind::ALL.to_vec(),
            false => {
                let mut kinds: Vec<Kind> = args.scrub.iter().filter_map(|kind| kind.0).collect();
                kinds.sort_unstable();
                kinds.dedup();
                kinds
            }
        };
        let quality = path(&args.quality_model).zip(device).map(|(model, device)| QualityOptions {
            model,
            device,
            drop_worst: args.drop_worst,
            drop_best: args.drop_best,
            tokens: args.quality_tokens.get(),
        });
        let settings = json!({ "limits": limits, "similarity": args.similarity, "held_out": args.held_out });
        let data = DataOptions {
            files: paths(&args.data),
            file_weights: args.file_weights.clone(),
            form: TextForm { field: args.field.clone(), separator: args.separator.clone() },
            limits,
            similarity: args.similarity,
            keep_duplicates: args.keep_duplicates,
            scrub,
            tags: path(&args.tags),
            quality,
            balance: args.balance.clone(),
            weights: args.weights.clone(),
            held_out: args.held_out,
            seed: run.seed,
        };
        if let Known::Planned(_) = known {
            check_stream("data", &data.files, &data.form, &mut faults);
        }
        let bytes = data.files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
        let predicted = Prediction { output_bytes: Some(bytes), ..Prediction::default() };
        let options = PrepareOptions { data, settings, invocation: run.invocation.clone(), out: args.out.clone() };
        Resolved::new(Some(options), None, faults).predicting(predicted)
    }

    fn run(options: &PrepareOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        let names: Vec<String> = options.data.files.iter().map(|path| path.display().to_string()).collect();
        shell.status("Preparing", names.join(", "));
        let report = prepared(options, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        let texts = |part: &str| report.0.pointer(&format!("/{part}/texts"))?.as_u64().map(grouped);
        Some(format!("{} of {} texts kept, {} held out", texts("kept")?, texts("read")?, texts("held_out")?))
    }
}

fn prepared(options: &PrepareOptions, progress: &dyn Progress) -> Result<DataReport, StageError> {
    let directory = NewDirectory::begin(&options.out)?;
    let report = prepare(&options.data, directory.path(), progress)?;
    let mut inputs = Inputs::default().files("data", &options.data.files)?.files("tags", &options.data.tags)?;
    if let Some(quality) = &options.data.quality {
        inputs = inputs.model("quality-model", &quality.model)?;
    }
    let mut made = provenance("data", &inputs, options.settings.clone(), &options.invocation);
    made["files"] = json!({ "texts": TEXTS_FILE, "held_out": (options.data.held_out > 0.0).then_some(HELD_OUT_FILE) });
    made["report"] = json_line(&report).ok().and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
    let failed = |source| DataError::Write { path: options.out.join(PROVENANCE_FILE), source };
    directory.write(PROVENANCE_FILE, format!("{made:#}\n")).map_err(failed)?;
    directory.commit()?;
    Ok(report)
}
