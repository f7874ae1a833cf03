//! `--metrics FILE`: a Prometheus text file about the last backup, restore or check.
//!
//! It is written beside its name and renamed, so that a collector never reads half of it. Metrics of other commands in the same file
//! are kept: one file can serve a night of backup and check.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use everpack::clock::{Clock, SystemClock};
use everpack::error::{Context, Result};
use everpack::source::display_path;

use crate::errors::{Act, Doing};

/// One gauge.
pub(crate) struct Gauge {
    name: &'static str,
    help: &'static str,
    value: f64,
}

/// A gauge by its name without `everpack_` and the command.
#[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floating point")]
pub(crate) fn gauge(name: &'static str, help: &'static str, value: u64) -> Gauge {
    Gauge { name, help, value: value as f64 }
}

/// The same for what is not whole.
pub(crate) fn gauge_f64(name: &'static str, help: &'static str, value: f64) -> Gauge {
    Gauge { name, help, value }
}

/// Replaces the metrics of `command` in the file.
#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are exact for a long time")]
pub(crate) fn write(path: &Path, command: &str, labels: &[(&str, &str)], mut gauges: Vec<Gauge>) -> Result<()> {
    let now = SystemClock.now().as_nanos() / 1_000_000_000;
    gauges.push(gauge_f64("end_time_seconds", "When it ended, seconds since 1970.", now as f64));
    let name = || format!("write metrics to {}", display_path(path.as_os_str().as_encoded_bytes()));
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(name).doing(Act::Write),
    };
    let mut text = without(&before, &format!("everpack_{command}_"));
    text.push_str(&render(command, labels, &gauges));
    replace(path, text.as_bytes()).context(name).doing(Act::Write)
}

/// The lines that are not about metrics of this prefix.
fn without(text: &str, prefix: &str) -> String {
    let is_ours = |line: &str| {
        let line = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        line.starts_with(prefix)
    };
    text.lines().filter(|line| !is_ours(line)).fold(String::new(), |mut kept, line| {
        kept.push_str(line);
        kept.push('\n');
        kept
    })
}

fn render(command: &str, labels: &[(&str, &str)], gauges: &[Gauge]) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    let labels = labels.join(",");
    let mut text = String::new();
    for Gauge { name, help, value } in gauges {
        let name = format!("everpack_{command}_{name}");
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{labels}}} {value}\n");
    }
    text
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[allow(clippy::disallowed_methods, reason = "a file for a collector: whole or old, and no loss if it is lost")]
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let written = std::fs::File::create(&beside).and_then(|mut file| file.write_all(text));
    let done = written.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        // What could not be written may not be removable either; the error says why.
        let _gone = std::fs::remove_file(&beside);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_replaces_its_own_metrics_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("everpack.prom");
        let labels = [("repository", "/a \"b\"")];
        write(&file, "backup", &labels, vec![gauge("files", "Files.", 1)]).unwrap();
        write(&file, "check", &labels, vec![gauge("findings", "Findings.", 2)]).unwrap();
        write(&file, "backup", &labels, vec![gauge("files", "Files.", 3)]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("everpack_backup_files{repository=\"/a \\\"b\\\"\"} 3\n"), "{text}");
        assert!(text.contains("everpack_check_findings") && !text.contains("} 1\n"), "{text}");
        assert_eq!(text.matches("# TYPE everpack_backup_files gauge").count(), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }
}
