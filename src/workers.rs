//! More than one machine for one training: processes that compute what a client asks, by burn's remote backend. The client
//! keeps parameters, optimizer, data and order; a worker has operations and tensors, and forgets both when its client goes.
//!
//! ```text
//! slmc train --backend remote:a:3000,b:3000          slmc worker --listen …    (on a, and on b)
//!   weights, tokens ── operations ──────────────────>  flex, plain operations
//!   gradients <── values ────────────────────────────
//! ```
//!
//! Piece p of a step goes to the (p mod n)th of the n workers that are there; what a lost worker had is computed by the others
//! ([`pool`]). Bits depend on the class of a machine's vectors, so client and workers have one class, one version and one
//! backend, asked before anything is computed ([`identity`]). Connections and the server need the cargo feature `workers`;
//! the rest is in every build.

#[cfg(feature = "workers")]
mod client;
pub mod error;
pub mod identity;
pub mod pool;
#[cfg(feature = "workers")]
pub mod server;

use crate::model::device::Backend;
use burn::tensor::Device;
use error::WorkerError;
use pool::Workers;
use std::fmt;

/// Where a training computes: its steps on workers where there are some, everything else on a device of this machine.
#[derive(Debug)]
pub struct TrainingDevices {
    /// The device of this machine.
    pub device: Device,
    /// The workers.
    pub workers: Option<Workers>,
}

impl TrainingDevices {
    /// A device of this machine for everything.
    pub fn local(device: Device) -> Self {
        TrainingDevices { device, workers: None }
    }

    /// The device of a backend, or connections to its workers; `connecting` is told each address before.
    ///
    /// # Errors
    /// [`WorkerError`]: a worker that cannot be reached, refuses the token, or is another than this program.
    pub fn connect(backend: &Backend, connecting: &dyn Fn(&str)) -> Result<Self, WorkerError> {
        let workers = match backend {
            Backend::Device(_) => None,
            #[cfg(feature = "workers")]
            Backend::Remote(addresses) => Some(client::connect(addresses, connecting)?),
            #[cfg(not(feature = "workers"))]
            Backend::Remote(_) => {
                let _ = connecting;
                return Err(WorkerError::NotBuilt);
            }
        };
        Ok(TrainingDevices { device: backend.device(), workers })
    }

    /// What of it decides a result, beside the class of the machine: the device, or that there are workers.
    pub fn kind(&self) -> Kind<'_> {
        Kind(self)
    }
}

/// The kind of a training's devices, as the fingerprints of checkpoints have it.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'k>(&'k TrainingDevices);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.workers {
            Some(_) => f.write_str(crate::model::device::REMOTE),
            None => write!(f, "{:?}", self.0.device),
        }
    }
}
