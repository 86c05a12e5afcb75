//! Where tensors of the f32 forward live: burn's device, by the name of its backend, or workers on other machines, by their
//! addresses. The device that an artifact is for is another thing, a `Target`.

use super::error::NameError;
use burn::tensor::Device;

/// Backends of every build, the default first.
pub const BACKENDS: [&str; 2] = ["flex", "ndarray"];

/// Further backends: the name, the cargo feature that brings it, and whether this build has it.
pub const FEATURE_BACKENDS: [(&str, &str, bool); 3] = [
    ("cuda", "cuda", cfg!(feature = "cuda")),
    ("wgpu", "wgpu", cfg!(feature = "wgpu")),
    (REMOTE, "workers", cfg!(feature = "workers")),
];

/// The backend whose devices are [`crate::workers`].
pub const REMOTE: &str = "remote";

/// The variable of the environment with the addresses of workers, where `--backend remote` names none.
pub const WORKERS_VARIABLE: &str = "SLMC_WORKERS";

/// A backend by its name.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// A device of this machine.
    Device(Device),
    /// Workers that compute the steps of a training, HOST:PORT each and each once. Everything else is computed here.
    Remote(Vec<String>),
}

impl Backend {
    /// The device of all work that is not training.
    pub fn device(&self) -> Device {
        match self {
            Backend::Device(device) => device.clone(),
            Backend::Remote(_) => Device::flex(),
        }
    }

    /// Number of workers; none for a device of this machine.
    pub fn workers(&self) -> Option<usize> {
        match self {
            Backend::Device(_) => None,
            Backend::Remote(addresses) => Some(addresses.len()),
        }
    }
}

/// The backend of that name: `flex` is the fast one, `ndarray` an independent second opinion. Where this build has them also
/// `cuda` and `wgpu`, each with a number of the device or without (`cuda:0`), and `remote:HOST:PORT,…`; `remote` alone stands
/// for the addresses in [`WORKERS_VARIABLE`].
///
/// # Errors
/// [`NameError::Backend`], [`NameError::BackendFeature`], [`NameError::WorkerAddress`], [`NameError::NoWorkers`].
pub fn backend(name: &str) -> Result<Backend, NameError> {
    let (backend, detail) = match name.split_once(':') {
        Some((backend, detail)) => (backend, Some(detail)),
        None => (name, None),
    };
    let unknown = || NameError::Backend(name.to_owned());
    match (backend, detail) {
        ("flex", None) => return Ok(Backend::Device(Device::flex())),
        ("ndarray", None) => return Ok(Backend::Device(ndarray())),
        _ => {}
    }
    match FEATURE_BACKENDS.iter().find(|(known, ..)| *known == backend) {
        Some((_, feature, false)) => Err(NameError::BackendFeature { name: name.to_owned(), feature }),
        Some((REMOTE, ..)) => match detail {
            Some(addresses) => Ok(Backend::Remote(addresses_of(addresses)?)),
            None => {
                let named = std::env::var(WORKERS_VARIABLE).unwrap_or_default();
                Ok(Backend::Remote(addresses_of(&named)?))
            }
        },
        Some(_) => {
            let number = detail.map(str::parse).transpose().map_err(|_| unknown())?;
            gpu(backend, number).map(Backend::Device).ok_or_else(unknown)
        }
        None => Err(unknown()),
    }
}

/// The device of the backend of that name, for work that workers do not do.
///
/// # Errors
/// Those of [`backend`], and [`NameError::OnlyTraining`].
pub fn device(name: &str) -> Result<Device, NameError> {
    match backend(name)? {
        Backend::Device(device) => Ok(device),
        Backend::Remote(_) => Err(NameError::OnlyTraining),
    }
}

/// A backend's name without addresses: what keys and provenance record.
pub fn without_addresses(name: &str) -> &str {
    match name.split_once(':') {
        Some((REMOTE, _)) => REMOTE,
        _ => name,
    }
}

/// The addresses of a list, HOST:PORT each.
fn addresses_of(list: &str) -> Result<Vec<String>, NameError> {
    if list.is_empty() {
        return Err(NameError::NoWorkers);
    }
    let mut addresses: Vec<String> = Vec::new();
    for address in list.split(',') {
        let wrong = |fault| NameError::WorkerAddress { address: address.to_owned(), fault };
        let Some((host, port)) = address.rsplit_once(':') else { return Err(wrong("has no port")) };
        // An address of IPv6 is in brackets; what a URL would read as more than a host is none.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if host.is_empty() || !(bracketed || host.bytes().all(plain)) {
            return Err(wrong("does not begin with the name or number of a host"));
        }
        if !port.parse().is_ok_and(|port: u16| port > 0) {
            return Err(wrong("does not end with a port, 1 to 65535"));
        }
        if addresses.iter().any(|known| known == address) {
            return Err(wrong("is named twice"));
        }
        addresses.push(address.to_owned());
    }
    Ok(addresses)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports_and_each_once() {
        let of = |list: &str| addresses_of(list).map_err(|error| error.to_string());
        assert_eq!(of("a:3000,10.0.0.7:1"), Ok(vec!["a:3000".to_owned(), "10.0.0.7:1".to_owned()]));
        assert_eq!(of("[::1]:3000"), Ok(vec!["[::1]:3000".to_owned()]));
        for (list, fault) in [
            ("", "names no worker"),
            ("a", "`a` of --backend remote has no port"),
            ("a:3000,", "`` of --backend remote has no port"),
            (":3000", "host"),
            ("ws://a:3000", "host"),
            ("token@a:3000", "host"),
            ("a:0", "1 to 65535"),
            ("a:70000", "1 to 65535"),
            ("a:3000,a:3000", "twice"),
        ] {
            let message = of(list).expect_err(list);
            assert!(message.contains(fault), "{list}: {message}");
        }
    }

    #[test]
    fn what_is_recorded_has_no_addresses() {
        assert_eq!(without_addresses("remote:a:3000,b:3000"), "remote");
        assert_eq!(["remote", "flex", "cuda:1"].map(without_addresses), ["remote", "flex", "cuda:1"]);
    }

    #[test]
    fn workers_are_for_training_and_for_builds_that_have_them() {
        let named = backend("remote:a:3000,b:3000");
        match cfg!(feature = "workers") {
            true => {
                assert_eq!(named.map(|backend| backend.workers()), Ok(Some(2)));
                assert_eq!(device("remote:a:3000"), Err(NameError::OnlyTraining));
            }
            false => {
                let message = named.expect_err("this build has none").to_string();
                assert!(message.contains("--features workers"), "{message}");
            }
        }
        assert_eq!(backend("flex:0"), Err(NameError::Backend("flex:0".to_owned())));
        assert_eq!(backend("flex").map(|backend| backend.workers()), Ok(None));
    }
}
