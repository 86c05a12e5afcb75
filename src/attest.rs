//! What is said about a finished artifact, for others to check: how it was made (SLSA provenance 1.0), which gates it passed
//! (in-toto test result 0.1), what it is made of (CycloneDX 1.6). All of it comes from the provenance that the artifact
//! carries and from the result of its run; what neither says is named as missing.
//!
//! ```text
//! FILE.slm ── subject: SHA-256, device part ─┐
//!   its provenance ── record: stages, inputs ├─> provenance, gates ──> FILE.provenance.sigstore.json, FILE.tests.sigstore.json
//! result of the run ── results: gates ───────┘                         both in FILE.intoto.jsonl
//!                                            └─> cyclonedx ──────────> FILE.cdx.json
//! ```
//!
//! Neither CPU features, threads, paths of this machine nor the time are in it, so the same artifact attested twice by the
//! same key gives the same bytes. docs/attest.md describes every field.

mod cyclonedx;
mod error;
mod gates;
mod provenance;
mod record;
mod results;
mod sbom;
mod subject;
mod write;

pub use error::AttestError;
pub use provenance::Builder;
pub use results::Results;
pub use sbom::{SbomOptions, SbomReport, sbom};
pub use subject::Subject;
pub use write::{AttestOptions, AttestReport, attest, check_key};
