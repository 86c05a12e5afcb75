//! Speculative decoding gives the tokens of decoding one by one, whatever is drafted: for every family, greedy and drawn,
//! with drafts that are right, wrong or nonsense. A sequence that was shortened goes on as if what was taken back had
//! never been. What the artifact drafts by comes from `compile`.

use crate::fixture::{self, Family, Size, compiled, quantized, with_tokens};
use crate::reference::quantize_model;
use crate::support::{golden, json, refused, succeed};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::{Kernels, SCALAR, available};
use slm_runtime::layout::Layout;
use slm_runtime::sample::{ALL, Sampling, choose_after, mark, random_u64, seen_words};
use slm_runtime::session::{Extent, Session, SessionError};
use slm_runtime::speculate::{Drafter, Draws, ModelDrafter, Repeats, Source, round};
use slmc::artifact::host::SessionMemory;
use slmc::formats::open_model;
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::target::Target;

const DRAWN: Sampling = Sampling { temperature: 0.9, top_k: 20, top_p: 60_000, min_p: 100, repetition_penalty: 1.0 };
const PENALISED: Sampling = Sampling { temperature: 0.7, top_k: 0, top_p: ALL, min_p: 0, repetition_penalty: 1.3 };

fn artifact(family: Family) -> Vec<u8> {
    compiled(&quantized(family, Size::SMALL, Preset::Mixed), &Target::unlimited("test", LAYOUT), None).bytes
}

const LAYOUT: Layout = Layout::R8K4Offset8;

/// Artifacts of decoders: of the families of the fixture, one with short convolutions, one with sliding windows.
fn decoders() -> Vec<(String, Vec<u8>)> {
    let families = Family::ALL.into_iter().filter(|family| family.decoder());
    let mut artifacts: Vec<(String, Vec<u8>)> =
        families.map(|family| (family.name().to_owned(), artifact(family))).collect();
    for name in ["lfm2-short-conv", "mistral-sliding-window-8"] {
        let model = open_model(&golden(name)).expect("it opens");
        let quantized = quantize_model(&model, QuantScheme::W8, QuantScheme::W8);
        artifacts.push((name.to_owned(), compiled(&quantized, &Target::unlimited("test", LAYOUT), Some(96)).bytes));
    }
    artifacts
}

/// A memory for sessions of `rows` rows.
fn memory(view: &ArtifactView<'_>, rows: usize) -> SessionMemory {
    SessionMemory::for_extent(view, Extent { workers: 1, rows })
}

/// Tokens after a prompt, one at a time.
fn one_by_one(view: &ArtifactView<'_>, prompt: &[u32], count: usize, sampling: &Sampling, seed: u64) -> Vec<u32> {
    let mut memory = memory(view, 1);
    let mut session = Session::new(view, &SCALAR, memory.as_mut_slice()).expect("the memory is the planned one");
    let mut seen = vec![0; seen_words(view.spec().vocabulary as usize)];
    prompt.iter().for_each(|&token| mark(&mut seen, token));
    let mut logits = session.step(prompt).expect("the prompt runs").to_vec();
    let mut tokens = Vec::new();
    loop {
        let token = choose_after(&logits, &seen, sampling, seed, tokens.len() as u64);
        mark(&mut seen, token);
        tokens.push(token);
        if tokens.len() == count {
            return tokens;
        }
        logits = session.step(&[token]).expect("the token runs").to_vec();
    }
}

/// Drafts what comes, spoiled where a draw says so, and sometimes nothing.
struct Spoiled<'t> {
    coming: &'t [u32],
    prompt: usize,
    vocabulary: u32,
    seed: u64,
}

impl Drafter for Spoiled<'_> {
    fn draft(&mut self, sequence: &[u32], _: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let next = sequence.len() - self.prompt;
        let draw = |number: usize| random_u64(self.seed, (37 * next + number) as u64);
        if draw(0).is_multiple_of(7) {
            return Ok(0);
        }
        for (number, draft) in drafts.iter_mut().enumerate() {
            let right = self.coming.get(next + number).copied().unwrap_or(0);
            *draft = match draw(number + 1) % 3 {
                0 => (right + 1) % self.vocabulary,
                _ => right,
            };
        }
        Ok(drafts.len())
    }
}

/// Tokens after a prompt with drafts of these sources, and how many drafts were right.
fn with_drafts(
    session: &mut Session<'_, '_>,
    sources: &mut [Source<'_>],
    (prompt, count): (&[u32], usize),
    vocabulary: usize,
    sampling: &Sampling,
    seed: u64,
) -> (Vec<u32>, usize) {
    let mut seen = vec![0; seen_words(vocabulary)];
    prompt.iter().for_each(|&token| mark(&mut seen, token));
    let first = choose_after(session.step(prompt).expect("the prompt runs"), &seen, sampling, seed, 0);
    let mut tokens = vec![first];
    mark(&mut seen, first);
    let mut right = 0;
    while tokens.len() < count {
        let sequence = [prompt, &tokens].concat();
        let known = seen.clone();
        let draws = Draws { sampling: *sampling, seed, index: tokens.len() as u64, seen: &known };
        let found = round(session, sources, 8, &sequence, &draws, &mut |logits| {
            let token = choose_after(logits, &seen, sampling, seed, tokens.len() as u64);
            mark(&mut seen, token);
            tokens.push(token);
            (tokens.len() < count).then_some(token)
        });
        let found = found.expect("the round runs");
        right += found.confirmed;
        assert_eq!(session.positions(), prompt.len() + tokens.len() - 1, "positions read");
    }
    (tokens, right)
}

#[test]
fn drafts_do_not_change_a_token() {
    for (name, bytes) in decoders() {
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let vocabulary = view.spec().vocabulary;
        let prompt: Vec<u32> = (0..9).map(|n| (random_u64(3, n) % u64::from(vocabulary)) as u32).collect();
        let count = 60;
        for (sampling, seed) in [(Sampling::GREEDY, 0), (DRAWN, 1), (DRAWN, 2), (PENALISED, 3)] {
            let expected = one_by_one(&view, &prompt, count, &sampling, seed);
            for rows in [1, 2, 3, 5, 9] {
                let mut memory = memory(&view, rows);
                let mut session =
                    Session::with_rows(&view, &SCALAR, rows, memory.as_mut_slice()).expect("the memory is right");
                let mut spoiled = Spoiled { coming: &expected, prompt: prompt.len(), vocabulary, seed };
                let mut sources = [Source::new(&mut spoiled, 0.0)];
                let (found, right) =
                    with_drafts(&mut session, &mut sources, (&prompt, count), vocabulary as usize, &sampling, seed);
                assert_eq!(found, expected, "{}, {rows} rows, seed {seed}", name);
                assert!(rows == 1 || session.rows() == 1 || right > 5, "{}: {right} drafts right", name);
            }
        }
    }
}

#[test]
fn more_rows_change_nothing_of_an_encoder() {
    // As many tokens that a plan has the logits of a few positions.
    let model = with_tokens(quantized(Family::BertMlm, Size::SMALL, Preset::W8), 40_000, QuantScheme::W8);
    let bytes = compiled(&model, &Target::unlimited("test", LAYOUT), None).bytes;
    let view = ArtifactView::open(&bytes).expect("it is sound");
    assert!(view.spec().output_rows < 12, "{} rows", view.spec().output_rows);
    let tokens: Vec<u32> = (4..16).collect();
    let found = [1, 16].map(|rows| {
        let mut memory = memory(&view, rows);
        let mut session = Session::with_rows(&view, &SCALAR, rows, memory.as_mut_slice()).expect("the memory is right");
        let mut found = Vec::new();
        session.run(&tokens, &mut |_, row| found.extend(row.iter().map(|value| value.to_bits()))).expect("it runs");
        found
    });
    assert!(found[0].len() == tokens.len() * 40_000 && found[0] == found[1]);
}

#[test]
fn a_draft_model_and_repeats_do_not_change_a_token() {
    for (family, drafter) in [(Family::TiedLlama, Family::TiedLlama), (Family::TiedLlama, Family::Llama)] {
        let (name, bytes) = (family.name(), artifact(family));
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let other = artifact(drafter);
        let draft = ArtifactView::open(&other).expect("it is sound");
        let vocabulary = view.spec().vocabulary;
        if !draft.spec().is_decoder() || draft.spec().vocabulary != vocabulary {
            continue;
        }
        let prompt = [3, 1, 4, 1, 5, 3, 1];
        for (sampling, seed) in [(Sampling::GREEDY, 0), (DRAWN, 1), (PENALISED, 5)] {
            let count = 70;
            let expected = one_by_one(&view, &prompt, count, &sampling, seed);
            let (mut memory, mut of_draft) = (memory(&view, 9), memory(&draft, 9));
            let mut read = vec![0; draft.spec().context as usize];
            let mut session =
                Session::with_rows(&view, &SCALAR, 9, memory.as_mut_slice()).expect("the memory is right");
            let drafting =
                Session::with_rows(&draft, &SCALAR, 9, of_draft.as_mut_slice()).expect("the memory is right");
            let mut model = ModelDrafter::new(drafting, &mut read);
            let mut repeats = Repeats;
            let mut sources = [Source::new(&mut repeats, 0.0), Source::new(&mut model, 0.01)];
            let (found, right) =
                with_drafts(&mut session, &mut sources, (&prompt, count), vocabulary as usize, &sampling, seed);
            assert_eq!(found, expected, "{} by {}, seed {seed}", name, drafter.name());
            // The same model with the same draws is always right, but where the penalty sees its own drafts.
            assert!(name != drafter.name() || right > 20, "{right} drafts right");
        }
    }
}

/// Bits of the logits after some tokens.
fn bits(session: &mut Session<'_, '_>, tokens: &[u32]) -> Vec<u32> {
    session.step(tokens).expect("the tokens run").iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_shortened_sequence_goes_on_as_if_nothing_had_been_taken_back() {
    for (name, bytes) in decoders() {
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let vocabulary = u64::from(view.spec().vocabulary);
        let tokens =
            |seed, count| -> Vec<u32> { (0..count).map(|n| (random_u64(seed, n) % vocabulary) as u32).collect() };
        let (start, wrong, right) = (tokens(1, 20), tokens(2, 6), tokens(3, 12));
        let tables: Vec<&'static Kernels> =
            available().filter(|table| table.layout.is_none_or(|layout| layout == LAYOUT)).collect();
        for kernels in tables {
            for kept in 0..=wrong.len() {
                let (mut memory, mut fresh) = (memory(&view, 8), memory(&view, 1));
                let mut session =
                    Session::with_rows(&view, kernels, 8, memory.as_mut_slice()).expect("the memory is right");
                session.read(&start).expect("the tokens run");
                session.mark();
                // What was wrong came one by one, and together.
                for pieces in [1, wrong.len()] {
                    wrong.chunks(pieces).for_each(|piece| session.read(piece).expect("the tokens run"));
                    session.truncate(start.len()).expect("the mark is there");
                }
                session.read(&wrong).expect("the tokens run");
                session.truncate(start.len() + kept).expect("the mark is there");
                let found = bits(&mut session, &right);
                let mut session = Session::new(&view, kernels, fresh.as_mut_slice()).expect("the memory is right");
                session.read(&start).expect("the tokens run");
                session.read(&wrong[..kept]).err();
                assert_eq!(found, bits(&mut session, &right), "{}, {kept} kept, {}", name, kernels.name);
            }
        }
    }
}

#[test]
fn what_is_not_kept_cannot_be_taken_back() {
    for (name, bytes) in decoders() {
        let view = ArtifactView::open(&bytes).expect("it is sound");
        let convolves = (0..view.spec().layers as usize).any(|layer| view.layer(layer).taps > 1);
        let mut memory = memory(&view, 4);
        let mut session = Session::with_rows(&view, &SCALAR, 4, memory.as_mut_slice()).expect("the memory is right");
        session.read(&[1, 2, 3, 4, 5, 6]).expect("the tokens run");
        let result = session.truncate(3);
        assert_eq!(result.is_err(), convolves, "{}: {result:?}", name);
        if convolves {
            assert_eq!(result, Err(SessionError::Shortened { least: 6 }));
            session.mark();
            session.read(&[1, 2, 3, 4, 5]).expect("the tokens run");
            assert_eq!(
                session.truncate(7),
                Err(SessionError::Shortened { least: 11 }),
                "five tokens are more than four rows"
            );
        }
        session.truncate(0).expect("the start is always kept");
        assert_eq!(session.positions(), 0);
    }
}

/// A model `m`, quantized to `q`, and a text to count in.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::TiedLlama, Size::SMALL);
    json(directory.path(), "quantize m --scheme w8 --method rtn -o q");
    std::fs::write(directory.path().join("text.txt"), "the fox and the hen and the fox and the cow. ".repeat(40))
        .expect("writes");
    directory
}

#[test]
fn an_artifact_with_drafts_says_the_same() {
    let workplace = workplace();
    let directory = workplace.path();
    json(directory, "compile q --target x86-64-v3 -o plain.slm");
    // A draft model with other weights and the same tokens: it is wrong now and then.
    json(directory, "quantize m --scheme w4 --method rtn -o small");
    json(directory, "compile small --target x86-64-v3 -o small.slm");
    let report = json(directory, "compile q --target x86-64-v3 --continuations text.txt --draft small.slm -o all.slm");
    for key in ["continuations_bytes", "draft_bytes", "drafting_bytes"] {
        assert!(report[key].as_u64().is_some_and(|bytes| bytes > 0), "{key} in {report}");
    }
    json(directory, "compile q --target x86-64-v3 --continuations self -o own.slm");
    for choice in ["--temperature 0", "--temperature 0.8 --seed 3", "--temperature 1 --repetition-penalty 1.2"] {
        let prompt = format!("--prompt fox --tokens 60 {choice}");
        let plain = json(directory, &format!("generate plain.slm {prompt} --drafts 0"));
        assert!(plain.get("speculation").is_none(), "{plain}");
        let cases = ["plain.slm", "plain.slm --draft small.slm", "all.slm", "all.slm --drafts 2", "own.slm"];
        for case in cases {
            let drafted = json(directory, &format!("generate {case} {prompt}"));
            assert_eq!(drafted["tokens"], plain["tokens"], "{case} {choice}");
            // The first token comes with the prompt; the one that ends the text is chosen too.
            let added = drafted["tokens"].as_array().expect("tokens").len() as u64;
            let expected = added - 1 + u64::from(drafted["stop"] == "end");
            assert_eq!(drafted["speculation"]["tokens"], expected, "{case}: {drafted}");
        }
    }
    let verified = succeed(directory, "verify all.slm");
    assert!(!verified.is_empty());
}

#[test]
fn what_cannot_draft_is_refused_by_name() {
    let workplace = workplace();
    let directory = workplace.path();
    json(directory, "compile q --target x86-64-v3 -o plain.slm");
    json(directory, "compile q --target x86-64-v3 --draft plain.slm -o drafted.slm");
    json(directory, "compile q --target cortex-a76 -o other.slm");
    refused(directory, "compile q --target x86-64-v3 --draft drafted.slm -o x.slm", "carries a draft model itself");
    refused(directory, "compile q --target x86-64-v3 --draft other.slm -o x.slm", "compile it for that target");
    refused(directory, "compile q --target x86-64-v3 --draft text.txt -o x.slm", "text.txt");
    succeed(directory, "keygen -o release");
    json(directory, "sign plain.slm --key release.pem -o signed.slm");
    refused(directory, "compile q --target x86-64-v3 --draft signed.slm -o x.slm", "it is signed");
    succeed(directory, "keygen --type device -o device");
    json(directory, "seal plain.slm --device-key device.key -o sealed.slm");
    refused(directory, "compile q --target x86-64-v3 --draft sealed.slm -o x.slm", "its weights are sealed");
    // No letter follows another twice: every lap goes on by another step.
    let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
    let once: String = [1, 3, 5, 7, 9].iter().flat_map(|step| (0..26).map(move |n| letter(n * step))).collect();
    std::fs::write(directory.join("once.txt"), once).expect("writes");
    refused(directory, "compile q --target x86-64-v3 --continuations once.txt -o x.slm", "pass a longer text");
    fixture::write(&directory.join("strange"), Family::Llama, Size { hidden: 24, ..Size::SMALL });
    let tokenizer = std::fs::read_to_string(directory.join("strange/tokenizer.json")).expect("reads");
    std::fs::write(directory.join("strange/tokenizer.json"), tokenizer.replace("\"x\"", "\"\u{e9}\"")).expect("writes");
    json(directory, "quantize strange --scheme w8 --method rtn -o sq");
    json(directory, "compile sq --target x86-64-v3 -o strange.slm");
    refused(directory, "compile q --target x86-64-v3 --draft strange.slm -o x.slm", "is another than the model's");
    refused(directory, "generate plain.slm --prompt a --draft strange.slm", "a model with other tokens");
    refused(directory, "generate m --prompt a --draft plain.slm", "leave --draft out");
    fixture::write(&directory.join("b"), Family::Bert, Size::SMALL);
    json(directory, "quantize b --scheme w8 --method rtn -o bq");
    refused(directory, "compile bq --target x86-64-v3 --continuations text.txt -o x.slm", "only decoders");
    assert!(!directory.join("x.slm").exists());
}
