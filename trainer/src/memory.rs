//! How much memory this process has needed.

/// Largest resident set of this process since its start or the last `forget_peak`, in bytes; `None` where the
/// system does not tell (it does on Linux).
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Lets the peak begin anew (proc(5), `clear_refs`). Where the system refuses, the peak remains that of the whole
/// life of the process.
pub(crate) fn forget_peak() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the peak of the memory is that since the start of the process");
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_large_allocation_shows_in_the_peak() {
        let before = peak_bytes().unwrap();
        let block = vec![1_u8; 64 << 20];
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() == 64 << 20);
        assert!(peak_bytes().unwrap() >= before.max(64 << 20));
    }
}
