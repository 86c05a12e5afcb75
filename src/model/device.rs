//! Where tensors of the f32 forward live, by the name the user gives.

use burn::tensor::Device;

/// Devices of this build, the default first.
pub const DEVICES: [&str; 2] = ["flex", "ndarray"];

/// A name that is no device of this build.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown device `{0}`; this build has flex, ndarray")]
pub struct UnknownDevice(pub String);

/// The device of that name: `flex` is the fast one, `ndarray` an independent second opinion.
pub fn device(name: &str) -> Result<Device, UnknownDevice> {
    match name {
        "flex" => Ok(Device::flex()),
        "ndarray" => Ok(ndarray()),
        _ => Err(UnknownDevice(name.to_owned())),
    }
}

#[expect(deprecated, reason = "kept as the second backend that tests compare flex with")]
fn ndarray() -> Device {
    Device::ndarray()
}
