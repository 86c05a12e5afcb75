//! Where tensors of the f32 forward live: burn's device, by the name of its backend. The device that an artifact is for
//! is another thing, a `Target`.

use super::error::NameError;
use burn::tensor::Device;

/// Backends of every build, the default first.
pub const BACKENDS: [&str; 2] = ["flex", "ndarray"];

/// Backends on a GPU, each with whether this build has it: the cargo features of the same names.
pub const GPU_BACKENDS: [(&str, bool); 2] = [("cuda", cfg!(feature = "cuda")), ("wgpu", cfg!(feature = "wgpu"))];

/// The device of the backend of that name: `flex` is the fast one, `ndarray` an independent second opinion. Where this
/// build has them also `cuda` and `wgpu`, each with a number of the device or without: `cuda:0`.
///
/// # Errors
/// [`NameError::Backend`], [`NameError::BackendFeature`].
pub fn device(name: &str) -> Result<Device, NameError> {
    match name {
        "flex" => Ok(Device::flex()),
        "ndarray" => Ok(ndarray()),
        _ => {
            let unknown = || NameError::Backend(name.to_owned());
            let (backend, number) = match name.split_once(':') {
                Some((backend, number)) => (backend, Some(number.parse().map_err(|_| unknown())?)),
                None => (name, None),
            };
            match GPU_BACKENDS.iter().find(|(known, _)| *known == backend) {
                Some((_, true)) => gpu(backend, number).ok_or_else(unknown),
                Some((feature, false)) => Err(NameError::BackendFeature { name: name.to_owned(), feature }),
                None => Err(unknown()),
            }
        }
    }
}

/// The device of a backend that this build has.
fn gpu(backend: &str, number: Option<usize>) -> Option<Device> {
    match (backend, number) {
        #[cfg(feature = "cuda")]
        ("cuda", number) => Some(Device::cuda(number.unwrap_or(0))),
        #[cfg(feature = "wgpu")]
        ("wgpu", None) => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        ("wgpu", Some(number)) => Some(Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(number))),
        _ => None,
    }
}

/// Whether a device computes on this machine's CPU.
pub fn is_on_cpu(device: &Device) -> bool {
    [Device::flex(), ndarray()].contains(device)
}

#[expect(deprecated, reason = "kept as the second backend that tests compare flex with")]
fn ndarray() -> Device {
    Device::ndarray()
}
