//! The header against this code, and invalid pointers.

use super::*;
use crate::audit::{AuditRecord, End, Follows, Kind, SAVED_KEY_BYTES, SealKind};
use crate::format::chat_frame::{FramePart, Role};
use crate::format::spec::Pooling;
use crate::format::special_tokens::{MAX_ENDS, MAX_OPENING};
use crate::layout::ALIGNMENT;
use crate::sample::{Sampling, choose};
use core::ptr::{null, null_mut};
use std::string::String;
use std::vec;
use std::vec::Vec;

const HEADER: &str = include_str!("../../include/slm.h");

/// `#define`s of the header.
fn constants() -> Vec<(&'static str, &'static str)> {
    let define = |line: &'static str| line.strip_prefix("#define ")?.split_once(' ');
    HEADER.lines().filter_map(define).map(|(name, rest)| (name, rest.split("/*").next().unwrap_or("").trim())).collect()
}

/// The words of a variant in capitals, each after an underscore.
fn constant_name(variant: &str) -> String {
    let letter = |c: char| c.is_uppercase().then_some('_').into_iter().chain(c.to_uppercase());
    variant.chars().flat_map(letter).collect()
}

#[test]
fn the_header_says_what_the_code_does() {
    let constants = constants();
    let value = |name: &str| {
        constants.iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("{name} is not in slm.h")).1
    };
    assert_eq!(value("SLM_ABI_VERSION").parse(), Ok(ABI_VERSION));
    assert_eq!(value("SLM_MODEL_WORDS").parse(), Ok(MODEL_WORDS));
    assert_eq!(value("SLM_GRAMMAR_WORDS").parse(), Ok(GRAMMAR_WORDS));
    assert_eq!(value("SLM_GRAMMAR_STATE_NUMBERS").parse(), Ok(GRAMMAR_STATE_NUMBERS));
    assert_eq!(value("SLM_MEMORY_ALIGNMENT").parse(), Ok(ALIGNMENT));
    assert_eq!(value("SLM_NO_TOKEN"), "0xffffffffu");
    assert_eq!(value("SLM_MAX_OPENING_TOKENS").parse(), Ok(MAX_OPENING));
    assert_eq!(value("SLM_MAX_END_TOKENS").parse(), Ok(MAX_ENDS));
    for part in FramePart::ALL {
        let name = constant_name(&std::format!("{part:?}"));
        assert_eq!(value(&std::format!("SLM_CHAT{name}")).parse(), Ok(part as u32), "{part:?}");
    }
    for role in Role::ALL {
        let name = constant_name(&std::format!("{role:?}"));
        assert_eq!(value(&std::format!("SLM_ROLE{name}")).parse(), Ok(role as u32), "{role:?}");
    }
    let poolings = [Pooling::First, Pooling::Mean, Pooling::Maximum, Pooling::Last];
    for pooling in poolings {
        let name = constant_name(&std::format!("{pooling:?}"));
        assert_eq!(value(&std::format!("SLM_POOLING{name}")).parse(), Ok(pooling as u32), "{pooling:?}");
    }
    assert_eq!(value("SLM_POOLING_NONE"), "0");
    assert_eq!(value("SLM_AUDIT_WORDS").parse(), Ok(AUDIT_WORDS));
    assert_eq!(value("SLM_EXCHANGE_WORDS").parse(), Ok(EXCHANGE_WORDS));
    assert_eq!(value("SLM_AUDIT_RECORD_BYTES").parse(), Ok(AuditRecord::BYTES));
    assert_eq!(value("SLM_AUDIT_KEY_BYTES").parse(), Ok(SAVED_KEY_BYTES));
    let numbers = [
        ("SLM_AUDIT_OPENED", Kind::Opened as u32),
        ("SLM_AUDIT_UPDATE", Kind::Update as u32),
        ("SLM_AUDIT_NOTE", Kind::Note as u32),
        ("SLM_END_UNSTATED", End::Unstated as u32),
        ("SLM_END_MODEL", End::Model as u32),
        ("SLM_END_LENGTH", End::Length as u32),
        ("SLM_END_CONTEXT", End::Context as u32),
        ("SLM_END_STOPPED", End::Stopped as u32),
        ("SLM_FOLLOWS_ARTIFACT", Follows::Artifact as u32),
        ("SLM_FOLLOWS_NOTHING", Follows::Nothing as u32),
        ("SLM_FOLLOWS_ANOTHER", Follows::Another as u32),
        ("SLM_SEAL_ED25519", SealKind::Ed25519 as u32),
        ("SLM_SEAL_ECDSA_P256", SealKind::EcdsaP256 as u32),
    ];
    for (name, number) in numbers {
        assert_eq!(value(name).parse(), Ok(number), "{name}");
    }
    assert_eq!((value("SLM_ED25519"), value("SLM_P256")), ("1", "2"));
    #[cfg(feature = "signed")]
    {
        assert_eq!(value("SLM_STREAM_WORDS").parse(), Ok(STREAM_WORDS));
        assert_eq!(value("SLM_MAX_KEYS").parse(), Ok(MAX_KEYS));
        let pointer = size_of::<usize>();
        assert_eq!((size_of::<PublicKey>(), size_of::<Piece>()), (2 * pointer, 2 * pointer));
        assert_eq!(size_of::<TrustOptions>(), 2 * pointer + 16 + 4 * pointer);
    }
    assert_eq!((value("SLM_CHACHA20_POLY1305"), value("SLM_AES_256_GCM")), ("1", "2"));
    assert_eq!((value("SLM_DEVICE_KEY_BYTES"), value("SLM_STANZA_BYTES")), ("32", "48"));
    #[cfg(feature = "seal")]
    {
        use crate::format::seal::{STANZA_BYTES, SealCipher};
        assert_eq!((SealCipher::ChaCha20Poly1305 as u32, SealCipher::Aes256Gcm as u32), (1, 2));
        assert_eq!((DEVICE_KEY_BYTES, STANZA_BYTES), (32, 48));
        assert_eq!(size_of::<UnsealingOptions>(), 5 * size_of::<usize>());
    }
    assert_eq!((value("SLM_SLOT_A"), value("SLM_SLOT_B")), ("0", "1"));
    assert_eq!(value("SLM_PAGE_BYTES").parse(), Ok(crate::format::header::HEADER_BYTES));
    // A slot record; `update` may be absent here.
    assert_eq!(value("SLM_RECORD_BYTES"), "64");
    let words = [("SLM_STREAMED_WORDS", "384"), ("SLM_READ_FAILED", "-1"), ("SLM_READ_LATE", "-2")];
    words.into_iter().for_each(|(name, expected)| assert_eq!(value(name), expected));
    #[cfg(feature = "streaming")]
    assert_eq!((STREAMED_WORDS, READ_FAILED, READ_LATE), (384, -1, -2));
    let mut named =
        13 + 4 + 4 + 4 + words.len() + numbers.len() + FramePart::ALL.len() + Role::ALL.len() + poolings.len();
    for &status in Status::ALL {
        let name = constant_name(&std::format!("{status:?}"));
        // `Utf8` is one word, and so is every other with a digit.
        assert_eq!(value(&std::format!("SLM{name}")).parse(), Ok(status as i32), "{status:?}");
        assert_eq!(Status::from_number(status as i32), Some(status));
        assert!(status.message().to_bytes().len() > 3);
        named += 1;
    }
    assert_eq!(constants.len(), named, "slm.h defines a constant that this test does not know");
    // Every function is declared, and nothing else is.
    let code = [
        include_str!("../c_api.rs"),
        include_str!("audit.rs"),
        include_str!("chat.rs"),
        include_str!("choice.rs"),
        include_str!("exits.rs"),
        include_str!("grammar.rs"),
        include_str!("model.rs"),
        include_str!("seal.rs"),
        include_str!("session.rs"),
        include_str!("snapshot.rs"),
        include_str!("speculation.rs"),
        include_str!("streaming.rs"),
        include_str!("text.rs"),
        include_str!("trust.rs"),
        include_str!("update.rs"),
    ];
    let functions: Vec<&str> = code
        .iter()
        .flat_map(|file| file.split("extern \"C\" fn ").skip(1))
        .filter_map(|rest| rest.starts_with("slm_").then(|| rest.split('(').next()).flatten())
        .collect();
    let declares =
        |name: &str| HEADER.contains(&std::format!(" {name}(")) || HEADER.contains(&std::format!("*{name}("));
    assert!(functions.len() > 15 && functions.iter().all(|name| declares(name)), "{functions:?}");
    let declarations = HEADER.lines().filter(|line| !line.starts_with([' ', '/', 't']) && line.contains('(')).count();
    assert_eq!(declarations, functions.len(), "functions of slm.h");
    assert_eq!(size_of::<Facts>(), 8 * 4 + 8);
    assert_eq!(size_of::<ChatFacts>(), 12);
    assert_eq!(size_of::<SamplingOptions>(), 12);
    assert_eq!(size_of::<ChoiceOptions>(), 20);
    assert_eq!(size_of::<EmbeddingFacts>(), 8);
    assert_eq!(size_of::<AuditOutcome>(), 12);
    assert_eq!(size_of::<Decoder>(), 2 * size_of::<usize>());
}

#[test]
#[expect(unsafe_code, reason = "calls the functions that C calls")]
fn bad_pointers_give_a_status() {
    let mut words = vec![0u64; MODEL_WORDS + 1];
    let model: *mut Model = words.as_mut_ptr().cast();
    let crooked = model.cast::<u8>().wrapping_add(1).cast::<Model>();
    let (mut session, mut token, mut count) = (null_mut(), 0u32, 0usize);
    let mut text = null();
    let mut facts = Facts::default();
    let garbage = [7u8; 5000];
    let mut why = [0x55; 40];
    // SAFETY: every pointer is null, misaligned (and refused for it), or has the values that the function needs.
    unsafe {
        assert_eq!(slm_open(null_mut(), garbage.as_ptr().cast(), 10), Status::Null);
        assert_eq!(slm_open(crooked, garbage.as_ptr().cast(), 10), Status::Alignment);
        assert_eq!(slm_open(model, null(), 10), Status::Null);
        assert_eq!(slm_open(model, garbage.as_ptr().cast(), usize::MAX), Status::Argument);
        // None of these opened it.
        assert_eq!(slm_describe(model, &mut facts), Status::NotOpen);
        assert_eq!(slm_open(model, null(), 0), Status::Format);
        assert_eq!(slm_open(model, garbage.as_ptr().cast(), garbage.len()), Status::Format);
        let length = slm_model_error(model, why.as_mut_ptr(), why.len());
        let written = CStr::from_ptr(why.as_ptr()).to_str().expect("ASCII");
        assert!(written.starts_with("not a .slm artifact") && written.len() == 39 && length > 39, "{written} {length}");
        assert_eq!(slm_model_error(model, null_mut(), 0), length);
        assert_eq!(slm_model_error(null(), why.as_mut_ptr(), why.len()), 0);
        assert_eq!(why[0], 0);
        for model in [null_mut(), crooked, model] {
            let expected = match model {
                model if model.is_null() => Status::Null,
                model if !model.is_aligned() => Status::Alignment,
                _ => Status::NotOpen,
            };
            assert_eq!(slm_describe(model, &mut facts), expected);
            assert_eq!(slm_verify(model), expected);
            assert_eq!(slm_embedding_describe(model, &mut EmbeddingFacts::default()), expected);
            let mut choice = ChoiceOptions { temperature: 0.0, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1.0 };
            assert_eq!(slm_default_choice(model, &mut choice), expected);
            assert_eq!(slm_session_bytes(model), 0);
            assert_eq!(slm_encode_bytes(model, 10), 0);
            assert_eq!(slm_session_init(&mut session, model, words.as_mut_ptr().cast(), 8), expected);
            assert!(session.is_null());
            assert_eq!(slm_self_test(model, words.as_mut_ptr().cast(), 8), expected);
            assert_eq!(slm_chat_describe(model, &mut ChatFacts::default()), expected);
            assert_eq!(slm_chat_text(model, 0, &mut text, &mut count), expected);
            assert_eq!(slm_chat_message(model, 0, &mut text, &mut count), expected);
            assert_eq!(slm_chat_tokens(model, 0, &mut token, 1, &mut count), expected);
            let mut decoder = Decoder { model, at_start: 0 };
            assert_eq!(slm_decode_begin(&mut decoder, model, 0), expected);
            assert_eq!(slm_decode(&mut decoder, 0, &mut text, &mut count), expected);
            let scratch = words.as_mut_ptr().cast();
            assert_eq!(slm_encode(model, c"a".as_ptr(), 1, 0, scratch, 8, &mut token, 1, &mut count), expected);
        }
        let mut place = vec![0u64; GRAMMAR_WORDS];
        let grammar: *mut OpenGrammar = place.as_mut_ptr().cast();
        let mut numbers = [0u16; GRAMMAR_STATE_NUMBERS];
        let place_in_text: *mut crate::grammar::State = numbers.as_mut_ptr().cast();
        assert_eq!(slm_grammar_open(null_mut(), model, null(), 0), Status::Null);
        assert_eq!(slm_grammar_open(grammar, null(), null(), 0), Status::Null);
        assert_eq!(slm_grammar_open(grammar, model, garbage.as_ptr().cast(), 10), Status::NotOpen);
        for (grammar, expected) in [(grammar.cast_const(), Status::NotOpen), (null(), Status::Null)] {
            assert_eq!(slm_grammar_words(grammar), 0);
            assert_eq!(slm_grammar_start(grammar, place_in_text), expected);
            assert_eq!(slm_grammar_allowed(grammar, place_in_text, &mut token, 1, &mut count), expected);
            assert_eq!(slm_grammar_advance(grammar, place_in_text, 0), expected);
            assert_eq!(slm_grammar_forced(grammar, place_in_text, &mut token, 1, &mut count), expected);
            assert_eq!(slm_grammar_accepts(grammar, place_in_text), 0);
            assert_eq!(slm_grammar_complete(grammar, place_in_text), 0);
        }
        assert_eq!(slm_step_allowed(null_mut(), &token, 1, &token, 1), Status::Null);
        assert_eq!(slm_step_allowed(words.as_mut_ptr().cast(), &token, 1, &token, 1), Status::NotOpen);
        let session = words.as_mut_ptr().cast();
        assert_eq!(slm_confirm(null_mut(), 1, &token, 1, None, null_mut(), &mut count), Status::Null);
        assert_eq!(slm_confirm(session, 1, &token, 1, None, null_mut(), &mut count), Status::NotOpen);
        assert_eq!(slm_draft_repeats(null(), 3, &mut token, 1, &mut count), Status::Null);
        assert_eq!(slm_draft_repeats(null(), 0, &mut token, 1, &mut count), Status::Ok);
        assert_eq!(slm_draft_continuations(null(), &token, 1, &mut token, 1, &mut count), Status::Null);
        assert_eq!(slm_draft_model(null(), null_mut()), Status::Null);
        for (session, expected) in [(session, Status::NotOpen), (null_mut(), Status::Null)] {
            assert_eq!(slm_mark(session), expected);
            assert_eq!(slm_truncate(session, 0), expected);
            assert_eq!(slm_snapshot_bytes(session), 0);
            assert_eq!(slm_save(session, null_mut(), 0), expected);
            assert_eq!(slm_restore(session, null(), 0), expected);
            assert_eq!(slm_restore_prefix(session, &mut count), expected);
        }
        assert_eq!(slm_prefix_tokens(null(), &mut token, 1, &mut count), Status::Null);
        assert_eq!(slm_session_bytes_for(null(), 4), 0);
        assert_eq!(slm_step(null_mut(), &token, 1), Status::Null);
        assert_eq!(slm_step(words.as_mut_ptr().cast(), &token, 1), Status::NotOpen);
        assert_eq!(slm_reset(null_mut()), Status::Null);
        assert_eq!(slm_positions(null_mut()), 0);
        #[cfg(feature = "exits")]
        {
            assert_eq!((slm_exit_layers(null_mut()), slm_confidence(null_mut())), (0, 0.0));
            assert_eq!(slm_set_leaving(null_mut(), 1), Status::Null);
        }
        assert_eq!(slm_session_error(null_mut(), null_mut(), 9), 0);
    }
}

#[test]
#[expect(unsafe_code, reason = "calls the functions that C calls")]
fn sampling_checks_its_arguments() {
    let logits = [1.0, 3.0, 2.0, f32::NEG_INFINITY];
    let sample = |logits: &[f32], temperature, top_p| {
        let mut token = 99;
        let sampling = SamplingOptions { temperature, top_k: 0, top_p };
        // SAFETY: the pointers are to live arrays.
        let status = unsafe { slm_sample(logits.as_ptr(), logits.len(), &sampling, 1, 2, &mut token) };
        (status, token)
    };
    assert_eq!(sample(&logits, 0.0, 65_536), (Status::Ok, 1));
    for index in 0..50 {
        let token = choose(&logits, &Sampling { temperature: 2.0, ..Sampling::GREEDY }, 1, index);
        assert!(token < 3);
    }
    assert_eq!(sample(&logits, 2.0, 60_000).0, Status::Ok);
    for temperature in [-1.0, f32::NAN, f32::INFINITY, 1e-9] {
        assert_eq!(sample(&logits, temperature, 65_536), (Status::Argument, 99));
    }
    assert_eq!(sample(&logits, 1.0, 0), (Status::Argument, 99));
    assert_eq!(sample(&logits, 1.0, 65_537), (Status::Argument, 99));
    assert_eq!(sample(&[1.0, f32::NAN], 1.0, 65_536), (Status::Argument, 99));
    assert_eq!(sample(&[], 1.0, 65_536), (Status::Empty, 99));
}

#[test]
#[expect(unsafe_code, reason = "calls the functions that C calls")]
fn a_choice_among_some_checks_its_arguments() {
    let logits = [1.0, 3.0, 2.0, f32::NEG_INFINITY];
    let choice = ChoiceOptions { temperature: 0.0, top_k: 0, top_p: 65_536, min_p: 0, repetition_penalty: 1.0 };
    let among = |allowed: *const u32, choice: &ChoiceOptions, seen: *const u32| {
        let mut token = 99;
        // SAFETY: the pointers are null or to live arrays.
        let status =
            unsafe { slm_choose_among(logits.as_ptr(), logits.len(), choice, seen, allowed, 1, 2, &mut token) };
        (status, token)
    };
    assert_eq!(among(&0b1111, &choice, null()), (Status::Ok, 1));
    assert_eq!(among(&0b1101, &choice, null()), (Status::Ok, 2));
    assert_eq!(among(&0b1000, &choice, null()), (Status::Ok, 3));
    assert_eq!(among(&0, &choice, null()), (Status::Empty, 99));
    assert_eq!(among(null(), &choice, null()), (Status::Null, 99));
    let penalty = ChoiceOptions { repetition_penalty: 4.0, ..choice };
    assert_eq!(among(&0b0111, &penalty, null()), (Status::Null, 99));
    assert_eq!(among(&0b0111, &penalty, &0b0010), (Status::Ok, 2));
    assert_eq!(among(&0b0111, &ChoiceOptions { top_p: 0, ..choice }, null()), (Status::Argument, 99));
}

/// Appends records to a vector, or refuses where there is none.
#[expect(unsafe_code, reason = "a function that the C interface calls")]
unsafe extern "C" fn append_to(user: *mut core::ffi::c_void, record: *const u8) -> i32 {
    // SAFETY: the interface passes the bytes of a record.
    let Ok(record) = (unsafe { pointers::array(record, AuditRecord::BYTES) }) else { return 1 };
    // SAFETY: null, or the vector that the test passes.
    match unsafe { pointers::place(user.cast::<Vec<u8>>()) } {
        Ok(log) => {
            log.extend(record);
            0
        }
        Err(_) => 1,
    }
}

#[test]
#[expect(unsafe_code, reason = "calls the functions that C calls")]
fn a_log_checks_its_arguments() {
    let (mut place, mut other) = ([0u64; AUDIT_WORDS], [0u64; EXCHANGE_WORDS]);
    let audit: *mut OpenLog = place.as_mut_ptr().cast();
    let exchange: *mut OpenExchange = other.as_mut_ptr().cast();
    let greedy = ChoiceOptions { temperature: 0.0, top_k: 0, top_p: 65_536, min_p: 0, repetition_penalty: 1.0 };
    let (mut root, mut saved, mut head, mut count) = ([7u8; 32], [0u8; SAVED_KEY_BYTES], [0u8; 32], 0u64);
    let mut log: Vec<u8> = Vec::new();
    let user: *mut core::ffi::c_void = (&raw mut log).cast();
    let append: Option<AppendRecord> = Some(append_to);
    // SAFETY: every pointer is null, or has the values that the function needs.
    unsafe {
        assert_eq!(slm_audit_start(null_mut(), null(), null_mut(), null()), Status::Null);
        assert_eq!(slm_audit_head(audit, head.as_mut_ptr(), &mut count), Status::NotOpen);
        assert_eq!(slm_exchange_begin(exchange, audit, &greedy, 0), Status::NotOpen);
        assert_eq!(slm_audit_start(audit, [7; 160].as_ptr(), null_mut(), null()), Status::Log);
        assert_eq!(slm_audit_start(audit, null(), root.as_mut_ptr(), saved.as_ptr()), Status::Argument);
        assert_eq!((root, slm_audit_start(audit, null(), null_mut(), null())), ([7; 32], Status::Ok));
        assert_eq!(slm_audit_save_key(audit, saved.as_mut_ptr()), Status::NoLogKey);
        assert_eq!(slm_audit_seal(audit, 1, append, user), Status::NoLogKey);
        assert_eq!(slm_audit_start(audit, null(), root.as_mut_ptr(), null()), Status::Ok);
        assert_eq!(root, [0; 32], "the root is wiped");
        assert_eq!(slm_audit_save_key(audit, null_mut()), Status::Null);
        assert_eq!(slm_audit_save_key(audit, saved.as_mut_ptr()), Status::Ok);
        assert_eq!(slm_exchange_input(exchange, &1, 1), Status::NotOpen);
        let odd = ChoiceOptions { top_p: 0, ..greedy };
        assert_eq!(slm_exchange_begin(exchange, audit, &odd, 0), Status::Argument);
        assert_eq!(slm_exchange_begin(exchange, audit, &greedy, 0), Status::Ok);
        assert_eq!(slm_exchange_input(exchange, null(), 3), Status::Null);
        assert_eq!(slm_exchange_output(exchange, null(), 0), Status::Ok);
        let outcome = AuditOutcome::default();
        assert_eq!(slm_audit_inference(audit, exchange, null(), &outcome, 1, append, user), Status::Null);
        assert_eq!(slm_audit_event(audit, 4, 0, null(), null(), 1, append, user), Status::Argument);
        assert_eq!(slm_audit_event(audit, 2, 256, null(), null(), 1, append, user), Status::Argument);
        assert_eq!(slm_audit_event(audit, 2, 0, null(), head.as_ptr(), 1, append, user), Status::Argument);
        assert_eq!(slm_audit_event(audit, 5, 0, null(), head.as_ptr(), 1, None, user), Status::Null);
        assert_eq!(slm_audit_event(audit, 5, 0, null(), head.as_ptr(), 1, append, null_mut()), Status::Append);
        assert_eq!(slm_audit_seal_by(audit, 3, head.as_ptr(), None, null_mut(), 1, append, user), Status::Argument);
        assert_eq!(slm_audit_seal_by(audit, 1, head.as_ptr(), None, null_mut(), 1, append, user), Status::Null);
        assert!(log.is_empty(), "nothing was appended");
        assert_eq!(slm_audit_event(audit, 5, 9, null(), head.as_ptr(), 1, append, user), Status::Ok);
        assert_eq!(slm_audit_seal(audit, 2, append, user), Status::Ok);
        assert_eq!(slm_audit_head(audit, head.as_mut_ptr(), &mut count), Status::Ok);
        assert_eq!((count, log.len()), (2, 2 * AuditRecord::BYTES));
        let last = log[AuditRecord::BYTES..].as_ptr();
        assert_eq!(slm_audit_start(audit, last, null_mut(), saved.as_ptr()), Status::Ok);
        let mut again = [0u8; 32];
        assert_eq!(slm_audit_head(audit, again.as_mut_ptr(), &mut count), Status::Ok);
        assert_eq!((again, count), (head, 2));
    }
}
