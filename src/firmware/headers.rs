//! The headers of a folder: `model_memory.h`, the memory that an artifact takes and what its main must know when it is compiled;
//! `firmware_config.h`, the prompt, for people to change.

use super::Content;
use crate::report::grouped;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::FramePart;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::Output;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::session::Session;
use slm_runtime::tokenizer::Tokenizer;
use std::fmt::Write;

/// What a main asks unless a person says otherwise.
pub(super) const QUESTION: &str = "What is the capital of France?";
/// What a main continues unless a person says otherwise.
pub const BEGINNING: &str = "Once upon a time";
/// Tokens that a main adds unless a person says otherwise.
const TOKENS: usize = 64;
/// `output` of `slm_facts` where hidden states become one row.
const EMBEDDING: u64 = 5;
/// Texts up to this length are tried for the part of the memory for encoding that does not grow.
const TRIED_BYTES: usize = 4096;

/// Memory for a session from C: the planned bytes, and the state before them. The state of this machine, whose pointers are as
/// long as any device's, and two words and an error more.
pub fn session_bytes(content: &Content<'_>) -> u64 {
    let state = (size_of::<Session<'static, 'static>>() + 128).next_multiple_of(ALIGNMENT);
    Session::required_bytes(content.view) + state as u64
}

/// Memory for encoding: bytes for each byte of a text, and bytes for any text.
fn encode_bytes(tokenizer: &Tokenizer<'_>) -> (usize, usize) {
    let required = |bytes| tokenizer.required_bytes(bytes).unwrap_or(usize::MAX);
    let each = (required(1 << 20) - required(0)).div_ceil(1 << 20);
    let rest = (0..=TRIED_BYTES).map(|bytes| required(bytes).saturating_sub(each * bytes)).max().unwrap_or(0);
    (each, rest.max(1).next_multiple_of(ALIGNMENT))
}

/// Whether it continues texts: the decoders whose output is labels or a vector read them as encoders do.
pub(super) fn continues(view: &ArtifactView<'_>) -> bool {
    view.spec().is_decoder() && view.spec().output == Output::LanguageModel as u8
}

/// Whether the main asks through the artifact's chat frame.
pub(super) fn asks(content: &Content<'_>) -> bool {
    content.view.chat_frame().is_some() && Tokenizer::of(content.view).is_some() && continues(content.view)
}

/// What the main reads unless a person says otherwise.
pub(super) fn prompt(content: &Content<'_>) -> &'static str {
    if asks(content) { QUESTION } else { BEGINNING }
}

/// `model_memory.h`.
pub(super) fn memory(content: &Content<'_>) -> String {
    let (view, footprint, target) = (content.view, &content.footprint, content.target);
    let spec = view.spec();
    let mut text = format!(
        "/* What the artifact takes of a device, as `slmc compile` planned it for {}: bytes, unless something else is said. Written by\n \
         * slmc; a folder is made again where the model, the context or the target changes. */\n\
         #ifndef MODEL_MEMORY_H\n#define MODEL_MEMORY_H\n\n#include <stdint.h>\n",
        target.name
    );
    let mut define = |name: &str, value: u64, what: &str| {
        // A string grows.
        let _ = write!(text, "\n/* {what} */\n#define {name} {value}\n");
    };
    define("MODEL_ARTIFACT_BYTES", view.bytes().len() as u64, "The artifact, in flash.");
    let planned = footprint.ram_bytes();
    let parts = format!(
        "The plan: arena {}, key-value cache {} at a context of {}, stack {}{}.",
        grouped(footprint.arena_bytes),
        grouped(footprint.cache_bytes),
        footprint.context,
        grouped(footprint.stack_bytes),
        match footprint.drafting_bytes {
            0 => String::new(),
            drafts => format!(", drafts {} that this main does not use", grouped(drafts)),
        }
    );
    define("MODEL_PLANNED_BYTES", planned, &parts);
    define("MODEL_STACK_BYTES", footprint.stack_bytes, "The part of it that is stack, of whatever task calls a step.");
    define(
        "MODEL_SESSION_BYTES",
        session_bytes(content),
        "Arena and cache, and the state of a session before them: an array aligned to 64 bytes.",
    );
    if let Some(tokenizer) = Tokenizer::of(view) {
        let (each, rest) = encode_bytes(&tokenizer);
        let _ = write!(
            text,
            "\n/* Memory to encode a text of some bytes, aligned to 64; free again when the tokens are there. */\n\
             #define MODEL_HAS_TOKENIZER 1\n#define MODEL_ENCODE_BYTES(length) ({rest} + {each} * (length))\n"
        );
    } else {
        text.push_str("\n/* The tokenizer runs on hosts only. */\n#define MODEL_HAS_TOKENIZER 0\n");
    }
    let limit = |limit: Option<u64>| limit.map_or_else(|| "UINT64_MAX".to_owned(), |bytes| bytes.to_string());
    let _ = write!(
        text,
        "\n/* What the target file says is there for them; UINT64_MAX where it does not say. */\n\
         #define MODEL_FLASH_LIMIT {}\n#define MODEL_RAM_LIMIT {}\n",
        limit(target.flash_bytes),
        limit(target.usable_ram_bytes())
    );
    let mut define = |name: &str, value: u64, what: &str| {
        let _ = write!(text, "\n/* {what} */\n#define {name} {value}\n");
    };
    define("MODEL_IS_DECODER", u64::from(continues(content.view)), "1: it continues texts; 0: it reads them.");
    let output = if spec.pooling().is_some() { EMBEDDING } else { u64::from(spec.output) };
    define("MODEL_OUTPUT", output, "`output` of slm_facts.");
    define("MODEL_VOCABULARY", u64::from(spec.vocabulary), "Tokens.");
    define("MODEL_CONTEXT", u64::from(spec.context), "Positions.");
    define(
        "MODEL_HAS_GRAMMAR",
        u64::from(view.section(SectionKind::Grammar).is_some()),
        "Whether outputs follow a grammar.",
    );
    let prefix = view.prefix().map_or(0, |prefix| prefix.tokens.iter().count() as u64);
    define(
        "MODEL_HAS_PREFIX",
        u64::from(prefix > 0),
        "Whether there is a text that sequences begin with, read already.",
    );
    define("MODEL_PREFIX_TOKENS", prefix, "Its tokens.");
    let frame = view.chat_frame().map_or(0, |frame| {
        [FramePart::OpenUser, FramePart::UserToAssistant].into_iter().map(|part| frame.text(part).len() as u64).sum()
    });
    define("MODEL_CHAT_FRAME_BYTES", frame, "Text of the chat frame around one question.");
    if !content.labels.is_empty() {
        let labels: Vec<String> = content.labels.iter().map(|label| literal(label)).collect();
        let _ = write!(text, "\n/* Names of the labels. */\n#define MODEL_LABELS {}\n", labels.join(", "));
    }
    text.push_str(
        "\n/* The artifact itself, of the object or of the assembler: aligned to 64. */\n\
         extern const uint8_t slm_artifact[];\nextern const uint64_t slm_artifact_bytes;\n\n#endif\n",
    );
    text
}

/// `firmware_config.h`.
pub(super) fn config(content: &Content<'_>) -> String {
    let tokens: Vec<String> = content.prompt_tokens.iter().map(ToString::to_string).collect();
    let ids = match tokens.is_empty() {
        true => String::new(),
        false => format!(
            "\n/* The tokenizer runs on hosts only: the tokens of that text. */\n\
             #ifndef FIRMWARE_PROMPT_TOKENS\n#define FIRMWARE_PROMPT_TOKENS {}\n#endif\n",
            tokens.join(", ")
        ),
    };
    format!(
        "/* What the firmware reads: change it here, or define it for the compiler. */\n\
         #ifndef FIRMWARE_CONFIG_H\n#define FIRMWARE_CONFIG_H\n\n\
         #ifndef FIRMWARE_PROMPT\n#define FIRMWARE_PROMPT {}\n#endif\n{ids}\n\
         /* 1: it is a question, asked through the artifact's chat frame; 0: a text to read or to continue. */\n\
         #ifndef FIRMWARE_CHAT\n#define FIRMWARE_CHAT {}\n#endif\n\n\
         /* Most tokens that are added. */\n#ifndef FIRMWARE_TOKENS\n#define FIRMWARE_TOKENS {TOKENS}\n#endif\n\n\
         /* Where draws start, as --seed of `slmc generate`; of no effect where the likeliest token is taken. */\n\
         #ifndef FIRMWARE_SEED\n#define FIRMWARE_SEED 0\n#endif\n\n#endif\n",
        literal(prompt(content)),
        u8::from(asks(content)),
    )
}

/// A string of C: what is not plain is in octal, of which three digits end by themselves.
fn literal(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            // `?` could begin a trigraph.
            b' '..=b'~' if byte != b'?' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "\\{byte:03o}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn literals_are_of_c() {
        assert_eq!(literal("a \"b\" \\ é\n?0"), "\"a \\\"b\\\" \\\\ \\303\\251\\012\\0770\"");
    }
}
