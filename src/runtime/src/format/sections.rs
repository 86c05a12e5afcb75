//! The table of sections: their order, their part, and which of them every file has. The writer lays out files, the
//! compiler computes the length of a device part and the reader checks files by this table, so that the three cannot
//! disagree. A section starts where the one before it ends, rounded up to [`alignment`].

use super::header::SectionKind;
use crate::layout::ALIGNMENT;

/// Whether a file has a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every file has it.
    Needed,
    /// Files may have it.
    Optional,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The section.
    pub kind: SectionKind,
    /// Whether it belongs to the host part.
    pub host: bool,
    /// Whether a file has it.
    pub presence: Presence,
}

const fn device(kind: SectionKind, presence: Presence) -> Section {
    Section { kind, host: false, presence }
}

const fn host(kind: SectionKind) -> Section {
    Section { kind, host: true, presence: Presence::Optional }
}

/// Every section of this version, in file order.
pub const SECTIONS: [Section; 23] = [
    device(SectionKind::Spec, Presence::Needed),
    device(SectionKind::Tensors, Presence::Needed),
    device(SectionKind::Functions, Presence::Needed),
    device(SectionKind::Weights, Presence::Needed),
    device(SectionKind::Vocabulary, Presence::Needed),
    device(SectionKind::Golden, Presence::Needed),
    device(SectionKind::Text, Presence::Optional),
    device(SectionKind::SpecialTokens, Presence::Optional),
    device(SectionKind::ChatFrame, Presence::Optional),
    device(SectionKind::Sampling, Presence::Optional),
    device(SectionKind::Grammar, Presence::Optional),
    device(SectionKind::Continuations, Presence::Optional),
    device(SectionKind::Draft, Presence::Optional),
    device(SectionKind::Prefix, Presence::Optional),
    device(SectionKind::Residency, Presence::Optional),
    device(SectionKind::Exits, Presence::Optional),
    device(SectionKind::Seal, Presence::Optional),
    device(SectionKind::Chunks, Presence::Optional),
    host(SectionKind::Tokenizer),
    host(SectionKind::Names),
    host(SectionKind::Provenance),
    host(SectionKind::Labels),
    host(SectionKind::ChatTemplate),
];

/// Number of sections that every file has.
pub const NEEDED_COUNT: usize = 6;

/// Sections that every file has: the first of the table.
pub const NEEDED: [SectionKind; NEEDED_COUNT] = {
    let mut kinds = [SectionKind::Spec; NEEDED_COUNT];
    let mut index = 0;
    while index < SECTIONS.len() {
        let needed = matches!(SECTIONS[index].presence, Presence::Needed);
        assert!(needed == (index < NEEDED_COUNT), "needed sections come first");
        if needed {
            kinds[index] = SECTIONS[index].kind;
        }
        index += 1;
    }
    kinds
};

/// The row of a kind; `None` for unknown kinds.
pub fn section_of(kind: u32) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.kind as u32 == kind)
}

/// Alignment of a section of this kind.
pub fn alignment(kind: u32, page_bytes: u32) -> u64 {
    if kind == SectionKind::Weights as u32 { u64::from(page_bytes) } else { ALIGNMENT as u64 }
}
