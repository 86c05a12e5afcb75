//! `--max-ram`: work whose estimated need is above it is refused before it begins.

use super::stage::RunSettings;
use anyhow::ensure;

/// Refuses work that needs more memory than is allowed.
///
/// # Errors
/// Both numbers.
pub(super) fn check_memory(run: &RunSettings, need_bytes: u64, what: &str) -> anyhow::Result<()> {
    if let Some(limit) = run.max_ram {
        ensure!(
            need_bytes <= limit,
            "{what} needs about {need_bytes} bytes of memory, --max-ram allows {limit}; raise it or take a smaller model"
        );
    }
    Ok(())
}
