//! Help texts in cobra's layout, made from the table of commands.

use std::fmt::Write;

use super::commands::{Command, Flag, Kind, ROOT};

/// Names in a list of commands are padded to at least this.
const NAME_WIDTH: usize = 11;

/// What `--help` prints.
pub(super) fn help(path: &[&'static Command]) -> String {
    let command = path.last().copied().unwrap_or(&ROOT);
    let about = if command.long.is_empty() { command.short } else { command.long };
    format!("{}\n\n{}", about.trim_end(), usage(path))
}

/// What follows an error in a flag.
pub(super) fn usage(path: &[&'static Command]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_usage(&mut text, path);
    text
}

fn write_usage(text: &mut String, path: &[&'static Command]) -> std::fmt::Result {
    let command = path.last().copied().unwrap_or(&ROOT);
    let name = full_name(path);
    let is_root = path.len() < 2;
    writeln!(text, "Usage:")?;
    if is_root {
        writeln!(text, "  {name} [flags]")?;
    } else if command.commands.is_empty() {
        let flags = if command.usage.is_empty() { "" } else { " " };
        writeln!(text, "  {name}{flags}{}", command.usage)?;
    }
    if !command.commands.is_empty() {
        writeln!(text, "  {name} [command]\n\nAvailable Commands:")?;
        let width = command.commands.iter().map(|below| below.name.len()).max().unwrap_or(0).max(NAME_WIDTH);
        for below in command.commands {
            writeln!(text, "  {:width$} {}", below.name, below.short)?;
        }
    }
    let own_help = Flag { name: "help", also: &[], kind: Kind::Bool, default: "", help: "" };
    writeln!(text, "\nFlags:")?;
    let mut flags: Vec<(&Flag, String)> = command.flags().map(|flag| (flag, help_of(flag))).collect();
    flags.push((&own_help, format!("help for {}", command.name)));
    write_flags(text, flags)?;
    if !is_root {
        writeln!(text, "\nGlobal Flags:")?;
        write_flags(text, ROOT.flags().map(|flag| (flag, help_of(flag))).collect())?;
    }
    if !command.commands.is_empty() {
        writeln!(text, "\nUse \"{name} [command] --help\" for more information about a command.")?;
    }
    Ok(())
}

/// `mo_br snapshot create`.
pub(super) fn full_name(path: &[&'static Command]) -> String {
    path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

fn help_of(flag: &Flag) -> String {
    match flag.also {
        [] => flag.help.to_owned(),
        also => format!(
            "{} (also {})",
            flag.help,
            also.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// One line a flag, in the order of their names, the texts aligned.
fn write_flags(text: &mut String, mut flags: Vec<(&Flag, String)>) -> std::fmt::Result {
    flags.sort_by_key(|(flag, _)| flag.name);
    let left = |flag: &Flag| {
        let short = if flag.name == "help" { "  -h, " } else { "      " };
        let value = match flag.kind {
            Kind::Bool => "",
            Kind::Text => " string",
            Kind::Number => " int",
        };
        format!("{short}--{}{value}", flag.name)
    };
    let width = flags.iter().map(|(flag, _)| left(flag).len()).max().unwrap_or(0);
    for (flag, help) in &flags {
        let default = match (flag.default, flag.kind) {
            ("", _) => String::new(),
            (default, Kind::Text) => format!(" (default {default:?})"),
            (default, _) => format!(" (default {default})"),
        };
        writeln!(text, "{:width$}   {help}{default}", left(flag))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented text of the program, with the commands that the document leaves out.
    const GOLDEN: &str = r#"the backup and restore tool for the matrixone

Usage:
  mo_br [flags]
  mo_br [command]

Available Commands:
  backup       backup the matrixone data
  check        check the backup
  completion   Generate the autocompletion script for the specified shell
  delete       delete the backup
  help         Help about any command
  list         search the backup
  merge        merge a backup and those it is based on into a full one
  pitr         Manage pitrs
  repair_index repair the index of the backups
  restore      restore the matrixone data
  snapshot     Manage snapshots

Flags:
      --config string      config file (default "./mo_br.toml")
  -h, --help               help for mo_br
      --log_file string    log file (default "console")
      --log_level string   log level (default "error")

Use "mo_br [command] --help" for more information about a command.
"#;

    #[test]
    fn the_program_explains_itself_as_documented() {
        assert_eq!(help(&[&ROOT]), GOLDEN);
    }

    #[test]
    fn a_command_explains_its_flags() {
        let delete = ROOT.commands.iter().find(|command| command.name == "delete").unwrap();
        let text = help(&[&ROOT, delete]);
        assert!(text.starts_with("delete the backup\n\nUsage:\n  mo_br delete ID [flags]\n\nFlags:\n"), "{text}");
        assert!(text.contains("  -h, --help                       help for delete\n"), "{text}");
        assert!(
            text.contains("\nGlobal Flags:\n      --config string      config file (default \"./mo_br.toml\")\n"),
            "{text}"
        );
    }
}
