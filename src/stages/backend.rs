//! The backend of a stage that trains: a device of this machine, or workers for the steps of the training.

use crate::model::device::Backend;
use crate::shell::Shell;
use crate::stages::numerics::{Foreign, WORKERS};
use crate::workers::TrainingDevices;
use crate::workers::error::WorkerError;

/// Checked options of a stage that trains, with its backend.
pub struct OnTrainingBackend<O> {
    /// The options.
    pub options: O,
    /// Where it computes.
    pub backend: Backend,
}

impl<O> OnTrainingBackend<O> {
    /// Opens the connections to workers, where there are some: before the work, so that one that is not there is said at once.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn connect(&self, shell: &Shell) -> Result<TrainingDevices, WorkerError> {
        connect(&self.backend, shell)
    }
}

/// The devices of a backend.
///
/// # Errors
/// [`WorkerError`].
pub fn connect(backend: &Backend, shell: &Shell) -> Result<TrainingDevices, WorkerError> {
    TrainingDevices::connect(backend, &|address| shell.status("Connecting", format_args!("to worker {address}")))
}

/// Training as a part of the work whose operations are not slmc's own: that on workers.
pub fn on_workers(backend: &Backend) -> Option<Foreign> {
    backend.workers().map(|_| WORKERS)
}

/// The same, of devices that are there.
pub fn by_workers(devices: &TrainingDevices) -> Option<Foreign> {
    devices.workers.as_ref().map(|_| WORKERS)
}
