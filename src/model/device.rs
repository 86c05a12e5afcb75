//! Where tensors of the f32 forward live: burn's device, by the name of its backend. The device that an artifact is for
//! is another thing, a `Target`.

use burn::tensor::Device;

/// Backends of this build, the default first.
pub const BACKENDS: [&str; 2] = ["flex", "ndarray"];

/// A name that no backend of this build has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown backend `{0}`; this build has flex, ndarray")]
pub struct UnknownBackend(pub String);

/// The device of the backend of that name: `flex` is the fast one, `ndarray` an independent second opinion.
pub fn device(name: &str) -> Result<Device, UnknownBackend> {
    match name {
        "flex" => Ok(Device::flex()),
        "ndarray" => Ok(ndarray()),
        _ => Err(UnknownBackend(name.to_owned())),
    }
}

#[expect(deprecated, reason = "kept as the second backend that tests compare flex with")]
fn ndarray() -> Device {
    Device::ndarray()
}
