//! An artifact (docs/format.md): whatever the bytes, opening and digests give an answer, and an artifact that opens can
//! be asked for its tensors, its texts and, where that is little work, for outputs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::{FramePart, Role};
use slm_runtime::kernels::best;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::session::Session;
use slm_runtime::text::TextDecoder;
use slm_runtime::tokenizer::Tokenizer;

/// Most memory that a session or a tokenizer gets.
const MEMORY: u64 = 1 << 20;

/// Zeroed bytes that start as the runtime wants them.
fn memory(length: usize) -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = vec![0; length + ALIGNMENT];
    let start = bytes.as_ptr().align_offset(ALIGNMENT);
    (bytes, start..start + length)
}

fn text(view: &ArtifactView<'_>) {
    let Some(tokenizer) = Tokenizer::of(view) else { return };
    let text = "<s>the quick  brown</s> fox\nnaïve 日本 \u{301}";
    let Some(required) = tokenizer.required_bytes(text.len()).filter(|&bytes| bytes as u64 <= MEMORY) else { return };
    for length in [required, required / 2] {
        let (mut bytes, range) = memory(length);
        let memory = &mut bytes[range];
        let _ = tokenizer.encode(text, true, memory, &mut |token| assert!(token < view.spec().vocabulary));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(view) = ArtifactView::open(bytes) else { return };
    let _ = view.verify_digests();
    let spec = view.spec();
    let mut decoder = TextDecoder::new(&view);
    for token in (0..spec.vocabulary.min(256)).chain([u32::MAX]) {
        let _ = decoder.next(token);
    }
    for index in 0..view.tensor_count() {
        assert!(view.tensor_bytes(&view.tensor_record(index)).is_some(), "tensor {index} lies in the file");
    }
    text(&view);
    if let Some(frame) = view.chat_frame() {
        for part in FramePart::ALL {
            assert!(frame.tokens(part).iter().all(|token| token < spec.vocabulary));
            let _ = frame.message(Role::User, frame.text(part));
        }
    }
    if let Some(table) = view.continuations() {
        assert!(table.after(&[0, 1, 2]).is_none_or(|token| token < spec.vocabulary));
    }
    let _ = view.draft_model().map(|draft| draft.verify_digests());
    if Session::required_bytes(&view) > MEMORY {
        return;
    }
    let (mut bytes, range) = memory(Session::required_bytes(&view) as usize);
    let Ok(mut session) = Session::new(&view, best(view.layout()), &mut bytes[range]) else { return };
    // What the file says was read: taken up or refused, and gone on with.
    if session.restore_prefix().is_ok_and(|positions| positions > 0) {
        let _ = session.step(&[0]);
    }
    session.reset();
    let last = spec.vocabulary - 1;
    let tokens: Vec<u32> = (0..spec.context.min(5)).map(|index| [0, last, last / 2][index as usize % 3]).collect();
    let _ = session.run(&tokens, &mut |_, row| assert_eq!(row.len(), spec.output_width as usize));
    assert!((0.0..=1.0).contains(&session.confidence()) && session.exit_layers() <= spec.layers as usize);
    let mut heads = 0;
    if session.run_heads(&tokens, &mut |_, row| heads += usize::from(row.len() == spec.output_width as usize)).is_ok() {
        assert_eq!(heads, view.heads().len().max(1));
    }
    session.reset();
    for token in tokens {
        let Ok(row) = session.step(&[token]) else { return };
        assert_eq!(row.len(), spec.output_width as usize);
    }
});
