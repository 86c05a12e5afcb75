//! Where a text may leave a classifier before its last layer, and how sure each head is. A section of the device part: one
//! record for each exit head in ascending order, then one for the last head. A classifier without exit heads may have the
//! section too, for the temperature of its only head.

use super::FormatError;
use super::artifact::ArtifactView;
use super::header::SectionKind;
use super::record::record;
use super::spec::Output;

record! {
    /// One head.
    ExitRecord: 16 bytes {
        /// Layers that are computed before it.
        layers: u32,
        /// A text leaves where the margin of the head's logits is at least this, in 1/65536; [`NEVER`]; 0 of the last head.
        threshold: u32,
        /// 1 / T: the confidence is the softmax of the head's logits times this.
        inverse_temperature: f32,
        /// Zero.
        reserved: u32,
    }
}

/// A threshold that no text reaches: the head is not computed.
pub const NEVER: u32 = u32::MAX;

/// Largest 1 / T.
pub const MAX_INVERSE_TEMPERATURE: f32 = 1e6;

impl<'a> ArtifactView<'a> {
    /// The heads of a classifier, ascending, the last one included; none where the artifact says nothing of them.
    pub fn heads(&self) -> impl ExactSizeIterator<Item = ExitRecord> + 'a {
        self.exits.chunks_exact(ExitRecord::BYTES).map(ExitRecord::from_bytes)
    }

    /// The head after so many layers.
    pub fn head_after(&self, layers: usize) -> Option<ExitRecord> {
        self.heads().find(|head| head.layers as usize == layers)
    }

    /// Reads and checks the section.
    pub(super) fn read_exits(&mut self) -> Result<(), FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Exits, fault);
        let stand = (0..self.spec.layers).filter(|&index| self.layer(index as usize).exit_head == 1);
        let Some(content) = self.single_device_section(SectionKind::Exits)? else {
            return if self.spec.exit_head == 0 { Ok(()) } else { Err(fault("missing, and there are exit heads")) };
        };
        if self.spec.output != Output::Classifier as u8 {
            return Err(fault("is of a model that is no classifier"));
        }
        if !content.len().is_multiple_of(ExitRecord::BYTES) {
            return Err(fault("is not a whole number of records"));
        }
        let mut records = content.chunks_exact(ExitRecord::BYTES).map(ExitRecord::from_bytes);
        for index in stand {
            if records.next().is_none_or(|record| record.layers != index + 1) {
                return Err(fault("does not name the layers with exit heads in their order"));
            }
        }
        if records.next().is_none_or(|record| record.layers != self.spec.layers || record.threshold != 0) {
            return Err(fault("does not end with the last head"));
        }
        if records.next().is_some() {
            return Err(fault("goes on after the last head"));
        }
        for record in content.chunks_exact(ExitRecord::BYTES).map(ExitRecord::from_bytes) {
            let scale = record.inverse_temperature;
            if !(scale > 0.0 && scale <= MAX_INVERSE_TEMPERATURE) {
                return Err(fault("a temperature is out of range"));
            }
            if record.reserved != 0 {
                return Err(fault("a reserved field is not zero"));
            }
        }
        self.exits = content;
        Ok(())
    }
}
