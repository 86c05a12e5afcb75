//! Where tensors of the f32 forward live: burn's device, by the name of its backend. The device that an artifact is for
//! is another thing, a `Target`.

use super::error::NameError;
use burn::tensor::Device;

/// Backends of this build, the default first.
pub const BACKENDS: [&str; 2] = ["flex", "ndarray"];

/// The device of the backend of that name: `flex` is the fast one, `ndarray` an independent second opinion.
///
/// # Errors
/// [`NameError::Backend`].
pub fn device(name: &str) -> Result<Device, NameError> {
    match name {
        "flex" => Ok(Device::flex()),
        "ndarray" => Ok(ndarray()),
        _ => Err(NameError::Backend(name.to_owned())),
    }
}

#[expect(deprecated, reason = "kept as the second backend that tests compare flex with")]
fn ndarray() -> Device {
    Device::ndarray()
}
