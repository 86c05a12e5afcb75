//! A third format: a model that is nowhere on disk. Its tokenizer, templates and generation settings are bytes in memory,
//! and whatever quantization, compilation and the sinks need of them comes from there.

use crate::fixture::{self, Family, Size};
use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slmc::disk::hash::{Hash, HashError, sha256};
use slmc::disk::{Config, ConfigError};
use slmc::formats::{self, FORMATS, ModelFormatError, ModelSink, ModelSource, hugging_face, slmc_quantized};
use slmc::model::companions::{
    Companions, GENERATION_CONFIG_FILE, TEMPLATE_FOLDER, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use slmc::model::described;
use slmc::model::id::{LinearId, ParameterId};
use slmc::model::scheme::Preset;
use slmc::model::transform::Sparsity;
use slmc::model::weights::{Model, ModelError, Outline, Parameter};
use slmc::progress::Silent;
use slmc::quantize::calibration::{self, CalibrationText};
use slmc::stages::compile::{CompileOptions, compile_directory};
use slmc::target::Target;
use slmc::text::chat_template::{ChatTemplate, Conversation};
use slmc::text::form::TextForm;
use slmc::text::tokenizer::{Tokenizer, TokenizerError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A model in memory.
struct Memory {
    outline: Outline,
    parameters: BTreeMap<ParameterId, Parameter>,
}

impl ModelSource for Memory {
    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn parameter(&self, id: ParameterId) -> Result<Parameter, ModelFormatError> {
        let absent = || ModelError::NoParameter { path: self.outline.path.clone(), id };
        Ok(self.parameters.get(&id).cloned().ok_or_else(absent)?)
    }

    fn recorded_sparsity(&self) -> Result<Sparsity, ConfigError> {
        Ok(self.outline.sparsity.clone())
    }

    fn provenance(&self) -> Option<Value> {
        None
    }

    fn sha256(&self) -> Result<Hash, HashError> {
        Ok(sha256(self.outline.config.map()["model_type"].to_string().as_bytes()))
    }
}

/// As a file with metadata would be opened: another context than the fixture's, ends and template made up here.
fn memory(tokenizer: Option<Value>) -> Memory {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(directory.path(), Family::TiedLlama, Size::SMALL);
    let model = formats::open_model(directory.path()).expect("the fixture is sound");
    let path = Path::new("nowhere/model.blob");
    let mut companions = Companions::of(path);
    if let Some(tokenizer) = tokenizer {
        companions.add_bytes(TOKENIZER_FILE, tokenizer.to_string().into_bytes());
    }
    let about = json!({"bos_token": "<s>", "chat_template": "the folder comes first"});
    companions.add_bytes(TOKENIZER_CONFIG_FILE, about.to_string().into_bytes());
    companions.add_bytes(GENERATION_CONFIG_FILE, *b"{\"eos_token_id\": [2, 30]}");
    companions.add_bytes(&format!("{TEMPLATE_FOLDER}/default.jinja"), *b"{{ bos_token }}{{ messages[0].content }}");
    let mut config = model.config.map().clone();
    config.insert("max_position_embeddings".to_owned(), json!(48));
    let config = Config::from_map(path, config);
    let outline = Outline {
        spec: described::spec_of(&companions, &config).expect("it is sound"),
        config,
        companions,
        path: path.to_owned(),
        schemes: None,
        sparsity: Sparsity::new(),
        activations: BTreeMap::new(),
        key_maps: false,
        notes: Vec::new(),
    };
    Memory { outline, parameters: model.parameters }
}

fn written(sink: &dyn ModelSink, model: &Model) {
    sink.write(model, &json!({"schema": "slmc.provenance/1", "stage": "quantize"})).expect("it can be written");
}

#[test]
fn a_model_in_memory_goes_the_whole_way() {
    let source = memory(Some(fixture::letters()));
    let model = source.model().expect("every parameter is there");
    assert_eq!((model.spec.context, &model.spec.opening[..], &model.spec.ends[..]), (48, &[1][..], &[2, 30][..]));
    let template = ChatTemplate::usable(&model.companions).expect("it is sound").expect("there is one");
    assert_eq!(template.render(&Conversation::ask(None, "Fox?")).expect("it renders"), "<s>Fox?");

    let directory = tempfile::tempdir().expect("a directory");
    let (text, out) = (directory.path().join("text.txt"), directory.path().join("quantized"));
    fs::write(&text, "a fox and a dog.\n".repeat(200)).expect("writes");
    let calibration = CalibrationText::File { path: text, form: TextForm::default() };
    let sequences = calibration::calibration(&model, &calibration, 256, &Silent).expect("it has a tokenizer").sequences;
    assert!(sequences.iter().all(|sequence| sequence.len() <= 48 && sequence[0] == 1));

    let assignment = Preset::W8.assign(&model.spec);
    let (quantized, _) = slmc::quantize::quantize(&model, &assignment, None, &Silent).expect("it is finite");
    written(&slmc_quantized::Directory(&out), &quantized);
    let files = |directory: &Path| {
        let names = source.outline.companions.iter().map(|(name, _)| name);
        names.map(|name| fs::read(directory.join(name)).expect("it travelled")).collect::<Vec<_>>()
    };
    let own: Vec<Vec<u8>> =
        source.outline.companions.iter().map(|(_, file)| file.read().expect("bytes").to_vec()).collect();
    assert_eq!(files(&out), own);
    let dense = directory.path().join("dense");
    written(&hugging_face::Directory(&dense), &model);
    assert_eq!(files(&dense), own);
    let again = formats::open_model(&dense).expect("it is sound");
    assert_eq!(again.spec, model.spec);
    assert_eq!(again.values_f32(first_norm()).expect("a value"), model.values_f32(first_norm()).expect("a value"));

    let artifact = directory.path().join("model.slm");
    let layout = slm_runtime::layout::Layout::R8K4Offset8;
    let target = Target::unlimited("test", layout);
    let options = CompileOptions {
        model: out,
        out: artifact,
        target,
        context: None,
        device_only: false,
        page: None,
        firmware: None,
        additions: Default::default(),
        invocation: Default::default(),
    };
    compile_directory(&options, &Silent).expect("it compiles");
    let file = slmc::artifact::host::ArtifactFile::open(&options.out).expect("it opens");
    let view: ArtifactView<'_> = file.view().expect("it is sound");
    assert_eq!(view.spec().context, 48);
    assert_eq!(view.end_tokens().iter().collect::<Vec<u32>>(), [2, 30]);
    assert_eq!(view.section(SectionKind::Tokenizer), Some(fixture::letters().to_string().as_bytes()));
    let carried = view.section(SectionKind::ChatTemplate).expect("the template is there");
    assert_eq!(ChatTemplate::from_section(file.path(), carried).expect("it is sound").token("bos_token"), Some("<s>"));
}

fn first_norm() -> ParameterId {
    ParameterId::Norm(None, slmc::model::id::NormSite::Final, slmc::model::id::Part::Weight)
}

#[test]
fn what_a_source_does_not_have_is_named_by_its_own_path() {
    let source = memory(None);
    let model = source.model().expect("every parameter is there");
    let error = Tokenizer::of(&model.companions).err().expect("there is none");
    assert!(matches!(error, TokenizerError::Missing { .. }));
    assert!(error.to_string().starts_with("nowhere/model.blob/tokenizer.json does not exist"), "{error}");
    let pooler = ParameterId::weight(LinearId::global(slmc::model::id::Role::Pooler));
    let error = source.parameter(pooler).expect_err("there is none").to_string();
    assert_eq!(error, "nowhere/model.blob: the model has no parameter `head.pooler.weight`");
}

#[test]
fn every_format_has_a_name_of_its_own_and_recognises_its_directories() {
    let names: BTreeSet<&str> = FORMATS.iter().map(|format| format.name).collect();
    assert_eq!(names.len(), FORMATS.len());
    let directory = tempfile::tempdir().expect("a directory");
    let (dense, out) = (directory.path().join("dense"), directory.path().join("quantized"));
    fixture::write(&dense, Family::Llama, Size::TINY);
    let model = formats::open_model(&dense).expect("the fixture is sound");
    let quantized = slmc::quantize::quantize(&model, &Preset::W8.assign(&model.spec), None, &Silent);
    written(&slmc_quantized::Directory(&out), &quantized.expect("it is finite").0);
    let first = |path: &Path| FORMATS.iter().find(|format| (format.recognises)(path)).map(|format| format.name);
    assert_eq!(first(&dense), Some(hugging_face::FORMAT.name));
    assert_eq!(first(&out), Some(slmc_quantized::FORMAT.name));
    assert_eq!(first(&dense.join("config.json")), None);
    assert!(!formats::is_model(&dense.join("config.json")));
    let of_configuration = formats::contents(&dense.join("config.json"));
    assert!(of_configuration.configuration && !of_configuration.weights);
    assert_eq!(formats::open(&out).expect("it opens").provenance().expect("slmc.json")["stage"], "quantize");
}
