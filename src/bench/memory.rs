//! Peak memory of this process.

/// The most memory this process has had resident, in bytes; `None` where the system does not tell
/// (it is read from Linux' `/proc`). Memory of a GPU is not in it.
pub fn peak_memory() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmHWM:     1234 kB` of a status file, in bytes.
fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        assert_eq!(parse("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\nVmRSS: 3 kB"), Some(1234 * 1024));
        assert_eq!(parse("VmPeak:\t 9 kB"), None);
        assert_eq!(parse("VmHWM: many kB"), None);
    }

    #[test]
    fn this_process_has_a_peak_on_linux() {
        match peak_memory() {
            Some(bytes) => assert!(bytes > 1 << 20, "{bytes}"),
            None => assert!(!cfg!(target_os = "linux")),
        }
    }
}
