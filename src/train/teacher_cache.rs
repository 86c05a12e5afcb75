//! A teacher's answers on disk: for every row of every sample that was met, ids drawn from its distribution and the entropy, so
//! that later runs on the same samples (more passes, other seeds, other students, stages after distillation) need no
//! teacher. The estimate of the divergence and its gradient is unbiased (sparse logit sampling, 2503.16870).
//!
//! ```text
//! file    magic, length of the header (u32), header (JSON: what the answers belong to), a byte a sample (1: there),
//!         rows sample after sample
//! row     ids, little endian (u16 up to 65,536 tokens, else u32), ascending; entropy (f32)
//! ```
//!
//! A sample's byte is written once its rows are on the disk, so a run that is killed leaves nothing that is wrong. Draws follow from
//! seed, sample and row alone: whatever run comes to a sample first writes the same bytes.

use super::data::Samples;
use super::error::TrainError;
use super::fused::answers_of;
use super::trainer::Teacher;
use crate::disk::hash::{hex, sha256};
use crate::model::spec::ModelSpec;
use crate::progress::Progress;
use serde_json::{Value, json};
use slm_fused::head::SampledRows;
use slm_runtime::sample::random_u64;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// First bytes of the file.
const MAGIC: &[u8; 16] = b"slmc.teacher/1\n\0";
/// Samples that the teacher reads together.
const BATCH: usize = 4;
/// Batches between two moments at which what was written is made to last.
const SYNC_EVERY: usize = 64;

/// Why a file of answers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TeacherCacheError {
    /// Something else is there.
    #[error("{}: is no file of a teacher's answers; give --teacher-cache another path", path.display())]
    NotAnswers {
        /// The file.
        path: PathBuf,
    },
    /// The answers are of something else.
    #[error(
        "{}: holds answers for another {what} ({found}, this run has {expected}); give --teacher-cache another path, or \
         remove the file",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Key of the header.
        what: String,
        /// There.
        found: String,
        /// What the run has.
        expected: String,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}; check permissions and free space", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A sample whose rows differ from step to step.
    #[error(
        "--teacher-cache keeps answers for text as it is, and --task mlm hides other tokens every time; leave it out"
    )]
    Masked,
}

/// What answers belong to.
#[derive(Clone, Debug)]
pub struct CacheIdentity {
    /// SHA-256 of every teacher with its part.
    pub teachers: Vec<(String, f64)>,
    /// Tokens that are compared.
    pub vocabulary: usize,
    /// Temperature of the distributions.
    pub temperature: f64,
    /// Ids of a row.
    pub draws: usize,
}

/// An open file of answers.
pub struct TeacherCache {
    path: PathBuf,
    file: Mutex<File>,
    draws: usize,
    wide: bool,
    /// Where each sample's first row stands, in rows, and the number of all.
    first_rows: Vec<u64>,
    /// Where the bytes of samples stand.
    table: u64,
}

fn is_wide(vocabulary: usize) -> bool {
    vocabulary > 1 << 16
}

fn row_bytes(draws: usize, wide: bool) -> u64 {
    draws as u64 * if wide { 4 } else { 2 } + 4
}

impl TeacherCache {
    /// Opens the file of answers for samples, or begins it.
    ///
    /// # Errors
    /// [`TeacherCacheError`].
    pub fn open(
        path: &Path,
        samples: &Samples,
        spec: &ModelSpec,
        identity: &CacheIdentity,
    ) -> Result<Self, TeacherCacheError> {
        if matches!(samples, Samples::Masked { .. }) {
            return Err(TeacherCacheError::Masked);
        }
        let io = |source| TeacherCacheError::Io { path: path.to_owned(), source };
        let header = json!({
            "teachers": identity.teachers,
            "vocabulary": identity.vocabulary,
            "temperature": identity.temperature,
            "draws": identity.draws,
            "samples": samples.len(),
            "data": data_sha256(samples),
        });
        let text = header.to_string();
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        // Two runs may fill one file; each waits for the other's samples.
        file.lock().map_err(io)?;
        let mut first_rows = vec![0];
        for sample in 0..samples.len() {
            first_rows.push(first_rows[sample] + samples.rows_of(sample, spec) as u64);
        }
        let table = (MAGIC.len() + 4 + text.len()) as u64;
        let wide = is_wide(identity.vocabulary);
        let rows = first_rows.last().copied().unwrap_or(0);
        let length = table + samples.len() as u64 + rows * row_bytes(identity.draws, wide);
        if file.metadata().map_err(io)?.len() == 0 {
            let mut head = MAGIC.to_vec();
            head.extend((text.len() as u32).to_le_bytes());
            head.extend(text.as_bytes());
            file.write_all(&head).map_err(io)?;
            file.set_len(length).map_err(io)?;
        } else {
            check_header(path, &mut file, &header)?;
            let found = file.metadata().map_err(io)?.len();
            if found == table {
                file.set_len(length).map_err(io)?;
            } else if found != length {
                return Err(TeacherCacheError::NotAnswers { path: path.to_owned() });
            }
        }
        Ok(TeacherCache {
            path: path.to_owned(),
            file: Mutex::new(file),
            draws: identity.draws,
            wide,
            first_rows,
            table,
        })
    }

    fn error(&self, source: io::Error) -> TeacherCacheError {
        TeacherCacheError::Io { path: self.path.clone(), source }
    }

    /// Those of these samples that the file lacks.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn missing(&self, samples: &[usize]) -> Result<Vec<usize>, TeacherCacheError> {
        let mut there = vec![0; self.first_rows.len() - 1];
        self.read(self.table, &mut there)?;
        Ok(samples.iter().copied().filter(|&sample| there[sample] != 1).collect())
    }

    fn read(&self, place: u64, into: &mut [u8]) -> Result<(), TeacherCacheError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(into)).map_err(|source| self.error(source))
    }

    fn write(&self, place: u64, bytes: &[u8]) -> Result<(), TeacherCacheError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(bytes)).map_err(|source| self.error(source))
    }

    fn place(&self, sample: usize) -> u64 {
        let table = (self.first_rows.len() - 1) as u64;
        self.table + table + self.first_rows[sample] * row_bytes(self.draws, self.wide)
    }

    /// The answers for some samples, one after the other.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn rows(&self, samples: &[usize]) -> Result<SampledRows, TeacherCacheError> {
        let mut all = SampledRows { draws: self.draws, ..SampledRows::default() };
        let size = row_bytes(self.draws, self.wide) as usize;
        for &sample in samples {
            let rows = (self.first_rows[sample + 1] - self.first_rows[sample]) as usize;
            let mut bytes = vec![0; rows * size];
            self.read(self.place(sample), &mut bytes)?;
            for row in bytes.chunks_exact(size) {
                let (ids, entropy) = row.split_at(size - 4);
                if self.wide {
                    all.ids.extend(ids.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)));
                } else {
                    all.ids.extend(ids.as_chunks::<2>().0.iter().map(|id| u32::from(u16::from_le_bytes(*id))));
                }
                all.entropies.extend(entropy.as_chunks::<4>().0.iter().map(|entropy| f32::from_le_bytes(*entropy)));
            }
        }
        Ok(all)
    }

    /// Lets the teachers answer for samples that are missing.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn fill(
        &self,
        (samples, spec): (&Samples, &ModelSpec),
        teachers: &[Teacher<'_>],
        (missing, shared, temperature): (&[usize], Option<usize>, f64),
        progress: &dyn Progress,
    ) -> Result<(), TrainError> {
        let bytes = missing.iter().map(|&sample| self.first_rows[sample + 1] - self.first_rows[sample]).sum::<u64>();
        let bytes = bytes * row_bytes(self.draws, self.wide);
        let what = format!("asking the teacher, {bytes} bytes of {}", self.path.display());
        progress.begin(&what, missing.len() as u64, "samples");
        for (number, batch) in missing.chunks(BATCH * SYNC_EVERY).enumerate() {
            for batch in batch.chunks(BATCH) {
                let piece = samples.piece_of(spec, batch)?;
                let mut uniforms = Vec::with_capacity(piece.rows.len());
                for &sample in batch {
                    let rows = samples.rows_of(sample, spec) as u64;
                    let draw = |row| (random_u64(sample as u64, row) >> 11) as f64 / (1u64 << 53) as f64;
                    uniforms.extend((0..rows).map(draw));
                }
                let drawn = answers_of(teachers, &piece, (shared, temperature, self.draws), &uniforms)?;
                let mut row = 0;
                for &sample in batch {
                    let rows = (self.first_rows[sample + 1] - self.first_rows[sample]) as usize;
                    self.write(self.place(sample), &self.bytes(&drawn, row, rows)).map_err(TrainError::from)?;
                    row += rows;
                }
                progress.advance(batch.len() as u64);
            }
            self.sync()?;
            for &sample in batch {
                self.write(self.table + sample as u64, &[1])?;
            }
            self.sync()?;
            progress.saved((number + 1) as u64);
        }
        progress.finish();
        Ok(())
    }

    fn sync(&self) -> Result<(), TeacherCacheError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync_data().map_err(|source| self.error(source))
    }

    /// Some rows as they are stored.
    fn bytes(&self, drawn: &SampledRows, first: usize, rows: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows * row_bytes(self.draws, self.wide) as usize);
        for row in first..first + rows {
            for id in &drawn.ids[row * self.draws..][..self.draws] {
                match self.wide {
                    true => out.extend(id.to_le_bytes()),
                    false => out.extend((*id as u16).to_le_bytes()),
                }
            }
            out.extend(drawn.entropies[row].to_le_bytes());
        }
        out
    }
}

/// Refuses a header of something else.
fn check_header(path: &Path, file: &mut File, expected: &Value) -> Result<(), TeacherCacheError> {
    let io = |source| TeacherCacheError::Io { path: path.to_owned(), source };
    let other = || TeacherCacheError::NotAnswers { path: path.to_owned() };
    let mut head = [0; MAGIC.len() + 4];
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.read_exact(&mut head).map_err(|_| other())?;
    let (magic, length) = head.split_at(MAGIC.len());
    let length = length.as_chunks::<4>().0.first().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
    if magic != MAGIC || length > 1 << 20 {
        return Err(other());
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(|_| other())?;
    let found: Value = serde_json::from_slice(&text).map_err(|_| other())?;
    let keys = expected.as_object().into_iter().flatten();
    for (key, value) in keys {
        if &found[key] != value {
            let (what, found, expected) = (key.clone(), found[key].to_string(), value.to_string());
            return Err(TeacherCacheError::Other { path: path.to_owned(), what, found, expected });
        }
    }
    Ok(())
}

/// SHA-256 of all tokens with what is predicted.
fn data_sha256(samples: &Samples) -> String {
    let mut bytes = Vec::new();
    for sample in 0..samples.len() {
        bytes.extend(sha256(&samples.bytes_of(sample)));
    }
    hex(&sha256(&bytes))
}
