//! Completion scripts, made from the table of commands.

use std::fmt::Write;

use super::commands::{Command, ROOT, Shell};

/// The script of a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match shell {
        Shell::Bash => bash(&mut text),
        Shell::Fish => fish(&mut text),
        Shell::Pwsh => powershell(&mut text),
        Shell::Zsh => zsh(&mut text),
    };
    text
}

/// Every command with its words, and what may follow it.
fn walk(see: &mut dyn FnMut(&[&'static Command])) {
    fn below(path: &mut Vec<&'static Command>, see: &mut dyn FnMut(&[&'static Command])) {
        see(path);
        let commands = path.last().map_or(&[][..], |command| command.commands);
        for command in commands {
            path.push(command);
            below(path, see);
            path.pop();
        }
    }
    below(&mut vec![&ROOT], see);
}

fn words_of(path: &[&'static Command]) -> String {
    path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

fn follows(path: &[&'static Command]) -> Vec<String> {
    let command = path.last().copied().unwrap_or(&ROOT);
    let below = command.commands.iter().map(|below| below.name.to_owned());
    let flags = command.flags().chain(ROOT.flags().filter(|_| path.len() > 1)).map(|flag| format!("--{}", flag.name));
    below.chain(flags).chain(["--help".to_owned()]).collect()
}

fn bash(text: &mut String) -> std::fmt::Result {
    writeln!(text, "# bash completion for mo_br: source this file, or put it into /etc/bash_completion.d/.")?;
    writeln!(text, "_mo_br() {{\n    local word at path=mo_br")?;
    writeln!(text, "    for ((at = 1; at < COMP_CWORD; at++)); do\n        word=${{COMP_WORDS[at]}}")?;
    writeln!(text, "        case \"$path $word\" in")?;
    walk(&mut |path| {
        if path.len() > 1 {
            let _ = writeln!(text, "        '{}') path=\"$path $word\" ;;", words_of(path));
        }
    });
    writeln!(text, "        esac\n    done\n    local words\n    case \"$path\" in")?;
    walk(&mut |path| {
        let _ = writeln!(text, "    '{}') words='{}' ;;", words_of(path), follows(path).join(" "));
    });
    writeln!(text, "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))")?;
    writeln!(
        text,
        "    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- \"${{COMP_WORDS[COMP_CWORD]}}\"))\n}}"
    )?;
    writeln!(text, "complete -o filenames -F _mo_br mo_br")
}

fn zsh(text: &mut String) -> std::fmt::Result {
    writeln!(text, "#compdef mo_br\n# zsh completion for mo_br: put this file as _mo_br into a directory of $fpath.")?;
    writeln!(text, "_mo_br() {{\n    local word path=mo_br")?;
    writeln!(text, "    for word in ${{words[2,CURRENT-1]}}; do\n        case \"$path $word\" in")?;
    walk(&mut |path| {
        if path.len() > 1 {
            let _ = writeln!(text, "        '{}') path=\"$path $word\" ;;", words_of(path));
        }
    });
    writeln!(text, "        esac\n    done\n    case \"$path\" in")?;
    walk(&mut |path| {
        let _ = writeln!(text, "    '{}') compadd -- {} ;;", words_of(path), follows(path).join(" "));
    });
    writeln!(text, "    esac\n    _files\n}}\ncompdef _mo_br mo_br")
}

fn fish(text: &mut String) -> std::fmt::Result {
    writeln!(text, "# fish completion for mo_br: put this file as mo_br.fish into ~/.config/fish/completions/.")?;
    walk(&mut |path| {
        let words: Vec<&str> = path[1..].iter().map(|command| command.name).collect();
        let seen =
            words.iter().map(|word| format!("__fish_seen_subcommand_from {word}")).collect::<Vec<_>>().join("; and ");
        let command = path.last().copied().unwrap_or(&ROOT);
        let here = if words.is_empty() { "__fish_use_subcommand".to_owned() } else { seen };
        for below in command.commands {
            let short = below.short.replace('\'', "\\'");
            let _ = writeln!(text, "complete -c mo_br -f -n '{here}' -a {} -d '{short}'", below.name);
        }
        for flag in command.flags() {
            let takes = if flag.kind == super::commands::Kind::Bool { "" } else { " -r" };
            let help = flag.help.replace('\'', "\\'");
            let on = if words.is_empty() { String::new() } else { format!(" -n '{here}'") };
            let _ = writeln!(text, "complete -c mo_br{on} -l {}{takes} -d '{help}'", flag.name);
        }
    });
    Ok(())
}

fn powershell(text: &mut String) -> std::fmt::Result {
    writeln!(text, "# powershell completion for mo_br: add this to your profile.")?;
    writeln!(text, "Register-ArgumentCompleter -Native -CommandName 'mo_br' -ScriptBlock {{")?;
    writeln!(text, "    param($wordToComplete, $commandAst, $cursorPosition)\n    $path = 'mo_br'\n    $next = @{{")?;
    walk(&mut |path| {
        let words = follows(path).iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "        '{}' = @({words})", words_of(path));
    });
    writeln!(text, "    }}\n    foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {{")?;
    writeln!(
        text,
        "        $longer = \"$path $element\"\n        if ($next.ContainsKey($longer)) {{ $path = $longer }}\n    }}"
    )?;
    writeln!(text, "    $next[$path] | Where-Object {{ $_ -like \"$wordToComplete*\" }} | ForEach-Object {{")?;
    writeln!(
        text,
        "        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)\n    }}\n}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Fish, Shell::Pwsh, Shell::Zsh] {
            let script = script(shell);
            for word in ["snapshot", "repair_index", "not_check_data", "restore_is_minio", "rangeunit"] {
                assert!(script.contains(word), "{shell:?}: {word}");
            }
        }
    }
}
