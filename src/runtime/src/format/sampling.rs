//! How tokens are chosen unless a program says otherwise, as the makers of the model recommend it. A section of the device
//! part, one record; an artifact without it chooses the likeliest token.

use super::FormatError;
use super::artifact::ArtifactView;
use super::header::SectionKind;
use super::record::record;
use crate::sample::Sampling;

record! {
    /// The parameters of [`Sampling`].
    SamplingRecord: 20 bytes {
        /// 0, or 0.001 to 1000.
        temperature: f32,
        /// 0 for all.
        top_k: u32,
        /// In 1/65536, 1 to 65536.
        top_p: u32,
        /// In 1/65536, 0 to 65536.
        min_p: u32,
        /// 0.01 to 100.
        repetition_penalty: f32,
    }
}

impl From<&Sampling> for SamplingRecord {
    fn from(sampling: &Sampling) -> Self {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = *sampling;
        SamplingRecord { temperature, top_k, top_p, min_p, repetition_penalty }
    }
}

impl ArtifactView<'_> {
    /// How tokens are chosen unless a program says otherwise.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Reads and checks the section.
    pub(super) fn read_sampling(&mut self) -> Result<(), FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Sampling, fault);
        let Some(content) = self.single_device_section(SectionKind::Sampling)? else { return Ok(()) };
        if content.len() != SamplingRecord::BYTES {
            return Err(fault("is not one record"));
        }
        let record = SamplingRecord::from_bytes(content);
        let SamplingRecord { temperature, top_k, top_p, min_p, repetition_penalty } = record;
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty };
        if !sampling.is_valid() {
            return Err(fault("a parameter is out of range"));
        }
        self.sampling = sampling;
        Ok(())
    }
}
