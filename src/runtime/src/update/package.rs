//! The `.slmu` package: a head of 64 bytes, the priors of op 3, the new header page, the new chunk list, and one record for
//! every leaf in the order of [`super::geometry::Geometry::order`]. docs/update.md states it. The package is not signed: the
//! new page's signature and the leaves' digests decide.

use super::contexts::Contexts;
use super::error::UpdateError;
use super::geometry::MAX_LEAVES;
use crate::format::header::HEADER_BYTES;
use crate::format::record::record;
use crate::sha256::Digest;

/// First bytes of every package.
pub const MAGIC: [u8; 8] = *b"SLMU\r\n\x1a\n";
/// The only version.
pub const VERSION: u32 = 1;

record! {
    /// The head of a package.
    Head: 64 bytes {
        /// [`MAGIC`]
        magic: [u8; 8],
        /// [`VERSION`]
        version: u32,
        /// Leaves of the new artifact, and so records.
        leaves: u32,
        /// Length of the whole package.
        package_bytes: u64,
        /// log2 of a leaf's bytes: that of the new header page.
        chunk_shift: u8,
        /// Zero.
        reserved: [u8; 3],
        /// Length of the priors: two bytes for each context, or 0 where all are even.
        prior_bytes: u32,
        /// `device_digest` of the artifact that the package changes.
        base: Digest,
    }
}

record! {
    /// The start of a record; its data follow.
    RecordHead: 9 bytes {
        /// An [`Op`].
        op: u8,
        /// The leaf of the base that it begins from; 0 where it begins from nothing.
        old: u32,
        /// Length of the data.
        bytes: u32,
    }
}

/// How a leaf is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A leaf of the base, unchanged; no data.
    Copy = 0,
    /// The data.
    Raw = 1,
    /// A leaf of the base of the same length, and for every eight bytes of it a byte whose bits say which of them changed, the
    /// lowest first, followed by what these became.
    Bitmap = 2,
    /// A leaf of the base and coded differences: [`super::delta`].
    Delta = 3,
}

impl Op {
    /// Every op, by number.
    pub const ALL: [Op; 4] = [Op::Copy, Op::Raw, Op::Bitmap, Op::Delta];

    /// From the byte of a record.
    pub fn from_number(number: u8) -> Option<Op> {
        Op::ALL.into_iter().find(|op| *op as u8 == number)
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Copy => "copy",
            Op::Raw => "raw",
            Op::Bitmap => "bitmap",
            Op::Delta => "delta",
        }
    }
}

impl Head {
    /// Reads the head of a package of `bytes` bytes.
    pub fn read(start: &[u8; Head::BYTES], bytes: u64) -> Result<Head, UpdateError> {
        let head = Head::from_bytes(start);
        if head.magic != MAGIC {
            return Err(UpdateError::NotAPackage);
        }
        if head.version != VERSION {
            return Err(UpdateError::Version(head.version));
        }
        if head.package_bytes != bytes {
            return Err(UpdateError::Length { expected: head.package_bytes, actual: bytes });
        }
        let require = |holds: bool, field| if holds { Ok(()) } else { Err(UpdateError::Package(field)) };
        require(head.leaves <= MAX_LEAVES, "`leaves`")?;
        require(head.reserved == [0; 3], "`reserved`")?;
        require(head.prior_bytes == 0 || head.prior_bytes as usize == Contexts::BYTES, "`prior_bytes`")?;
        require(head.records_start() <= bytes, "`leaves`")?;
        Ok(head)
    }

    /// Where the header page lies.
    pub fn page_start(&self) -> u64 {
        Head::BYTES as u64 + u64::from(self.prior_bytes)
    }

    /// Where the chunk list lies.
    pub fn list_start(&self) -> u64 {
        self.page_start() + HEADER_BYTES as u64
    }

    /// Where the records begin.
    pub fn records_start(&self) -> u64 {
        self.list_start() + u64::from(self.leaves) * size_of::<Digest>() as u64
    }
}
