//! The ways to round, by name.

use super::policy::PolicyError;
use std::fmt;
use std::str::FromStr;

/// How integers and scales are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The integers that the source holds, where they fit; else as [`Method::Rtn`].
    Keep,
    /// To nearest on searched scales, without calibration.
    Rtn,
    /// To nearest on scales searched with the mean squares of calibrated inputs.
    Search,
    /// With second moments of calibrated inputs, layer by layer.
    Gptq,
}

impl Method {
    /// Every method, cheapest first.
    pub const ALL: [Method; 4] = [Method::Keep, Method::Rtn, Method::Search, Method::Gptq];

    /// Whether it looks at inputs of a calibration.
    pub fn calibrates(self) -> bool {
        matches!(self, Method::Search | Method::Gptq)
    }

    /// `keep`, `rtn`, `search`, `gptq`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Keep => "keep",
            Method::Rtn => "rtn",
            Method::Search => "search",
            Method::Gptq => "gptq",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Method::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| PolicyError::Method(text.to_owned()))
    }
}
