//! The export `safetensors`: a Hugging Face directory of floating-point values, which every tool reads. Integers become the
//! values that they stand for, which f32 holds to the bit.

use super::{Directory, factor_note};
use crate::disk::{DenseType, atomic};
use crate::formats::ModelFormatError;
use crate::formats::export::{
    Described, Export, ExportError, ExportFormat, ExportPlan, ExportSettings, Kept, Place, Variant, Written,
    dense_model, dense_type_name, key_maps_note,
};
use crate::model::families::Family;
use crate::model::weights::Outline;
use crate::progress::Progress;
use std::path::Path;

/// Its line of [`crate::formats::export::EXPORTS`].
pub struct SafetensorsExport;

impl ExportFormat for SafetensorsExport {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn about(&self) -> &'static str {
        "Hugging Face directory of floating-point values, for transformers and what reads its models"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn variants(&self) -> &'static [Variant] {
        &[]
    }

    fn plan(&self, model: &Described<'_>, settings: &ExportSettings) -> Result<ExportPlan, ExportError> {
        let dtype = settings.dtype.unwrap_or(DenseType::F32);
        let kept = if dtype == DenseType::F32 { Kept::Values } else { Kept::Rounded };
        let mut plan = ExportPlan::default();
        for parameter in model.spec.parameters() {
            let values = parameter.shape.iter().map(|&n| n as u64).product::<u64>();
            let size = (values, values * dtype.bytes() as u64);
            plan.add(parameter.id, &model.stored_name(parameter.id), dense_type_name(dtype), size, kept);
        }
        plan.notes.extend(key_maps_note(model));
        Ok(plan)
    }

    fn check(&self, outline: &Outline, _settings: &ExportSettings) -> Result<(), ModelFormatError> {
        Ok(Family::of(&outline.config).map(drop)?)
    }

    fn check_output(&self, out: &Path) -> Result<(), ModelFormatError> {
        Ok(atomic::check_directory(out)?)
    }

    fn write(&self, export: Export<'_>, progress: &dyn Progress) -> Result<Written, ModelFormatError> {
        let Export { model, settings, provenance, out, .. } = export;
        let dtype = settings.dtype.unwrap_or(DenseType::F32);
        let model = dense_model(model);
        Directory(out).write_as(&model, provenance, Some(dtype), progress)?;
        Ok(Written { scale_error: None, notes: factor_note(&model, dtype).into_iter().collect() })
    }
}
