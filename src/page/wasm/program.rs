//! The page's program for WebAssembly: every function of `slm.h`, and the three that JavaScript cannot do with them alone.
//! It imports nothing and allocates nothing; the worker (`site/slm.js`) lays the artifact, the session and all arguments out
//! behind the program's own memory. `build` compiles it.

#![no_std]

use core::ffi::c_void;
use core::slice;

pub use slm_runtime::c_api;

use slm_runtime::c_api::{State, Status};
use slm_runtime::sha256::Sha256;

/// A defect of the program ends the call, and JavaScript sees an exception.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Writes the SHA-256 of `length` bytes, 32 bytes: pages that are not served over https have no `crypto.subtle`.
///
/// # Safety
/// `bytes` has `length` bytes and `digest` room for 32; they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn page_sha256(bytes: *const u8, length: usize, digest: *mut u8) {
    // SAFETY: as the caller says.
    let (bytes, place) = unsafe { (slice::from_raw_parts(bytes, length), slice::from_raw_parts_mut(digest, 32)) };
    place.copy_from_slice(&Sha256::digest(bytes));
}

/// Where rows go.
struct Rows {
    /// Room for one row.
    out: *mut f32,
    /// Values that fit there.
    capacity: usize,
    /// Rows that came.
    count: usize,
}

/// Keeps the last row.
///
/// # Safety
/// `user` are the [`Rows`] of [`page_run`], and `row` has `width` values.
unsafe extern "C" fn keep(user: *mut c_void, _: usize, row: *const f32, width: usize) {
    // SAFETY: `page_run` passes its own, which nothing else uses meanwhile.
    let rows = unsafe { &mut *user.cast::<Rows>() };
    rows.count += 1;
    if width <= rows.capacity {
        // SAFETY: `out` has room for `capacity` values, and is no memory of the session.
        unsafe { core::ptr::copy_nonoverlapping(row, rows.out, width) };
    }
}

/// Runs an encoder whose output is one row, and writes that row to `out`, which has room for `capacity` values. A row that
/// is wider is not written, which is `Capacity`; an output of several rows is `Kind`.
///
/// # Safety
/// As for `slm_run`; `out` has room for `capacity` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn page_run(
    session: *mut State,
    tokens: *const u32,
    count: usize,
    out: *mut f32,
    capacity: usize,
) -> Status {
    let mut rows = Rows { out, capacity, count: 0 };
    // SAFETY: as the caller says; `keep` takes what is passed to it.
    let status = unsafe { c_api::slm_run(session, tokens, count, Some(keep), (&raw mut rows).cast()) };
    match (status, rows.count) {
        (Status::Ok, 1) => Status::Ok,
        (Status::Ok, _) => Status::Kind,
        (status, _) => status,
    }
}

/// Whether the program computes with the vectors of WebAssembly: 0 without, 1 with simd128, 2 also with relaxed-simd.
#[unsafe(no_mangle)]
pub extern "C" fn page_vectors() -> u32 {
    u32::from(cfg!(target_feature = "simd128")) + u32::from(cfg!(target_feature = "relaxed-simd"))
}
