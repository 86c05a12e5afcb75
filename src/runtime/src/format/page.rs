//! The checks of the header page: what a reader decides before it looks at any section.

use super::header::{self, HEADER_BYTES, Header, MAX_SECTIONS, SIGNATURE_AREA, SectionRecord};
use super::signature::{check_signature, zero};
use super::spec::CacheFormat;
use super::{FormatError, Record};
use crate::layout::{ALIGNMENT, Layout};

/// The header of a file of `length` bytes that begins with some bytes, its header page at least.
pub(crate) fn read_page(bytes: &[u8], length: u64) -> Result<Header, FormatError> {
    let actual = length;
    if bytes.len() >= header::MAGIC.len() && !bytes.starts_with(&header::MAGIC) {
        return Err(FormatError::NotAnArtifact);
    }
    if bytes.len() < HEADER_BYTES {
        return Err(FormatError::Length { expected: HEADER_BYTES as u64, actual });
    }
    let header = Header::from_bytes(bytes);
    let require = |holds: bool, field: &'static str| if holds { Ok(()) } else { Err(FormatError::Header(field)) };
    if header.major != header::MAJOR {
        return Err(FormatError::MajorVersion(header.major));
    }
    require(header.header_bytes as usize == HEADER_BYTES, "header_bytes")?;
    require(header.device_bytes >= HEADER_BYTES as u64 && header.device_bytes <= header.file_bytes, "device_bytes")?;
    if actual != header.file_bytes && actual != header.device_bytes {
        return Err(FormatError::Length { expected: header.file_bytes, actual });
    }
    require(header.sections as usize <= MAX_SECTIONS, "sections")?;
    let page = header.page_bytes;
    require(page.is_power_of_two() && (ALIGNMENT as u32..=1 << 24).contains(&page), "page_bytes")?;
    require(Layout::from_id(header.layout).is_some(), "layout")?;
    require(header.digest_algorithm == header::DIGEST_SHA256, "digest_algorithm")?;
    let later = |holds: bool, field| if holds { Ok(()) } else { Err(FormatError::LaterVersion(Record::Header, field)) };
    require(header.cache_format != 0, "cache_format")?;
    later(CacheFormat::from_number(header.cache_format).is_some(), "cache_format")?;
    later(header.weight_residency == 0, "weight_residency")?;
    later(header.reserved == 0 && header.reserved_trust == [0; 8] && header.reserved_end == [0; 16], "reserved")?;
    let table_end = header::SECTION_TABLE_OFFSET + header.sections as usize * SectionRecord::BYTES;
    require(zero(&bytes[table_end..SIGNATURE_AREA.start]), "reserved")?;
    check_signature(bytes, &header)?;
    Ok(header)
}
