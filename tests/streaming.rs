//! Weights in slow storage: the same bits as where they lie in memory, for every golden checkpoint, any choice of what stays,
//! any buffer, signed or not; readers that give fewer, late or wrong bytes; every byte of the plan changed.

use crate::fixture::{Family, Size, compiled_with, quantized, with_tokens};
use crate::reference::quantize_model;
use crate::support::{golden_folders, name};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{
    DEVICE_DIGEST, HEADER_BYTES, Header, SECTION_TABLE_OFFSET, SectionKind, SectionRecord,
};
use slm_runtime::format::spec::MAX_CHUNK;
use slm_runtime::format::verify::device_digest;
use slm_runtime::kernels::{SCALAR, best};
use slm_runtime::layout::Layout;
use slm_runtime::sample::random_u64;
use slm_runtime::self_test::golden_digest_by;
use slm_runtime::session::{Session, SessionError, SnapshotError};
use slm_runtime::sha256::Software;
use slm_runtime::streaming::{
    Check, Fault, OpenError, ReadError, Reader, Storage, Streamed, Traffic, TwoBuffers, sizes,
};
use slm_runtime::trust::{Trust, TrustError};
use slmc::artifact::host::SessionMemory;
use slmc::compile::residency::{Resident, Streaming};
use slmc::compile::{AskedSections, HostSections, TextSection, compile};
use slmc::formats::open_model;
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::model::weights::Model;
use slmc::progress::Silent;
use slmc::target::Target;
use slmc::trust::signing::{SigningFields, Slot, ToSign, runtime_key};
use slmc::trust::{Algorithm, SecretKey};
use std::sync::atomic::{AtomicBool, Ordering};

fn asked(resident: Resident, buffer_bytes: Option<u64>) -> AskedSections {
    AskedSections { streaming: Some(Streaming { resident, buffer_bytes }), ..AskedSections::default() }
}

fn artifact(model: &Model, target: &Target, asked: AskedSections) -> Vec<u8> {
    let vocabulary = vec![Vec::new(); model.spec.vocabulary];
    let text = TextSection { vocabulary, asked, ..TextSection::default() };
    compile(model, target, None, &text, &HostSections::default(), &Silent).expect("it compiles").bytes
}

fn target(layout: Layout) -> Target {
    Target { page_bytes: 64, ..Target::unlimited("tiny", layout) }
}

/// Storage that reads ahead, by the rules of the trait: it fills a buffer when it is asked whether it has.
struct Ahead<'f> {
    file: &'f [u8],
    buffers: [Vec<u8>; 2],
    begun: Option<(usize, u64, usize)>,
}

impl<'f> Ahead<'f> {
    fn new(file: &'f [u8], bytes: usize) -> Self {
        Ahead { file, buffers: [vec![0; bytes], vec![0; bytes]], begun: None }
    }
}

impl Reader for Ahead<'_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.file.read(offset, buffer)
    }
}

impl Storage for Ahead<'_> {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        assert!(self.begun.is_none_or(|(begun, ..)| begun != number), "a buffer is used while it is filled");
        &mut self.buffers[number]
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        assert!(self.begun.is_none(), "two reads at once");
        self.file.read(offset, &mut self.buffers[number][..bytes])
    }

    fn begin(&mut self, number: usize, offset: u64, bytes: usize) -> bool {
        assert!(self.begun.is_none(), "two reads at once");
        self.buffers[number].fill(0xee);
        self.begun = Some((number, offset, bytes));
        true
    }

    fn finish(&mut self, number: usize) -> Result<usize, Fault> {
        let (begun, offset, bytes) = self.begun.take().expect("it was begun");
        assert_eq!(begun, number);
        self.file.read(offset, &mut self.buffers[number][..bytes])
    }
}

fn tokens(view: &ArtifactView<'_>) -> Vec<u32> {
    let count = (view.spec().context as usize).min(21) as u64;
    (0..count).map(|n| (random_u64(7, n) % u64::from(view.spec().vocabulary)) as u32).collect()
}

/// Every output of a session: all positions at once, in pieces, and a set of tokens alone.
fn outputs(session: &mut Session<'_, '_>, tokens: &[u32]) -> Result<Vec<u32>, SessionError> {
    let mut found = Vec::new();
    session.reset();
    session.run(tokens, &mut |_, row| found.extend(row.iter().map(|value| value.to_bits())))?;
    let spec = *session.artifact().spec();
    if spec.is_decoder() {
        session.reset();
        for part in tokens.chunks(4) {
            found.extend(session.step(part)?.iter().map(|value| value.to_bits()));
        }
        session.reset();
        let allowed: Vec<u32> = (0..spec.vocabulary.div_ceil(32)).map(|word| 0x8000_0101 >> (word % 3)).collect();
        found.extend(session.step_allowed(&tokens[..3], &allowed)?.iter().map(|value| value.to_bits()));
    }
    Ok(found)
}

fn mapped(bytes: &[u8]) -> Vec<u32> {
    let view = ArtifactView::open(bytes).expect("it is sound");
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session = Session::new(&view, best(view.layout()), memory.as_mut_slice()).expect("a session");
    outputs(&mut session, &tokens(&view)).expect("it runs")
}

/// The outputs by way of a blocking reader and of one that reads ahead.
fn streamed(bytes: &[u8], check: Check) -> Result<([Vec<u32>; 2], Traffic), OpenError> {
    let sizes = sizes(&mut &*bytes, &mut [0; HEADER_BYTES])?;
    let mut memory = SessionMemory::of_bytes(sizes.memory_bytes());
    let (mut first, mut second) = (vec![0; sizes.buffer_bytes as usize], vec![0; sizes.buffer_bytes as usize]);
    let mut storage = TwoBuffers::new(bytes, [&mut first, &mut second]);
    let loaded = Streamed::open(&mut storage, memory.as_mut_slice(), &Software, check)?;
    loaded.verify(&mut storage)?;
    let view = *loaded.artifact();
    let tokens = tokens(&view);
    let mut own = SessionMemory::for_artifact(&view);
    assert_eq!(own.as_mut_slice().len() as u64, sizes.session_bytes);
    let mut session = Session::streamed(&loaded, best(view.layout()), &mut storage, own.as_mut_slice()).expect("fits");
    assert_eq!(golden_digest_by(&mut session), Ok(view.golden_digest()));
    let blocking = outputs(&mut session, &tokens).expect("it runs");
    drop(session);
    let mut storage = Ahead::new(bytes, sizes.buffer_bytes as usize);
    let mut session = Session::streamed(&loaded, &SCALAR, &mut storage, own.as_mut_slice()).expect("it fits");
    let ahead = outputs(&mut session, &tokens).expect("it runs");
    let traffic = session.traffic();
    drop(session);
    assert!(storage.begun.is_none(), "a session leaves no read behind");
    Ok(([blocking, ahead], traffic))
}

/// Resident budgets of a model from the least to everything.
fn budgets(model: &Model, target: &Target) -> [Resident; 4] {
    let sizes = |resident| {
        let bytes = artifact(model, target, asked(resident, None));
        ArtifactView::open(&bytes).expect("sound").residency().expect("planned").record.resident_bytes
    };
    let (least, all) = (sizes(Resident::Least), sizes(Resident::Bytes(u64::MAX / 2)));
    assert!(least < all);
    let between = |part: u64| Resident::Bytes(least + (all - least) * part / 100);
    [Resident::Least, between(40), between(80), Resident::Bytes(all)]
}

#[test]
fn every_family_gives_the_same_bits_whatever_stays() {
    for (number, folder) in golden_folders().into_iter().enumerate() {
        let dense = open_model(&folder).expect("a golden checkpoint");
        let scheme = if number % 2 == 0 { QuantScheme::W8 } else { QuantScheme::W4G32 };
        let model = quantize_model(&dense, scheme, QuantScheme::W8);
        let target = target(if number % 3 == 0 { Layout::R4K4 } else { Layout::R8K4 });
        let plain = artifact(&model, &target, AskedSections::default());
        let expected = mapped(&plain);
        for (index, resident) in budgets(&model, &target).into_iter().enumerate() {
            let buffer = [None, Some(1 << 16)][index % 2];
            let bytes = artifact(&model, &target, asked(resident, buffer));
            let at = format!("{} {resident:?}", name(&folder));
            // Whoever maps it does not mind.
            assert!(mapped(&bytes) == expected, "{at}: mapped");
            let check = [Check::Structure, Check::Tensors][index / 2];
            let ([blocking, ahead], traffic) = streamed(&bytes, check).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(blocking == expected, "{at}: other bits");
            assert!(ahead == expected, "{at}: other bits, read ahead");
            match resident {
                Resident::Least => assert!(traffic.ahead > 0 && traffic.bytes > 0, "{at}: {traffic:?}"),
                _ if index == 3 => assert_eq!(traffic, Traffic::default(), "{at}"),
                _ => {}
            }
        }
    }
}

/// A model whose matrices take several leaves.
fn larger() -> Model {
    let size = Size { hidden: 96, ffn: 160, layers: 3, heads: 4, context: 48 };
    quantized(Family::TiedLlama, size, Preset::Mixed)
}

fn signed(bytes: &[u8], key: &SecretKey, shift: Option<u8>) -> Vec<u8> {
    let fields = SigningFields { counter: Some(3), model_id: None, chunk_shift: shift };
    let to_sign = ToSign::new(bytes, &fields).expect("it can be signed");
    let signature = key.sign(&to_sign.message()).expect("it signs");
    to_sign.signed(Slot::from_number(1).expect("a slot"), key.public(), &signature).expect("its own")
}

#[test]
fn signed_artifacts_are_streamed_leaf_by_leaf() {
    let (model, key) = (larger(), SecretKey::generate(Algorithm::Ed25519).expect("random bytes"));
    let raw = key.public().to_raw();
    let keys = [runtime_key(key.public(), &raw).expect("a key of the device's")];
    for resident in budgets(&model, &target(Layout::R4K4)) {
        let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(resident, None)).bytes;
        let expected = mapped(&bytes);
        let bytes = signed(&bytes, &key, None);
        assert_eq!(ArtifactView::open(&bytes).expect("sound").header().chunk_shift, 12, "leaves that the buffers take");
        let ([blocking, ahead], _) = streamed(&bytes, Check::Structure).expect("it streams");
        assert!(blocking == expected && ahead == expected, "{resident:?}: other bits");
        let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
        let sizes = sizes(&mut &bytes[..], &mut [0; HEADER_BYTES]).expect("sizes");
        let buffers = || [vec![0; sizes.buffer_bytes as usize], vec![0; sizes.buffer_bytes as usize]];
        let open = |file: &[u8], trust: &Trust<'_>| {
            let [mut first, mut second] = buffers();
            let mut storage = TwoBuffers::new(file, [&mut first, &mut second]);
            let mut memory = SessionMemory::of_bytes(sizes.memory_bytes());
            Streamed::open_signed(&mut storage, memory.as_mut_slice(), trust, Check::Structure).map(|_| ())
        };
        assert_eq!(open(&bytes, &trust), Ok(()));
        let older = Trust { counter: &4, ..trust };
        assert!(matches!(open(&bytes, &older), Err(OpenError::Trust(TrustError::Rollback { .. }))));
        // Every byte of the device part counts when it is opened, but those of streamed weights, which count later.
        let view = ArtifactView::open(&bytes).expect("sound");
        let weights = view.section_records().find(|record| record.kind == SectionKind::Weights as u32).expect("there");
        let end = view.header().device_bytes as usize;
        for at in
            (0..end).step_by(61).filter(|at| !(weights.offset..weights.offset + weights.bytes).contains(&(*at as u64)))
        {
            let padding = bytes[at] == 0 && at > HEADER_BYTES;
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &trust).is_err() || padding, "byte {at} unnoticed");
        }
    }
    // Leaves that the planned buffers do not take.
    let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, None)).bytes;
    let fields = SigningFields { counter: None, model_id: None, chunk_shift: Some(16) };
    let refused = ToSign::new(&bytes, &fields).expect_err("refused").to_string();
    assert!(refused.contains("--stream-buffer"), "{refused}");
}

/// What a bad reader does with the `at`th read of weights, and from then on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Short,
    Fails,
    Late,
    /// Another bit in the bytes that it gives.
    Wrong,
}

#[test]
fn bad_readers_are_named_and_the_session_goes_on_after_a_reset() {
    let model = larger();
    let key = SecretKey::generate(Algorithm::Ed25519).expect("random bytes");
    let plain = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, None)).bytes;
    let expected = mapped(&plain);
    let mut interrupted = 0;
    for (file, check) in [(plain.clone(), Check::Tensors), (signed(&plain, &key, None), Check::Structure)] {
        let sizes = sizes(&mut &file[..], &mut [0; HEADER_BYTES]).expect("sizes");
        let buffer = sizes.buffer_bytes as usize;
        for bad in [Bad::Short, Bad::Fails, Bad::Late, Bad::Wrong] {
            for left in [0, 1, 5, 17, 40] {
                let (mut first, mut second) = (vec![0; buffer], vec![0; buffer]);
                let inner = TwoBuffers::new(&file[..], [&mut first, &mut second]);
                let mut storage = Switched { inner, left: usize::MAX, bad };
                let mut memory = SessionMemory::of_bytes(sizes.memory_bytes());
                let loaded = Streamed::open(&mut storage, memory.as_mut_slice(), &Software, check).expect("it opens");
                storage.left = left;
                let view = *loaded.artifact();
                let mut own = SessionMemory::for_artifact(&view);
                let mut session =
                    Session::streamed(&loaded, best(view.layout()), &mut storage, own.as_mut_slice()).expect("fits");
                let error = outputs(&mut session, &tokens(&view)).expect_err("bad bytes");
                let at = format!("{bad:?} after {left}: {error:?}");
                let SessionError::Read(error) = error else { panic!("{at}") };
                match (bad, error) {
                    (Bad::Short, ReadError::Short { expected, actual, .. }) => assert_eq!(actual + 1, expected, "{at}"),
                    (Bad::Fails, ReadError::Failed { .. }) | (Bad::Late, ReadError::Late { .. }) => {}
                    (Bad::Wrong, ReadError::Leaf { .. } | ReadError::Tensor(_)) => {}
                    _ => panic!("{at}"),
                }
                // Nothing goes on in the middle, and nothing that is in the middle is saved.
                let saved = session.save(&mut vec![0; session.snapshot_bytes() as usize]);
                assert!(matches!(saved, Ok(()) | Err(SnapshotError::Interrupted)), "{at}: {saved:?}");
                interrupted += u32::from(saved.is_err());
                assert_eq!(session.step(&[1]).map(|_| ()), Err(SessionError::Read(ReadError::Interrupted)), "{at}");
                drop(session);
                storage.left = usize::MAX;
                let mut session =
                    Session::streamed(&loaded, best(view.layout()), &mut storage, own.as_mut_slice()).expect("fits");
                assert!(outputs(&mut session, &tokens(&view)).as_ref() == Ok(&expected), "{at}: afterwards");
            }
        }
    }
    assert!(interrupted > 10, "{interrupted}");
}

/// Buffers that something else has used, where that was said.
struct Used<'m, 'f> {
    inner: TwoBuffers<'m, &'f [u8]>,
    said: &'m AtomicBool,
}

impl Used<'_, '_> {
    fn use_them(&mut self) {
        if self.said.swap(false, Ordering::Relaxed) {
            (0..2).for_each(|number| self.inner.buffer(number).fill(0x55));
        }
    }
}

impl Reader for Used<'_, '_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.inner.read(offset, buffer)
    }
}

impl Storage for Used<'_, '_> {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        self.use_them();
        self.inner.buffer(number)
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        self.use_them();
        self.inner.fill(number, offset, bytes)
    }
}

#[test]
fn settled_buffers_serve_something_else() {
    let model = quantized(Family::TiedLlama, Size::TINY, Preset::W8);
    // Of one piece, which both ends of a step read, and of many.
    for buffer in [Some(1 << 16), None] {
        let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, buffer)).bytes;
        let found = sizes(&mut &bytes[..], &mut [0; HEADER_BYTES]).expect("sizes");
        let (mut first, mut second) = (vec![0; found.buffer_bytes as usize], vec![0; found.buffer_bytes as usize]);
        let said = AtomicBool::new(false);
        let mut storage = Used { inner: TwoBuffers::new(&bytes[..], [&mut first, &mut second]), said: &said };
        let mut memory = SessionMemory::of_bytes(found.memory_bytes());
        let loaded = Streamed::open(&mut storage, memory.as_mut_slice(), &Software, Check::Structure).expect("opens");
        let view = *loaded.artifact();
        let (mut own, mut mapped_own) = (SessionMemory::for_artifact(&view), SessionMemory::for_artifact(&view));
        let mapped = ArtifactView::open(&bytes).expect("sound");
        let mut expected = Session::new(&mapped, best(view.layout()), mapped_own.as_mut_slice()).expect("a session");
        let mut session =
            Session::streamed(&loaded, best(view.layout()), &mut storage, own.as_mut_slice()).expect("fits");
        for token in tokens(&view) {
            let logits = expected.step(&[token]).expect("it runs");
            assert!(session.step(&[token]).as_deref() == Ok(logits), "token {token}");
            session.settle();
            said.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_page_that_states_any_length_is_refused() {
    let model = quantized(Family::TiedLlama, Size::TINY, Preset::W8);
    let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, None)).bytes;
    for length in [u64::MAX, u64::MAX - 63, 1 << 63, (1 << 62) + 1] {
        let mut page = bytes.clone();
        let mut header = Header::from_bytes(&page);
        (header.file_bytes, header.device_bytes) = (length, length);
        page[..Header::BYTES].copy_from_slice(&header.to_bytes());
        for number in 0..header.sections as usize {
            let at = SECTION_TABLE_OFFSET + number * SectionRecord::BYTES;
            let mut record = SectionRecord::from_bytes(&page[at..]);
            record.offset = HEADER_BYTES as u64;
            if [SectionKind::Functions, SectionKind::Weights].iter().any(|kind| *kind as u32 == record.kind) {
                record.bytes = 0;
            }
            page[at..at + SectionRecord::BYTES].copy_from_slice(&record.to_bytes());
        }
        let refused = sizes(&mut &page[..], &mut [0; HEADER_BYTES]);
        assert!(matches!(refused, Err(OpenError::Format(_))), "{length}: {refused:?}");
        for memory_bytes in [0, HEADER_BYTES as u64, 1 << 16] {
            let (mut first, mut second) = ([0; 4096], [0; 4096]);
            let mut storage = TwoBuffers::new(&page[..], [&mut first, &mut second]);
            let mut memory = SessionMemory::of_bytes(memory_bytes);
            assert!(Streamed::open(&mut storage, memory.as_mut_slice(), &Software, Check::Tensors).is_err());
        }
    }
}

/// A storage that turns bad after some reads.
struct Switched<'m, 'f> {
    inner: TwoBuffers<'m, &'f [u8]>,
    left: usize,
    bad: Bad,
}

impl Reader for Switched<'_, '_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.inner.read(offset, buffer)
    }
}

impl Storage for Switched<'_, '_> {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        self.inner.buffer(number)
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        let count = self.inner.fill(number, offset, bytes)?;
        if self.left > 0 {
            self.left -= 1;
            return Ok(count);
        }
        match self.bad {
            Bad::Short => Ok(count - 1),
            Bad::Fails => Err(Fault::Failed),
            Bad::Late => Err(Fault::Late),
            Bad::Wrong => {
                self.inner.buffer(number)[count / 2] ^= 4;
                Ok(count)
            }
        }
    }
}

#[test]
fn every_changed_byte_of_the_plan_is_refused_or_changes_nothing() {
    let model = quantized(Family::TiedLlama, Size::TINY, Preset::W8);
    let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, None)).bytes;
    let view = ArtifactView::open(&bytes).expect("sound");
    let section = view.section_records().find(|record| record.kind == SectionKind::Residency as u32).expect("there");
    let expected = mapped(&bytes);
    let mut refused = 0;
    for at in section.offset as usize..(section.offset + section.bytes) as usize {
        for pattern in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= pattern;
            // With the digest of a file that somebody made so.
            let end = view.header().device_bytes as usize;
            let digest = device_digest(&changed, &changed[HEADER_BYTES..end]);
            changed[DEVICE_DIGEST].copy_from_slice(&digest);
            match streamed(&changed, Check::Structure) {
                Err(_) => refused += 1,
                Ok(([blocking, ahead], _)) => assert!(blocking == expected && ahead == expected, "byte {at}"),
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn tables_in_two_parts_are_streamed() {
    for family in [Family::TiedLlama, Family::Llama] {
        let scheme = QuantScheme::Split { wide_rows: 64 };
        let model = with_tokens(quantized(family, Size::SMALL, Preset::W4), 136, scheme);
        let expected = mapped(&compiled_with(&model, &target(Layout::R4K4), None, AskedSections::default()).bytes);
        for resident in budgets(&model, &target(Layout::R4K4)) {
            let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(resident, None)).bytes;
            for check in [Check::Structure, Check::Tensors] {
                let ([blocking, ahead], _) = streamed(&bytes, check).expect("it streams");
                assert!(blocking == expected && ahead == expected, "{family:?} {resident:?} {check:?}");
            }
        }
    }
}

#[test]
fn too_little_memory_is_named() {
    let model = larger();
    let bytes = compiled_with(&model, &target(Layout::R4K4), None, asked(Resident::Least, None)).bytes;
    let found = sizes(&mut &bytes[..], &mut [0; HEADER_BYTES]).expect("sizes");
    let buffer = found.buffer_bytes as usize;
    let open = |memory_bytes: u64, buffer: usize| {
        let (mut first, mut second) = (vec![0; buffer], vec![0; buffer]);
        let mut storage = TwoBuffers::new(&bytes[..], [&mut first, &mut second]);
        let mut memory = SessionMemory::of_bytes(memory_bytes);
        let loaded = Streamed::open(&mut storage, memory.as_mut_slice(), &Software, Check::Structure)?;
        let mut own = SessionMemory::for_artifact(loaded.artifact());
        let kernels = best(loaded.artifact().layout());
        Ok(Session::streamed(&loaded, kernels, &mut storage, own.as_mut_slice()).map(|_| ()))
    };
    let needed = found.memory_bytes();
    assert_eq!(open(needed, buffer), Ok(Ok(())));
    assert_eq!(open(needed - 64, buffer), Err(OpenError::Memory { needed, given: needed - 64 }));
    let short = SessionError::Read(ReadError::Buffers { needed: buffer as u64, given: buffer as u64 - 64 });
    assert_eq!(open(needed, buffer - 64), Ok(Err(short)));
    // Nothing was planned.
    let plain = compiled_with(&model, &target(Layout::R4K4), None, AskedSections::default()).bytes;
    assert_eq!(sizes(&mut &plain[..], &mut [0; HEADER_BYTES]), Err(OpenError::NoPlan));
    assert!(ArtifactView::open(&bytes).expect("sound").spec().chunk as usize <= MAX_CHUNK);
}
