//! Who a session is, and whether its process is gone.
//!
//! A pid alone comes back; a pid with its start time, in one pid namespace of one boot, does not. Whatever cannot be told here (another host,
//! another container, no `/proc`) is told by patience instead: see `log::session`.

use crate::format::log_record::SessionInfo;

/// What the kernel says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The host's name.
    pub host: String,
    /// The kernel's boot id; empty if unknown.
    pub boot_id: String,
    /// The pid namespace; 0 if unknown.
    pub pid_namespace: u64,
    /// The process id.
    pub pid: u32,
    /// When it started, kernel ticks since boot; 0 if unknown.
    pub started: u64,
}

impl Process {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Self { host, boot_id, pid_namespace: pid_namespace(), pid, started: start_time(pid).unwrap_or(0) }
    }

    /// Whose session it is.
    pub(crate) fn of_session(session: &SessionInfo) -> Self {
        Self {
            host: session.host.clone(),
            boot_id: session.boot_id.clone(),
            pid_namespace: session.pid_namespace,
            pid: session.pid,
            started: session.pid_started,
        }
    }

    /// True if the other process ran where this one runs and is gone; false if that cannot be told.
    pub(crate) fn knows_to_be_gone(&self, other: &Self) -> bool {
        let same_place = !self.boot_id.is_empty()
            && self.boot_id == other.boot_id
            && self.pid_namespace != 0
            && self.pid_namespace == other.pid_namespace;
        same_place && other.started != 0 && start_time(other.pid) != Some(other.started)
    }
}

fn pid_namespace() -> u64 {
    let Ok(link) = std::fs::read_link("/proc/self/ns/pid") else { return 0 };
    let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Field 22 of /proc/PID/stat; the command before it may hold blanks and parentheses. A zombie has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_gone_and_a_reused_pid_is() {
        let me = Process::current();
        let mut other = me.clone();
        assert!(!me.knows_to_be_gone(&other));
        other.started += 1;
        assert!(me.knows_to_be_gone(&other), "the pid lives, but it is another process");
    }

    #[test]
    fn a_process_of_another_boot_or_container_cannot_be_told() {
        let me = Process::current();
        let mut other = me.clone();
        other.started += 1;
        other.boot_id = "another".to_owned();
        assert!(!me.knows_to_be_gone(&other));
        other.boot_id = me.boot_id.clone();
        other.pid_namespace += 1;
        assert!(!me.knows_to_be_gone(&other));
    }

    #[test]
    fn an_ended_child_is_gone() {
        let me = Process::current();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = me.clone();
        other.pid = child.id();
        other.started = start_time(child.id()).unwrap();
        assert!(!me.knows_to_be_gone(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(me.knows_to_be_gone(&other));
    }
}
