//! An artifact in slow storage (docs/streaming.md): whatever the bytes, opening by a reader gives an answer, and what opens is
//! run with the outputs of the same file in memory. The first byte of the input chooses what is checked and how the storage
//! behaves: the rest is the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::HEADER_BYTES;
use slm_runtime::kernels::best;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::session::{Session, SessionError};
use slm_runtime::sha256::Software;
use slm_runtime::streaming::{Check, Fault, Reader, Storage, Streamed, TwoBuffers, sizes};

/// Most memory of any kind.
const MEMORY: u64 = 1 << 20;

/// Zeroed bytes that start as the runtime wants them.
fn memory(length: usize) -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = vec![0; length + ALIGNMENT];
    let start = bytes.as_ptr().align_offset(ALIGNMENT);
    (bytes, start..start + length)
}

/// Reads ahead, and stops working after some reads.
struct Ahead<'f> {
    inner: TwoBuffers<'f, &'f [u8]>,
    begun: Option<(usize, u64, usize)>,
    left: u32,
}

impl Reader for Ahead<'_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.inner.read(offset, buffer)
    }
}

impl Storage for Ahead<'_> {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        self.inner.buffer(number)
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        assert!(self.begun.is_none(), "two reads at once");
        self.left = self.left.checked_sub(1).ok_or(Fault::Late)?;
        self.inner.fill(number, offset, bytes)
    }

    fn begin(&mut self, number: usize, offset: u64, bytes: usize) -> bool {
        assert!(self.begun.is_none(), "two reads at once");
        self.begun = Some((number, offset, bytes));
        true
    }

    fn finish(&mut self, number: usize) -> Result<usize, Fault> {
        let (begun, offset, bytes) = self.begun.take().expect("it was begun");
        assert_eq!(begun, number);
        self.fill(number, offset, bytes)
    }
}

fn outputs(session: &mut Session<'_, '_>, tokens: &[u32]) -> Result<Vec<u32>, SessionError> {
    let mut found = Vec::new();
    session.run(tokens, &mut |_, row| found.extend(row.iter().map(|value| value.to_bits())))?;
    Ok(found)
}

fuzz_target!(|input: &[u8]| {
    let Some((&way, file)) = input.split_first() else { return };
    let mut page = vec![0; HEADER_BYTES];
    let Ok(needed) = sizes(&mut &*file, &mut page) else { return };
    if needed.ram_bytes() > MEMORY {
        return;
    }
    let check = if way & 1 == 0 { Check::Structure } else { Check::Tensors };
    let (mut bytes, range) = memory(needed.memory_bytes() as usize);
    let (mut first, mut second) = (vec![0; needed.buffer_bytes as usize], vec![0; needed.buffer_bytes as usize]);
    let inner = TwoBuffers::new(file, [&mut first, &mut second]);
    let mut storage = Ahead { inner, begun: None, left: u32::MAX };
    let Ok(streamed) = Streamed::open(&mut storage, &mut bytes[range], &Software, check) else { return };
    let verified = streamed.verify(&mut storage).is_ok();
    let view = *streamed.artifact();
    if Session::required_bytes(&view) > MEMORY {
        return;
    }
    let last = view.spec().vocabulary - 1;
    let tokens: Vec<u32> =
        (0..view.spec().context.min(5)).map(|index| [0, last, last / 2][index as usize % 3]).collect();
    let (mut own, range) = memory(Session::required_bytes(&view) as usize);
    storage.left = if way & 2 == 0 { u32::MAX } else { u32::from(way >> 2) };
    let Ok(mut session) = Session::streamed(&streamed, best(view.layout()), &mut storage, &mut own[range]) else {
        return;
    };
    let found = outputs(&mut session, &tokens);
    drop(session);
    assert!(storage.begun.is_none(), "a session leaves no read behind");
    // The same file in memory, where it opens there: it may end before its host part.
    let Ok(whole) = ArtifactView::open(file) else { return };
    let (mut own, range) = memory(Session::required_bytes(&whole) as usize);
    let Ok(mut session) = Session::new(&whole, best(whole.layout()), &mut own[range]) else { return };
    let expected = outputs(&mut session, &tokens);
    if verified && way & 2 == 0 {
        assert_eq!(found, expected);
    }
});
