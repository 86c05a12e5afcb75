//! The artifact as a relocatable ELF object, to be handed to a linker as it is:
//!
//! ```text
//! section .rodata.slm_artifact, aligned to 64
//!     slm_artifact         the device part of the file
//!     slm_artifact_bytes   its length, 64 bits little-endian, at the next multiple of 8
//! ```

use super::machine::Machine;
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{BinaryFormat, Endianness, FileFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use slm_runtime::layout::ALIGNMENT;

/// Name of the section, which a linker script may place.
pub(super) const SECTION: &str = ".rodata.slm_artifact";

/// The object of an artifact for a machine.
///
/// # Errors
/// The writer's words, where the format has no room for the artifact: 4 GiB on machines of 32 bits.
pub(super) fn object(artifact: &[u8], machine: Machine) -> Result<Vec<u8>, String> {
    let mut file = Object::new(BinaryFormat::Elf, machine.architecture, Endianness::Little);
    file.flags = FileFlags::Elf { os_abi: object::elf::ELFOSABI_NONE, abi_version: 0, e_flags: machine.flags };
    let segment = file.segment_name(StandardSegment::Data).to_vec();
    let section = file.add_section(segment.clone(), SECTION.into(), SectionKind::ReadOnlyData);
    file.append_section_data(section, artifact, ALIGNMENT as u64);
    let length = file.append_section_data(section, &(artifact.len() as u64).to_le_bytes(), 8);
    for (name, value, size) in
        [("slm_artifact", 0, artifact.len() as u64), ("slm_artifact_bytes", length, size_of::<u64>() as u64)]
    {
        file.add_symbol(Symbol {
            name: name.into(),
            value,
            size,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    // Without this section linkers of Linux take the stack to be executable.
    file.add_section(segment, b".note.GNU-stack".to_vec(), SectionKind::Other);
    file.write().map_err(|error| error.to_string())
}
