//! The table of everything that can be typed: commands, their flags, what runs.
//!
//! A new command is one [`Command`] here (in its parent's list, in alphabetical order) and one arm in `mo_br::run`; a new flag is one
//! [`Flag`] in a group. Parser, help texts and shell completion are made from this table alone.

/// What a command does; the arms are in `mo_br::run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing of its own: it has commands below it.
    Help,
    Backup,
    Check,
    Completion(Shell),
    Delete,
    HelpAbout,
    List,
    Merge,
    Pitr(Verb),
    RepairIndex,
    Restore,
    Snapshot(Verb),
}

/// What is done with a snapshot or a PITR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Alter,
    Create,
    Drop,
    Restore,
    Show,
}

/// Shells that completion scripts are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Fish,
    Pwsh,
    Zsh,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
}

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// Other spellings that mean the same.
    pub(super) also: &'static [&'static str],
    pub(super) kind: Kind,
    /// What counts when it is not given; empty for nothing.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

impl Flag {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.also.contains(&name)
    }

    const fn or(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    const fn by_default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

const fn text(name: &'static str, help: &'static str) -> Flag {
    Flag { name, also: &[], kind: Kind::Text, default: "", help }
}

const fn number(name: &'static str, help: &'static str) -> Flag {
    Flag { kind: Kind::Number, ..text(name, help) }
}

const fn boolean(name: &'static str, help: &'static str) -> Flag {
    Flag { kind: Kind::Bool, ..text(name, help) }
}

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// What stands behind the name in its usage line.
    pub(super) usage: &'static str,
    pub(super) short: &'static str,
    /// What its help begins with; the short text if empty.
    pub(super) long: &'static str,
    pub(super) groups: &'static [&'static [Flag]],
    pub(super) commands: &'static [Command],
    pub(super) action: Action,
}

impl Command {
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }
}

const GLOBAL: &[Flag] = &[
    text("config", "config file").by_default("./mo_br.toml"),
    text("log_file", "log file").by_default("console"),
    text("log_level", "log level").by_default("error"),
];

const META: &[Flag] = &[text("meta_path", "path of the meta file [default: mo_br.meta in the working directory]")];

const SERVER: &[Flag] = &[
    text("host", "host of the matrixone").or(&["hostname"]),
    number("port", "port of the matrixone"),
    text("user", "user of the matrixone"),
    text("password", "password of the user; better by EVERPACK_MO_PASSWORD, or asked for"),
];

const PARALLELISM: &[Flag] = &[number("parallelism", "parallelism of the copying")];

const BACKUP_TO: &[Flag] = &[
    text("backup_dir", "kind of the place of the backup: s3 or filesystem"),
    text("path", "directory of the backups in the filesystem").or(&["backup_path"]),
    text("endpoint", "endpoint of the s3 service"),
    text("access_key_id", "access key id of s3"),
    text("secret_access_key", "secret access key of s3"),
    text("bucket", "bucket of s3"),
    text("filepath", "relative file path in s3"),
    text("region", "region of s3"),
    text("compression", "compression of the files in s3 (kept with the backup, without effect)"),
    text("role_arn", "role arn of s3"),
    boolean("is_minio", "the s3 service is minio"),
];

const BACKUP_KIND: &[Flag] = &[
    text("backup_type", "type of the backup: full or incremental"),
    text("base_id", "id of the backup that an incremental one is based on"),
];

const KEYS: &[Flag] = &[
    text("access_key_id", "access key id of the backup in s3").or(&["backup_access_key_id"]),
    text("secret_access_key", "secret access key of the backup in s3").or(&["backup_secret_access_key"]),
];

const BACKUP_FROM: &[Flag] = &[
    text("backup_dir", "kind of the place of the backup: s3 or filesystem"),
    text("backup_path", "directory of the backup in the filesystem").or(&["path"]),
    text("backup_endpoint", "endpoint of the backup in s3"),
    text("backup_access_key_id", "access key id of the backup in s3").or(&["access_key_id"]),
    text("backup_secret_access_key", "secret access key of the backup in s3").or(&["secret_access_key"]),
    text("backup_bucket", "bucket of the backup in s3"),
    text("backup_filepath", "relative file path of the backup in s3"),
    text("backup_region", "region of the backup in s3"),
    text("backup_compression", "compression of the backup in s3 (without effect)"),
    text("backup_role_arn", "role arn of the backup in s3"),
    boolean("backup_is_minio", "the s3 service of the backup is minio"),
];

const RESTORE_TO: &[Flag] = &[
    text("restore_dir", "kind of the place to restore to: s3 or filesystem"),
    text("restore_path", "directory of the matrixone to restore to"),
    text("dn_config_path", "configuration of the dn, which tells where its data goes"),
    text("restore_endpoint", "endpoint of s3 to restore to"),
    text("restore_access_key_id", "access key id of s3 to restore to"),
    text("restore_secret_access_key", "secret access key of s3 to restore to"),
    text("restore_bucket", "bucket of s3 to restore to"),
    text("restore_filepath", "relative file path of s3 to restore to"),
    text("restore_region", "region of s3 to restore to"),
    text("restore_compression", "compression of the files in s3 (without effect)"),
    text("restore_role_arn", "role arn of s3 to restore to"),
    boolean("restore_is_minio", "the s3 service to restore to is minio"),
    text("checksum", "accepted for compatibility: every byte is verified"),
    text("base_id", "accepted for compatibility: every backup is complete"),
];

const NEW_ACCOUNT: &[Flag] = &[
    text("new_account", "new account to restore into").or(&["newaccount"]),
    text("new_admin_name", "administrator of the new account").or(&["newaccountadmin"]),
    text("new_admin_password", "password of the administrator of the new account").or(&["newaccountpwd"]),
];

const SNAME: &[Flag] = &[text("sname", "name of the snapshot")];
const PNAME: &[Flag] = &[text("pname", "name of the pitr")];
const ACCOUNT: &[Flag] = &[text("account", "name of the account")];
const SNAPSHOT_OBJECT: &[Flag] =
    &[text("db", "name of the database").or(&["database"]), text("table", "name of the table")];
const PITR_OBJECT: &[Flag] =
    &[text("database", "name of the database").or(&["db"]), text("table", "name of the table")];
const CLUSTER: &[Flag] = &[text("cluster", "sys for the whole cluster")];
const RANGE: &[Flag] = &[
    number("rangevalue", "length of the range, 1 to 100"),
    text("rangeunit", "unit of the range: h, d, mo or y").by_default("d"),
];

const NONE: &[Command] = &[];

/// The program itself.
pub(super) const ROOT: Command = Command {
    name: "mo_br",
    usage: "",
    short: "",
    long: "the backup and restore tool for the matrixone",
    groups: &[GLOBAL],
    commands: &[
        Command {
            name: "backup",
            usage: "[flags]",
            short: "backup the matrixone data",
            long: "",
            groups: &[SERVER, BACKUP_TO, PARALLELISM, META, BACKUP_KIND],
            commands: NONE,
            action: Action::Backup,
        },
        Command {
            name: "check",
            usage: "[ID] [flags]",
            short: "check the backup",
            long: "",
            groups: &[BACKUP_FROM, META],
            commands: NONE,
            action: Action::Check,
        },
        Command {
            name: "completion",
            usage: "",
            short: "Generate the autocompletion script for the specified shell",
            long: "Generate the autocompletion script for mo_br for the specified shell.\n\
                   See each sub-command's help for details on how to use the generated script.\n",
            groups: &[],
            commands: &[
                completion("bash", "Generate the autocompletion script for bash", Shell::Bash),
                completion("fish", "Generate the autocompletion script for fish", Shell::Fish),
                completion("powershell", "Generate the autocompletion script for powershell", Shell::Pwsh),
                completion("zsh", "Generate the autocompletion script for zsh", Shell::Zsh),
            ],
            action: Action::Help,
        },
        Command {
            name: "delete",
            usage: "ID [flags]",
            short: "delete the backup",
            long: "",
            groups: &[
                KEYS,
                &[boolean("not_delete_data", "delete only the line in the meta file, not the backup")],
                META,
            ],
            commands: NONE,
            action: Action::Delete,
        },
        Command {
            name: "help",
            usage: "[command] [flags]",
            short: "Help about any command",
            long: "Help provides help for any command in the application.\n\
                   Simply type mo_br help [path to command] for full details.",
            groups: &[],
            commands: NONE,
            action: Action::HelpAbout,
        },
        Command {
            name: "list",
            usage: "[ID] [flags]",
            short: "search the backup",
            long: "",
            groups: &[
                &[text("ID", "id of the backup, also without --ID")],
                KEYS,
                &[boolean("not_check_data", "look only at the meta file, not for the files of the backup")],
                META,
            ],
            commands: NONE,
            action: Action::List,
        },
        Command {
            name: "merge",
            usage: "ID [flags]",
            short: "merge a backup and those it is based on into a full one",
            long: "",
            groups: &[
                BACKUP_TO,
                &[text("target_path", "directory that gets the full backup")],
                META,
                &[number("parallelism", "parallelism of the copying").by_default("128")],
            ],
            commands: NONE,
            action: Action::Merge,
        },
        Command {
            name: "pitr",
            usage: "",
            short: "Manage pitrs",
            long: "",
            groups: &[],
            commands: &[
                pitr("alter", "Alter the range of a pitr", &[SERVER, PNAME, RANGE], Verb::Alter),
                pitr(
                    "create",
                    "Create a pitr",
                    &[
                        SERVER,
                        PNAME,
                        &[text("level", "level of the pitr: cluster, account, database or table")],
                        ACCOUNT,
                        PITR_OBJECT,
                        RANGE,
                    ],
                    Verb::Create,
                ),
                pitr("drop", "Drop a pitr", &[SERVER, PNAME], Verb::Drop),
                pitr(
                    "restore",
                    "Restore data by a pitr",
                    &[
                        SERVER,
                        PNAME,
                        &[text("timestamp", "moment to go back to, 2006-01-02 15:04:05 in the zone of the server")],
                        ACCOUNT,
                        PITR_OBJECT,
                        CLUSTER,
                        NEW_ACCOUNT,
                    ],
                    Verb::Restore,
                ),
                pitr("show", "Show pitrs", &[SERVER, PNAME, ACCOUNT, PITR_OBJECT, CLUSTER], Verb::Show),
            ],
            action: Action::Help,
        },
        Command {
            name: "repair_index",
            usage: "[flags]",
            short: "repair the index of the backups",
            long: "",
            groups: &[BACKUP_TO, &[text("backup_id", "id of the only backup to look at")], META],
            commands: NONE,
            action: Action::RepairIndex,
        },
        Command {
            name: "restore",
            usage: "[ID] [flags]",
            short: "restore the matrixone data",
            long: "",
            groups: &[BACKUP_FROM, RESTORE_TO, PARALLELISM, META],
            commands: NONE,
            action: Action::Restore,
        },
        Command {
            name: "snapshot",
            usage: "",
            short: "Manage snapshots",
            long: "",
            groups: &[],
            commands: &[
                snapshot(
                    "create",
                    "Create a snapshot",
                    &[SERVER, &[text("level", "level of the snapshot: cluster or account")], ACCOUNT, SNAME],
                    Verb::Create,
                ),
                snapshot("drop", "Drop a snapshot", &[SERVER, SNAME], Verb::Drop),
                snapshot(
                    "restore",
                    "Restore data from a snapshot",
                    &[SERVER, SNAME, ACCOUNT, SNAPSHOT_OBJECT, NEW_ACCOUNT],
                    Verb::Restore,
                ),
                snapshot(
                    "show",
                    "Show snapshots",
                    &[
                        SERVER,
                        SNAME,
                        ACCOUNT,
                        SNAPSHOT_OBJECT,
                        CLUSTER,
                        &[
                            text("beginTs", "only snapshots from this time, UTC"),
                            text("endTs", "only snapshots until this time, UTC"),
                        ],
                    ],
                    Verb::Show,
                ),
            ],
            action: Action::Help,
        },
    ],
    action: Action::Help,
};

const fn completion(name: &'static str, short: &'static str, shell: Shell) -> Command {
    Command { name, usage: "", short, long: "", groups: &[], commands: NONE, action: Action::Completion(shell) }
}

const fn snapshot(name: &'static str, short: &'static str, groups: &'static [&'static [Flag]], verb: Verb) -> Command {
    Command { name, usage: "[flags]", short, long: "", groups, commands: NONE, action: Action::Snapshot(verb) }
}

const fn pitr(name: &'static str, short: &'static str, groups: &'static [&'static [Flag]], verb: Verb) -> Command {
    Command { name, usage: "[flags]", short, long: "", groups, commands: NONE, action: Action::Pitr(verb) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn walk(command: &Command, see: &mut dyn FnMut(&Command)) {
        see(command);
        command.commands.iter().for_each(|below| walk(below, see));
    }

    #[test]
    fn every_spelling_is_one_flag_and_lists_are_in_order() {
        walk(&ROOT, &mut |command| {
            let mut names = BTreeSet::new();
            let own = command.flags().chain(ROOT.flags().filter(|_| command.name != ROOT.name));
            for name in own.flat_map(|flag| std::iter::once(&flag.name).chain(flag.also)) {
                assert!(names.insert(*name), "{}: --{name} twice", command.name);
            }
            assert!(command.commands.is_sorted_by_key(|below| below.name), "{}", command.name);
        });
    }

    #[test]
    fn every_documented_flag_is_there() {
        let flags = |path: &[&str]| {
            let find =
                |command: &'static Command, name: &&str| command.commands.iter().find(|below| below.name == *name);
            let root: &'static Command = &ROOT;
            let command = path.iter().fold(root, |command, name| find(command, name).expect("a command"));
            command
                .flags()
                .flat_map(|flag| std::iter::once(flag.name).chain(flag.also.iter().copied()))
                .collect::<BTreeSet<_>>()
        };
        let s3 = [
            "endpoint",
            "access_key_id",
            "secret_access_key",
            "bucket",
            "filepath",
            "region",
            "compression",
            "role_arn",
            "is_minio",
        ];
        for name in s3 {
            assert!(flags(&["backup"]).contains(name), "{name}");
            assert!(flags(&["check"]).contains(format!("backup_{name}").as_str()), "{name}");
            assert!(flags(&["restore"]).contains(format!("backup_{name}").as_str()), "{name}");
            assert!(flags(&["restore"]).contains(format!("restore_{name}").as_str()), "{name}");
        }
        for (path, names) in [
            (&["backup"][..], "host port user password backup_dir path parallelism meta_path backup_type base_id"),
            (&["list"], "ID access_key_id secret_access_key not_check_data meta_path"),
            (&["delete"], "access_key_id secret_access_key not_delete_data meta_path"),
            (&["check"], "backup_dir backup_path meta_path"),
            (
                &["restore"],
                "backup_dir backup_path restore_dir restore_path dn_config_path meta_path checksum parallelism base_id",
            ),
            (&["snapshot", "create"], "host port user password level account sname"),
            (&["snapshot", "show"], "host account sname cluster db table beginTs endTs"),
            (&["snapshot", "drop"], "host port user password sname"),
            (
                &["snapshot", "restore"],
                "account sname db table new_account new_admin_name new_admin_password newaccount newaccountadmin newaccountpwd",
            ),
            (&["pitr", "create"], "host hostname pname level account database table rangevalue rangeunit"),
            (&["pitr", "show"], "host hostname pname account database table cluster"),
            (&["pitr", "alter"], "host pname rangevalue rangeunit"),
            (&["pitr", "drop"], "host pname"),
            (
                &["pitr", "restore"],
                "pname timestamp account database table cluster new_account new_admin_name new_admin_password",
            ),
            (&["merge"], "backup_dir path target_path meta_path parallelism"),
            (&["repair_index"], "backup_dir path backup_id"),
        ] {
            for name in names.split(' ') {
                assert!(flags(path).contains(name), "{path:?} {name}");
            }
        }
    }
}
