//! Why an update is refused, or ended before it was done. Plain data: nothing is allocated.

use super::flash::DeviceFailed;
use crate::format::FormatError;

/// Why an update was not applied, a slot not chosen or a trial not confirmed. Unless it says otherwise, the active slot and
/// the slot record are what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The package does not begin as one.
    NotAPackage,
    /// It is of a later version.
    Version(u32),
    /// It ends before it should, or has something appended.
    Length {
        /// Bytes it states.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// A field of its head or of a record has no meaning.
    Package(&'static str),
    /// A header page is not sound.
    Page(FormatError),
    /// A field of a header page places something where an update cannot write it.
    Place(&'static str),
    /// It was made from another artifact than the active one.
    OtherBase,
    /// The device does not trust the new header page.
    Untrusted,
    /// The new artifact's counter is below the device's.
    Rollback {
        /// Counter of the device.
        device: u64,
        /// Counter of the new artifact.
        artifact: u64,
    },
    /// The new artifact is of another product line than the active one.
    OtherModel,
    /// The chunk list is not the one that the header page states.
    ChunkList,
    /// The slot is too small.
    Slot {
        /// Bytes needed.
        needed: u64,
        /// Bytes of the slot.
        there: u64,
    },
    /// Too little memory was lent.
    Memory {
        /// Bytes needed.
        needed: usize,
    },
    /// A record gives other bytes than the chunk list says: the package, or the base that it changes, is damaged. Nothing of
    /// this leaf was written.
    Leaf(u32),
    /// Flash does not hold what was written to it.
    Written {
        /// Where, from the slot's start.
        offset: u64,
    },
    /// A trial runs: it must be confirmed or rejected before its slot is written anew.
    TrialRuns,
    /// There is no trial to confirm.
    NoTrial,
    /// Neither copy of the slot record is sound.
    NoRecord,
    /// The slot does not hold the artifact that the record names.
    OtherArtifact,
    /// The trial's golden prompts do not give the stated logits, or do not run.
    SelfTest,
    /// The caller's health check failed.
    Health,
    /// Flash, protected storage or the package's source failed.
    Device,
}

impl core::fmt::Display for UpdateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use UpdateError as E;
        match self {
            E::NotAPackage => f.write_str("not an update package: the first bytes are not its magic"),
            E::Version(version) => write!(f, "version {version} of packages needs a newer slm-runtime"),
            E::Length { expected, actual } => {
                write!(f, "expected {expected} bytes, got {actual}: the package is cut short or has something appended")
            }
            E::Package(field) => write!(f, "the package is damaged: illegal value of {field}"),
            E::Page(error) => write!(f, "the header page is refused: {error}"),
            E::Place("chunk_shift" | "chunks") => f.write_str("the new artifact has no chunk list"),
            E::Place(field) => write!(f, "header page: illegal value of {field}"),
            E::OtherBase => f.write_str("the package was made from another artifact than this one"),
            E::Untrusted => f.write_str("the new header page is not signed by a key that is trusted"),
            E::Rollback { device, artifact } => {
                write!(f, "security counter {artifact} of the new artifact is below the device's, {device}")
            }
            E::OtherModel => f.write_str("the new artifact has another model id than this one"),
            E::ChunkList => f.write_str("the package's chunk list is not the one that its header page states"),
            E::Slot { needed, there } => write!(f, "the new artifact has {needed} bytes, the slot {there}"),
            E::Memory { needed } => write!(f, "{needed} bytes of memory are needed"),
            E::Leaf(leaf) => {
                write!(f, "leaf {leaf} becomes other bytes than the chunk list states: ")?;
                f.write_str("the package or the artifact that it changes is damaged")
            }
            E::Written { offset } => write!(f, "flash does not hold what was written at byte {offset} of the slot"),
            E::TrialRuns => f.write_str("a trial runs: confirm or reject it first"),
            E::NoTrial => f.write_str("no trial runs"),
            E::NoRecord => f.write_str("no sound slot record"),
            E::OtherArtifact => f.write_str("the slot does not hold the artifact that the slot record names"),
            E::SelfTest => f.write_str("the golden prompts do not give the stated logits"),
            E::Health => f.write_str("the health check failed"),
            E::Device => f.write_str("flash, protected storage or the package's source failed"),
        }
    }
}

impl core::error::Error for UpdateError {}

impl From<DeviceFailed> for UpdateError {
    fn from(DeviceFailed: DeviceFailed) -> Self {
        UpdateError::Device
    }
}
