//! The class of a stage's f32 results: portable where every operation is slmc's own, which give the same bits on every CPU;
//! else that of the machine's vectors. It is named in slmc.json, and `--numerics` refuses work of another.

use super::stage::Faults;
use crate::machine::{PORTABLE, numerics_class};
use crate::model::device::is_on_cpu;
use crate::model::forward::StagedForward;
use burn::tensor::Device;
use std::fmt;
use std::str::FromStr;

/// Every class that can be asked for.
const CLASSES: [&str; 5] = [PORTABLE, "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64-neon"];

/// A class by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericsClass(&'static str);

impl fmt::Display for NumericsClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for NumericsClass {
    type Err = NumericsError;

    fn from_str(text: &str) -> Result<Self, NumericsError> {
        let known = CLASSES.into_iter().find(|name| *name == text);
        known.map(NumericsClass).ok_or_else(|| NumericsError::Unknown(text.to_owned()))
    }
}

/// A class that is not there, or that this build cannot keep here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// Not a name.
    #[error("unknown class of numerics `{0}`; known: {known}", known = CLASSES.join(", "))]
    Unknown(String),
    /// The work is of another class.
    #[error(
        "--numerics {asked} cannot be kept: {by} computes by operations that are not slmc's own, whose bits are those of \
         {made} here; {remedy}, run it on a machine of that class, or leave the option out"
    )]
    Other {
        /// Asked for.
        asked: NumericsClass,
        /// The part of the work.
        by: &'static str,
        /// The machine's.
        made: &'static str,
        /// The options that are portable.
        remedy: &'static str,
    },
}

/// Steps of a training that workers compute, by burn's own operations.
pub const WORKERS: Foreign = Foreign { by: "training on workers", remedy: "take --backend flex" };

/// A part of work whose operations are not slmc's own, on every backend.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The part.
    pub by: &'static str,
    /// The portable way.
    pub remedy: &'static str,
}

/// The backend, where its operations are not slmc's own.
fn foreign_backend(device: &Device) -> Option<Foreign> {
    let foreign = Foreign { by: "a backend other than flex", remedy: "take --backend flex" };
    (!StagedForward::is_fused(device)).then_some(foreign)
}

/// The class of operations that are not slmc's own. On a GPU the bits are those of its library and driver.
fn foreign_class(device: &Device) -> &'static str {
    if is_on_cpu(device) { numerics_class() } else { "gpu" }
}

/// The class of results on a device, of work with a part that is not slmc's own or without.
pub fn class_of(device: &Device, part: Option<Foreign>) -> &'static str {
    if part.or(foreign_backend(device)).is_some() { foreign_class(device) } else { PORTABLE }
}

/// Notes a class that cannot be kept. Portable results are of every class.
pub fn check(asked: Option<NumericsClass>, device: &Device, part: Option<Foreign>, faults: &mut Faults) {
    let made = foreign_class(device);
    if let (Some(asked), Some(Foreign { by, remedy })) = (asked, part.or(foreign_backend(device)))
        && asked.0 != made
    {
        faults.add("numerics", NumericsError::Other { asked, by, made, remedy });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::device;

    #[test]
    fn portable_work_is_of_every_class_and_other_work_of_the_machines() {
        let [flex, ndarray] = ["flex", "ndarray"].map(|name| device(name).expect("a backend"));
        let auto = Foreign { by: "auto", remedy: "name a scheme" };
        assert_eq!((class_of(&flex, None), class_of(&flex, Some(auto))), (PORTABLE, numerics_class()));
        assert_eq!(class_of(&ndarray, None), numerics_class());
        for class in CLASSES {
            let refused = |device, part| {
                let mut faults = Faults::default();
                check(class.parse().ok(), device, part, &mut faults);
                faults.into_iter().map(|fault| fault.error.to_string()).collect::<Vec<_>>().join("")
            };
            assert_eq!(refused(&flex, None), "", "{class}");
            assert_eq!(refused(&ndarray, None).is_empty(), class == numerics_class(), "{class}");
            let message = refused(&flex, Some(auto));
            assert_eq!(message.is_empty(), class == numerics_class(), "{class}");
            assert!(message.is_empty() || message.contains("name a scheme") && message.contains(class), "{message}");
        }
        assert!("x86-64".parse::<NumericsClass>().is_err());
    }
}
