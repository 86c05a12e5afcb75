//! The two buffers of a session: which pieces of the weights section they hold, which is read next, and the digests of what
//! was read. A piece is named by its bytes in the weights section; of a file with a chunk list a buffer holds all leaves
//! that a piece is in.

use super::read::all_came;
use super::{Check, Fault, ReadError, Storage};
use crate::format::artifact::{ArtifactView, Matrix};
#[cfg(any(test, feature = "signed"))]
use crate::format::chunks::{ChunkList, Leaves};
use crate::format::header::SectionKind;
use crate::format::residency::Residency;
#[cfg(any(test, feature = "signed"))]
use crate::format::tree::leaf_digest;
use crate::layout::{Layout, Storage as Coding, TileShape};
use crate::sha256::{Engine, Sha256};
use core::ops::Range;

/// What a session has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Reads, those that were begun ahead included.
    pub reads: u64,
    /// Of these, those that were begun ahead and then used.
    pub ahead: u64,
    /// Bytes begun ahead that were not the ones needed next.
    pub missed_bytes: u64,
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Being filled.
    Coming {
        start: u64,
        end: u64,
    },
    /// Filled, and its digests hold.
    There {
        start: u64,
        end: u64,
    },
}

/// What to read ahead after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// What follows in the artifact's order.
    InOrder,
    /// These tiles of the same matrix.
    Tiles { start: usize, end: usize },
    /// What follows the matrix in the artifact's order.
    AfterTensor,
    /// Nothing.
    Nothing,
}

/// A streamed matrix: the tiles that it numbers from 0, and where tile 0 is, or would be, in the weights section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The record of its tensor.
    pub(crate) record: usize,
    /// Where tile 0 is in the weights section.
    pub(crate) base: u64,
}

/// The buffers of a session.
pub(crate) struct Pieces<'m> {
    storage: &'m mut dyn Storage,
    #[cfg(any(test, feature = "signed"))]
    engine: &'m (dyn Engine + Sync),
    check: Check,
    /// Bytes of a buffer that are used.
    capacity: u64,
    /// The weights section in the file.
    weights: Range<u64>,
    /// log2 of a leaf's bytes; 0: none.
    leaf_shift: u8,
    held: [Held; 2],
    /// Bytes of what was begun ahead and has not been used yet.
    unused: [u64; 2],
    /// The buffer that the last piece is in.
    current: usize,
    /// A tensor of which all pieces up to an offset of the weights section have been hashed.
    hashed: Option<(usize, Sha256, u64)>,
    failed: bool,
    traffic: Traffic,
}

impl<'m> Pieces<'m> {
    pub(crate) fn new(
        view: &ArtifactView<'_>,
        residency: &Residency<'_>,
        storage: &'m mut dyn Storage,
        engine: &'m (dyn Engine + Sync),
        check: Check,
    ) -> Result<Self, ReadError> {
        let capacity = u64::from(residency.record.buffer_bytes);
        let given = [0, 1].map(|number| storage.buffer(number).len() as u64);
        let given = given[0].min(given[1]);
        if given < capacity {
            return Err(ReadError::Buffers { needed: capacity, given });
        }
        // Leaves alone have digests of hardware: a running hash is this crate's.
        #[cfg(not(any(test, feature = "signed")))]
        let _ = engine;
        let record = view.section_records().find(|record| record.kind == SectionKind::Weights as u32);
        let weights = record.map_or(0..0, |record| record.offset..record.offset + record.bytes);
        Ok(Pieces {
            storage,
            #[cfg(any(test, feature = "signed"))]
            engine,
            check,
            capacity,
            weights,
            leaf_shift: view.header().chunk_shift,
            held: [Held::Nothing; 2],
            unused: [0; 2],
            current: 0,
            hashed: None,
            failed: false,
            traffic: Traffic::default(),
        })
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether the sequence may go on.
    pub(crate) fn check_whole(&self) -> Result<(), ReadError> {
        if self.failed { Err(ReadError::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn check(&self) -> Check {
        self.check
    }

    /// Waits for what is being read, and holds nothing afterwards: the buffers may be used for something else, and what was
    /// in them is read again when it is needed.
    pub(crate) fn settle(&mut self) {
        for number in 0..2 {
            if matches!(self.held[number], Held::Coming { .. }) {
                let _ = self.storage.finish(number);
            }
            self.held[number] = Held::Nothing;
        }
    }

    /// A new sequence.
    pub(crate) fn forget(&mut self) {
        self.failed = false;
    }

    /// As many of some tiles of a matrix as a buffer takes, from the first; at least one.
    pub(crate) fn tiles(&self, matrix: &TileShape, source: &Source, tiles: Range<usize>) -> Range<usize> {
        let stride = matrix.stride as u64;
        let start = source.base + tiles.start as u64 * stride;
        let end = match self.leaf_shift {
            0 => start + self.capacity,
            shift => (start >> shift << shift) + (self.capacity >> shift << shift),
        };
        let count = (end.saturating_sub(start) / stride).max(1);
        tiles.start..tiles.end.min(tiles.start.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// Brings tiles of a matrix, as [`Pieces::tiles`] gives them, into a buffer, and begins to read what comes next into
    /// the other. `whole` says that all tiles of the tensor are read in turn, so that its digest can be computed.
    pub(crate) fn bring(
        &mut self,
        view: &ArtifactView<'_>,
        matrix: &TileShape,
        source: &Source,
        tiles: Range<usize>,
        (next, whole): (Next, bool),
    ) -> Result<&[u8], ReadError> {
        let found = self.bring_into(view, matrix, source, tiles, next, whole);
        if found.is_err() {
            self.failed = true;
            // What is held may be part of what was wrong.
            self.held
                .iter_mut()
                .filter(|held| matches!(held, Held::There { .. }))
                .for_each(|held| *held = Held::Nothing);
        }
        let bytes = found?;
        self.storage.buffer(self.current).get(bytes).ok_or(ReadError::Interrupted)
    }

    #[inline(never)]
    fn bring_into(
        &mut self,
        view: &ArtifactView<'_>,
        matrix: &TileShape,
        source: &Source,
        tiles: Range<usize>,
        next: Next,
        whole: bool,
    ) -> Result<Range<usize>, ReadError> {
        let piece = self.bytes_of(matrix, source, &tiles);
        let cover = self.cover(&piece);
        self.current = self.find(view, &cover)?;
        let within = (piece.start - cover.start) as usize..(piece.end - cover.start) as usize;
        if whole && self.check == Check::Tensors {
            self.hash(view, source.record, &piece, within.clone())?;
        }
        let ahead = match next {
            Next::Nothing => None,
            Next::Tiles { start, end } => Some(self.bytes_of(matrix, source, &self.tiles(matrix, source, start..end))),
            Next::InOrder => self.following(view, source.record, piece.end),
            Next::AfterTensor => {
                let tensor = view.tensor_record(source.record);
                self.following(view, source.record, tensor.offset + tensor.bytes)
            }
        };
        if let Some(ahead) = ahead {
            self.begin(&self.cover(&ahead));
        }
        Ok(within)
    }

    fn bytes_of(&self, matrix: &TileShape, source: &Source, tiles: &Range<usize>) -> Range<u64> {
        let stride = matrix.stride as u64;
        source.base + tiles.start as u64 * stride..source.base + tiles.end as u64 * stride
    }

    /// The bytes that must be read for a piece: its leaves as a whole.
    fn cover(&self, piece: &Range<u64>) -> Range<u64> {
        match self.leaf_shift {
            0 => piece.clone(),
            shift => {
                let end = piece.end.div_ceil(1 << shift) << shift;
                piece.start >> shift << shift..end.min(self.weights.end - self.weights.start)
            }
        }
    }

    /// The piece that follows in the artifact's order one of a tensor that ends at an offset of the weights section.
    fn following(&self, view: &ArtifactView<'_>, record: usize, end: u64) -> Option<Range<u64>> {
        let whole = |record: usize| {
            let tensor = view.tensor_record(record);
            let storage = Coding::from_id(tensor.storage).zip(Layout::from_id(tensor.layout));
            let shape = storage
                .and_then(|(s, layout)| TileShape::new(s, layout, tensor.rows as usize, tensor.columns as usize));
            shape.map(|shape| (shape, tensor.offset))
        };
        let (shape, offset) = whole(record)?;
        let done = usize::try_from((end - offset) / shape.stride as u64).ok()?;
        let (record, shape, offset, first) = if done < shape.tiles {
            (record, shape, offset, done)
        } else {
            let record = view.residency()?.after(record)?;
            let (shape, offset) = whole(record)?;
            (record, shape, offset, 0)
        };
        let source = Source { record, base: offset };
        Some(self.bytes_of(&shape, &source, &self.tiles(&shape, &source, first..shape.tiles)))
    }

    /// The buffer with some bytes, which are read into the one that was used last unless they are there or on their way.
    fn find(&mut self, view: &ArtifactView<'_>, cover: &Range<u64>) -> Result<usize, ReadError> {
        let (start, end) = (cover.start, cover.end);
        if let Some(number) = self.held.iter().position(|&held| held == Held::There { start, end }) {
            self.note_use(number);
            return Ok(number);
        }
        let coming = self.held.iter().position(|held| matches!(held, Held::Coming { .. }));
        if let Some(number) = coming {
            let wanted = self.held[number] == Held::Coming { start, end };
            let came = core::mem::replace(&mut self.held[number], Held::Nothing);
            let got = self.storage.finish(number);
            if wanted {
                self.note_use(number);
                self.accept(view, number, cover, got)?;
                return Ok(number);
            }
            if let Held::Coming { start, end } = came {
                // It may be what is needed after this. What did not come is read again then, and named.
                if got == Ok((end - start) as usize) && self.check_leaves(view, number, &(start..end)).is_ok() {
                    self.held[number] = Held::There { start, end };
                }
            }
        }
        let number = self.current;
        self.held[number] = Held::Nothing;
        self.note_missed(number);
        self.traffic.reads += 1;
        self.traffic.bytes += end - start;
        let got = self.storage.fill(number, self.weights.start + start, (end - start) as usize);
        self.accept(view, number, cover, got)?;
        Ok(number)
    }

    /// Checks what came.
    fn accept(
        &mut self,
        view: &ArtifactView<'_>,
        number: usize,
        cover: &Range<u64>,
        got: Result<usize, Fault>,
    ) -> Result<(), ReadError> {
        let (offset, expected) = (self.weights.start + cover.start, cover.end - cover.start);
        all_came(got, offset, expected)?;
        self.check_leaves(view, number, cover)?;
        self.held[number] = Held::There { start: cover.start, end: cover.end };
        Ok(())
    }

    /// Compares the leaves in a buffer with the chunk list; what is not right is overwritten.
    #[cfg(any(test, feature = "signed"))]
    fn check_leaves(&mut self, view: &ArtifactView<'_>, number: usize, cover: &Range<u64>) -> Result<(), ReadError> {
        if self.leaf_shift == 0 {
            return Ok(());
        }
        let list = view.section(SectionKind::Chunks).map(ChunkList::new);
        let leaves = Leaves::of(view.bytes(), view.header()).of_section(SectionKind::Weights as u32);
        let first = leaves.start + (cover.start >> self.leaf_shift);
        let bytes = self.storage.buffer(number);
        let bytes = bytes.get_mut(..(cover.end - cover.start) as usize).ok_or(ReadError::Interrupted)?;
        for (leaf, part) in (first..).zip(bytes.chunks(1 << self.leaf_shift)) {
            let stated = list.and_then(|list| list.get(leaf));
            if stated != Some(&leaf_digest(self.engine, part)) {
                bytes.fill(0);
                return Err(ReadError::Leaf { leaf });
            }
        }
        Ok(())
    }

    /// Files with a chunk list are refused by a build without the feature `signed`.
    #[cfg(not(any(test, feature = "signed")))]
    fn check_leaves(&mut self, _: &ArtifactView<'_>, _: usize, _: &Range<u64>) -> Result<(), ReadError> {
        Ok(())
    }

    /// Begins to read into the buffer that is not in use.
    fn begin(&mut self, cover: &Range<u64>) {
        let number = 1 - self.current;
        let (start, end) = (cover.start, cover.end);
        let there = |held: &Held| *held == Held::There { start, end };
        if matches!(self.held[number], Held::Coming { .. }) || self.held.iter().any(there) {
            return;
        }
        if self.storage.begin(number, self.weights.start + start, (end - start) as usize) {
            self.note_missed(number);
            self.traffic.reads += 1;
            self.traffic.bytes += end - start;
            self.held[number] = Held::Coming { start, end };
            self.unused[number] = end - start;
        }
    }

    fn note_use(&mut self, number: usize) {
        self.traffic.ahead += u64::from(core::mem::take(&mut self.unused[number]) > 0);
    }

    /// Something else goes into a buffer.
    fn note_missed(&mut self, number: usize) {
        self.traffic.missed_bytes += core::mem::take(&mut self.unused[number]);
    }

    /// Hashes a piece of a tensor, and compares the digest after the last one.
    fn hash(
        &mut self,
        view: &ArtifactView<'_>,
        record: usize,
        piece: &Range<u64>,
        within: Range<usize>,
    ) -> Result<(), ReadError> {
        let tensor = view.tensor_record(record);
        if piece.start == tensor.offset {
            self.hashed = Some((record, Sha256::new(), piece.start));
        }
        let wrong = || view.tensor_key(record).map_or(ReadError::Interrupted, ReadError::Tensor);
        let bytes = self.storage.buffer(self.current).get(within).ok_or(ReadError::Interrupted)?;
        let Some((of, hash, end)) = self.hashed.as_mut().filter(|(of, _, end)| (*of, *end) == (record, piece.start))
        else {
            return Err(wrong());
        };
        hash.update(bytes);
        *end = piece.end;
        if *of == record && piece.end == tensor.offset + tensor.bytes {
            let digest = self.hashed.take().map(|(_, hash, _)| hash.finish());
            if digest != Some(tensor.digest) {
                return Err(wrong());
            }
        }
        Ok(())
    }
}

impl Drop for Pieces<'_> {
    /// Nothing is being filled when the storage is the caller's again.
    fn drop(&mut self) {
        self.settle();
    }
}

/// The tiles of a piece as a matrix of its own.
pub(crate) fn part<'b>(matrix: &Matrix<'_>, tiles: &Range<usize>, bytes: &'b [u8]) -> Matrix<'b> {
    let shape = TileShape { tiles: tiles.len(), ..matrix.shape };
    Matrix { bytes, shape, rows: matrix.rows_of(tiles).len(), columns: matrix.columns, width: matrix.width }
}
