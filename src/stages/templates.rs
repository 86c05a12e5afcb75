//! Conversations among the data of a stage, and whether the model has a chat template for them: found in a plan, before models
//! are made.

use super::known::KnownModel;
use super::stage::Faults;
use crate::formats;
use crate::model::spec::ModelKind;
use crate::text::conversations::check_template;
use std::path::{Path, PathBuf};

/// Notes files of conversations for a decoder without a chat template, where a plan knows whose template they would go
/// through: that of `tokenizer`, else the model's own.
pub fn check_templates<'f>(
    model: Option<&KnownModel>,
    tokenizer: Option<&Path>,
    (option, files): (&'static str, impl IntoIterator<Item = &'f PathBuf>),
    field: Option<&str>,
    faults: &mut Faults,
) {
    let Some(model) = model.filter(|model| model.spec.kind == ModelKind::Decoder) else { return };
    let place = tokenizer.or_else(|| model.files.as_ref().map(|files| files.path()));
    let Some(companions) = place.and_then(|place| formats::companions(place).ok()) else { return };
    // What an earlier stage makes is looked at when it is there.
    for file in files.into_iter().filter(|file| file.exists()) {
        faults.check(option, check_template(file, field, &companions));
    }
}
