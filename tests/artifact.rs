//! Hostile artifacts: every byte changed, every length cut, and files whose digests are right but whose structure lies.
//! Nothing may panic; what is not sound is refused; what opens, runs or says why not.

mod bytes;
mod chat_frame;
mod exits;
mod grammar;
mod kept;
mod mutations;
mod parts;
mod pooling;
mod sampling;
mod sections;
mod signed;

use crate::fixture::{Family, Size, compiled, compiled_with, quantized, quantized_with_exits, with_tokens};
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::FramePart;
use slm_runtime::layout::{ALIGNMENT, Layout};
use slm_runtime::self_test::golden_digest;
use slm_runtime::session::{Session, SessionError};
use slm_runtime::text::TextDecoder;
use slm_runtime::tokenizer::Tokenizer;
use slmc::artifact::host::SessionMemory;
use slmc::artifact::inspect;
use slmc::compile::exits::exits_section;
use slmc::compile::{AskedSections, Compiled};
use slmc::machine::kernels::kernels;
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::model::spec::{Embedding, Pooling};
use slmc::target::Target;

/// The smallest artifact of a family: pages of 64 bytes, so that most bytes carry something.
fn tiny(family: Family) -> Compiled {
    let model = quantized(family, Size::TINY, Preset::Mixed);
    compiled(&model, &Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R4K4) }, None)
}

/// The same with 72 tokens, of which the first 64 have 8 bits: its token table and a head of its own are in two parts.
fn tiny_in_parts(family: Family) -> Compiled {
    let model = with_tokens(quantized(family, Size::TINY, Preset::W4), 72, QuantScheme::Split { wide_rows: 64 });
    compiled(&model, &Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R4K4) }, None)
}

/// An encoder that pools.
fn tiny_pooled(pooling: Pooling, normalize: bool) -> Compiled {
    let mut model = quantized(Family::Bert, Size::TINY, Preset::Mixed);
    model.spec.embedding = Some(Embedding { pooling, normalize });
    compiled(&model, &Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R4K4) }, None)
}

/// A classifier of two layers with an exit head after the first, at a margin that some texts reach, and temperatures.
fn tiny_exits() -> Compiled {
    let size = Size { layers: 2, ..Size::TINY };
    let model = quantized_with_exits(Family::BertClassifier, size, Preset::Mixed, &[1]);
    let asked =
        AskedSections { exits: Some(exits_section(&[1], 2, &[1 << 15], &[0.5, 2.0])), ..AskedSections::default() };
    compiled_with(&model, &Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R4K4) }, None, asked)
}

/// What `slmc verify` judges before it runs anything.
fn judged(bytes: &[u8]) -> Result<(), FormatError> {
    ArtifactView::open(bytes)?.verify_digests()
}

/// Most memory a test gives to a session.
const MEMORY: u64 = 16 << 20;

/// Text to tokens, with the memory that is asked for and with less.
fn tokenize(view: &ArtifactView<'_>) {
    let Some(tokenizer) = Tokenizer::of(view) else { return };
    let text = "<s>the quick  brown</s> fox\nnaïve 日本 \u{301}";
    let required = tokenizer.required_bytes(text.len()).expect("growth is bounded");
    let mut memory = vec![0; required + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    for length in [required, required / 2, 0] {
        let mut highest = 0;
        let _ =
            tokenizer.encode(text, true, &mut memory[start..start + length], &mut |token| highest = highest.max(token));
        assert!(highest < view.spec().vocabulary);
    }
}

/// Everything that can be asked of an artifact that opens. Errors are answers; a panic fails the test.
fn exercise(view: &ArtifactView<'_>) -> Result<(), SessionError> {
    let spec = view.spec();
    let mut decoder = TextDecoder::new(view);
    for token in (0..spec.vocabulary).chain([u32::MAX]) {
        let _ = decoder.next(token);
    }
    let names = inspect::tensors(view, None);
    assert_eq!(names.len(), view.tensor_count());
    let _ = inspect::weight_size(view);
    for record in view.section_records() {
        let end = record.offset.checked_add(record.bytes).expect("sections end within the file");
        assert!(end <= view.header().file_bytes);
    }
    tokenize(view);
    if let Some(frame) = view.chat_frame() {
        assert!(FramePart::ALL.iter().all(|part| frame.tokens(*part).iter().all(|token| token < spec.vocabulary)));
        let _ = FramePart::ALL.map(|part| frame.text(part).len());
    }
    if Session::required_bytes(view) > MEMORY {
        return Ok(());
    }
    let mut memory = SessionMemory::for_artifact(view);
    golden_digest(view, kernels(), memory.as_mut_slice())?;
    let last = spec.vocabulary - 1;
    let tokens: Vec<u32> =
        (0..spec.context.min(20)).map(|index| [0, last, index.min(last)][index as usize % 3]).collect();
    let mut session = Session::new(view, kernels(), memory.as_mut_slice())?;
    let mut values = 0;
    let run = session.run(&tokens, &mut |_, row| values += row.len());
    if view.heads().len() > 0 {
        let mut heads = Vec::new();
        if session.run_heads(&tokens, &mut |layers, row| heads.push((layers, row.len()))).is_ok() {
            assert!(
                heads.len() == view.heads().len()
                    && heads.iter().all(|(_, width)| *width == spec.output_width as usize)
            );
            assert_eq!(session.exit_layers(), spec.layers as usize);
        }
        assert!((0.0..=1.0).contains(&session.confidence()));
    }
    if run.is_ok() {
        assert!(values > 0 && values.is_multiple_of(spec.output_width as usize));
    }
    if !spec.is_decoder() {
        assert_eq!(session.step(&tokens).err(), Some(SessionError::NotADecoder));
        return run;
    }
    session.reset();
    for token in &tokens {
        let width = session.step(&[*token])?.len();
        assert_eq!(width, spec.output_width as usize);
    }
    run
}
