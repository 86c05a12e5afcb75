//! How keys and values are kept: all of them in 8 bits, or the values of some layers in 4. Layers with a sliding window
//! keep a ring of what the window sees, which changes no bit and so needs no option.

use std::fmt;
use std::str::FromStr;

/// The layers whose values are in 4 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// None: `v8`.
    #[default]
    Int8,
    /// All with attention: `v4`.
    Nibbles,
    /// From this one to that: `v4:FIRST-LAST`.
    NibblesOf(usize, usize),
}

impl KvFormat {
    /// Whether a layer's values are in 4 bits.
    pub fn has_nibbles(self, layer: usize) -> bool {
        match self {
            KvFormat::Int8 => false,
            KvFormat::Nibbles => true,
            KvFormat::NibblesOf(first, last) => (first..=last).contains(&layer),
        }
    }

    /// Whether a model has the layers that it names.
    ///
    /// # Errors
    /// The layers that there are.
    pub fn check(self, layers: usize) -> Result<(), KvError> {
        match self {
            KvFormat::NibblesOf(first, last) if first > last || last >= layers => Err(KvError::Layers { layers }),
            _ => Ok(()),
        }
    }
}

/// Why a format is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Another word.
    #[error("is no format of keys and values; one of v8, v4, v4:FIRST-LAST, such as v4:2-5")]
    Unknown,
    /// Layers that are not there.
    #[error("names layers that the model does not have: it has 0 to {}", layers.saturating_sub(1))]
    Layers {
        /// Layers of the model.
        layers: usize,
    },
}

impl FromStr for KvFormat {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        match text {
            "v8" => return Ok(KvFormat::Int8),
            "v4" => return Ok(KvFormat::Nibbles),
            _ => {}
        }
        let range = text.strip_prefix("v4:").and_then(|layers| layers.split_once('-')).ok_or(KvError::Unknown)?;
        match (range.0.parse(), range.1.parse()) {
            (Ok(first), Ok(last)) => Ok(KvFormat::NibblesOf(first, last)),
            _ => Err(KvError::Unknown),
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvFormat::Int8 => f.write_str("v8"),
            KvFormat::Nibbles => f.write_str("v4"),
            KvFormat::NibblesOf(first, last) => write!(f, "v4:{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_written() {
        for format in [KvFormat::Int8, KvFormat::Nibbles, KvFormat::NibblesOf(2, 5)] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for wrong in ["", "v5", "v4:", "v4:3", "v4:a-b", "V4"] {
            assert_eq!(wrong.parse::<KvFormat>(), Err(KvError::Unknown), "{wrong}");
        }
        assert_eq!(KvFormat::NibblesOf(2, 6).check(6), Err(KvError::Layers { layers: 6 }));
        assert_eq!(KvFormat::NibblesOf(3, 2).check(6), Err(KvError::Layers { layers: 6 }));
        assert!(KvFormat::NibblesOf(2, 5).check(6).is_ok());
        assert!(!KvFormat::NibblesOf(2, 5).has_nibbles(1) && KvFormat::NibblesOf(2, 5).has_nibbles(5));
    }
}
