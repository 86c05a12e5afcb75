//! The text side of an artifact: who turns text into tokens, and whether device and host agree on it.

use crate::artifact::host::ArtifactError;
use crate::report::{Table, grouped};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::text::TokenModel;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::sample::random_u64;
use slm_runtime::tokenizer::{EncodeError, Tokenizer as DeviceTokenizer};
use std::path::Path;

/// Word of the provenance before the part that only hosts have.
pub const HOST_ONLY: &str = "host-only: ";

/// Texts that `slmc verify` encodes twice, and tokens each is made of.
const TEXTS: u64 = 64;
const TOKENS: u64 = 24;

/// Who turns text into tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TokenizerSummary {
    /// The device.
    Device {
        /// `byte-level BPE`, `BPE over characters` or `WordPiece`.
        device: &'static str,
        /// Bytes of the text section.
        bytes: u64,
        /// Memory to encode a text of one more byte.
        memory_per_text_byte: usize,
    },
    /// A host, with the tokenizer.json.
    Host {
        /// The part of the tokenizer that the device has no code for, where that is known.
        host_only: Option<String>,
    },
}

impl TokenizerSummary {
    /// The summary of an artifact; `host_only` is why it has no tokenizer for the device, where it has none.
    pub fn of(view: &ArtifactView<'_>, host_only: Option<String>) -> Self {
        let Some((tables, tokenizer)) = view.text().zip(DeviceTokenizer::of(view)) else {
            return TokenizerSummary::Host { host_only };
        };
        let device = match (tables.record.model == TokenModel::Merges as u8, tables.record.symbols) {
            (true, 2) => "byte-level BPE",
            (true, _) => "BPE over characters",
            (false, _) => "WordPiece",
        };
        let required = |bytes| tokenizer.required_bytes(bytes).unwrap_or(usize::MAX);
        TokenizerSummary::Device {
            device,
            bytes: view.section(SectionKind::Text).map_or(0, |section| section.len() as u64),
            memory_per_text_byte: (required(1 << 20) - required(0)) >> 20,
        }
    }

    /// Adds itself to a table of facts.
    pub fn rows(&self, table: &mut Table) {
        match self {
            TokenizerSummary::Device { device, bytes, memory_per_text_byte } => {
                let memory = format!("{memory_per_text_byte} bytes of memory per byte of text");
                table.row(["tokenizer", &format!("{device} on the device, {} bytes; {memory}", grouped(*bytes))]);
            }
            TokenizerSummary::Host { host_only: Some(part) } => {
                table.row(["tokenizer", &format!("tokenizer is host-only: {part}")]);
            }
            TokenizerSummary::Host { host_only: None } => {
                table.row(["tokenizer", "none on the device"]);
            }
        }
    }
}

/// Why an artifact's device has no tokenizer, by its provenance.
pub fn host_only(provenance: Option<&Value>) -> Option<String> {
    Some(provenance?["settings"]["tokenizer"].as_str()?.strip_prefix(HOST_ONLY)?.to_owned())
}

/// Tokens that the device makes of a text.
pub fn device_tokens(tokenizer: &DeviceTokenizer<'_>, text: &str, specials: bool) -> Result<Vec<u32>, EncodeError> {
    let required = tokenizer.required_bytes(text.len()).ok_or(EncodeError::Memory)?;
    let mut memory = vec![0; required.checked_add(ALIGNMENT).ok_or(EncodeError::Memory)?];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let mut tokens = Vec::new();
    tokenizer.encode(text, specials, &mut memory[start..start + required], &mut |token| tokens.push(token))?;
    Ok(tokens)
}

/// Encodes texts of random tokens with the device's tables and with the host's tokenizer.json, if the artifact has
/// both, and says how many texts agree.
pub fn compare(view: &ArtifactView<'_>, path: &Path) -> Result<Option<u64>, ArtifactError> {
    let (Some(device), Some(json)) = (DeviceTokenizer::of(view), view.section(SectionKind::Tokenizer)) else {
        return Ok(None);
    };
    let unusable = |error| ArtifactError::HostTokenizer { path: path.to_owned(), error: Box::new(error) };
    let host = Tokenizer::from_bytes(path.to_owned(), json).map_err(unusable)?;
    for stream in 0..TEXTS {
        let token = |index| (random_u64(stream, index) % u64::from(view.spec().vocabulary)) as u32;
        let text = host.decode(&(0..TOKENS).map(token).collect::<Vec<_>>()).map_err(unusable)?;
        for specials in [false, true] {
            let tokens = device_tokens(&device, &text, specials).map_err(|error| ArtifactError::DeviceTokenizer {
                path: path.to_owned(),
                text: text.clone(),
                error,
            })?;
            let expected = if specials { host.encode_with_specials(&text) } else { host.encode_plain(&text) };
            let expected = expected.map_err(unusable)?;
            if tokens != expected {
                return Err(ArtifactError::TokensDiffer {
                    path: path.to_owned(),
                    text,
                    device: tokens,
                    host: expected,
                });
            }
        }
    }
    Ok(Some(TEXTS))
}
