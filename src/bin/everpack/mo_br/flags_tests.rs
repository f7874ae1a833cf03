//! What pflag does, one rule a test; and nothing ever panics.

use super::*;
use proptest::prelude::*;

fn line(words: &[&str]) -> Line {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    parse(&words).unwrap_or_else(|wrong| panic!("{words:?}: {wrong:?}"))
}

fn wrong(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    match parse(&words).expect_err("it is wrong") {
        Wrong::Command { message, .. } | Wrong::Flag { message, .. } => message,
    }
}

fn names(line: &Line) -> Vec<&'static str> {
    line.path.iter().map(|command| command.name).collect()
}

#[test]
fn values_stand_behind_a_blank_or_an_equals_sign() {
    for words in [&["backup", "--host", "h", "--port=6001"][..], &["backup", "--host=h", "--port", "6001"]] {
        let line = line(words);
        assert_eq!((line.text("host"), line.text("port")), (Some("h"), Some("6001")));
    }
    assert_eq!(line(&["backup", "--password=a=b"]).text("password"), Some("a=b"));
}

#[test]
fn a_flag_swallows_the_next_word_whatever_it_is() {
    let line = line(&["snapshot", "restore", "--db", "--sname", "sp11"]);
    assert_eq!((line.text("db"), line.text("sname")), (Some("--sname"), None));
    assert_eq!(line.words, ["sp11"]);
}

#[test]
fn booleans_take_a_value_only_behind_an_equals_sign() {
    let line1 = line(&["backup", "--is_minio", "false"]);
    assert!(line1.is_set("is_minio"));
    assert_eq!(line1.words, ["false"]);
    assert!(!line(&["backup", "--is_minio=false"]).is_set("is_minio"));
    assert!(line(&["backup", "--is_minio=T"]).is_set("is_minio"));
    assert!(wrong(&["backup", "--is_minio=yes"]).contains("strconv.ParseBool"));
}

#[test]
fn the_last_one_counts_and_two_dashes_end_the_flags() {
    let line = line(&["list", "--meta_path", "a", "--meta_path=b", "--", "--meta_path", "c"]);
    assert_eq!(line.text("meta_path"), Some("b"));
    assert_eq!(line.words, ["--meta_path", "c"]);
}

#[test]
fn flags_and_the_command_come_in_any_order() {
    let line1 = line(&["--meta_path", "X", "list"]);
    assert_eq!((names(&line1), line1.text("meta_path")), (vec!["mo_br", "list"], Some("X")));
    let line2 = line(&["--log_level", "debug", "restore", "--backup_is_minio", "ID", "--config=c"]);
    assert_eq!((line2.word(), line2.text("log_level"), line2.text("config")), (Some("ID"), Some("debug"), Some("c")));
    let line3 = line(&["--is_minio", "backup"]);
    assert_eq!(names(&line3), ["mo_br", "backup"]);
    let line4 = line(&["snapshot", "--host", "h", "show", "--port", "1"]);
    assert_eq!((names(&line4), line4.text("host")), (vec!["mo_br", "snapshot", "show"], Some("h")));
}

#[test]
fn empty_words_are_nothing() {
    let line = line(&["", "backup", "", "--region", "", "--parallelism", "", "--path", "p"]);
    assert_eq!(names(&line), ["mo_br", "backup"]);
    assert_eq!((line.text("region"), line.text("path"), line.word()), (None, Some("p"), None));
    assert!(line.is_given("region"));
}

#[test]
fn one_pair_of_quotes_is_taken_off() {
    let line = line(&["restore", "--restore_bucket", "\"b\"", "--restore_region", "'r'", "--restore_endpoint", "\"e'"]);
    assert_eq!(line.unquoted("restore_bucket"), Some("b"));
    assert_eq!(line.unquoted("restore_region"), Some("r"));
    assert_eq!(line.unquoted("restore_endpoint"), Some("\"e'"));
    assert_eq!(unquote("\"\"x\"\""), "\"x\"");
    assert_eq!(unquote("\""), "\"");
}

#[test]
fn both_spellings_of_a_flag_are_one() {
    let line1 = line(&["pitr", "show", "--hostname", "h"]);
    assert_eq!(line1.text("host"), Some("h"));
    let line2 = line(&["snapshot", "restore", "--newaccount=b", "--new_account", "c", "--newaccountpwd", "p"]);
    assert_eq!((line2.text("new_account"), line2.text("new_admin_password")), (Some("c"), Some("p")));
    let line3 = line(&["restore", "--path", "x"]);
    assert_eq!(line3.text("backup_path"), Some("x"));
}

#[test]
fn what_is_wrong_is_said_in_pflags_words() {
    assert_eq!(wrong(&["list", "--nope"]), "unknown flag: --nope");
    assert_eq!(wrong(&["list", "--nope=1", "--other"]), "unknown flag: --nope");
    assert_eq!(wrong(&["list", "--role_arn X"]), "unknown flag: --role_arn X");
    assert_eq!(wrong(&["list", "--meta_path"]), "flag needs an argument: --meta_path");
    assert_eq!(wrong(&["list", "-x"]), "unknown shorthand flag: 'x' in -x");
    assert_eq!(wrong(&["list", "--=x"]), "bad flag syntax: --=x");
    assert_eq!(
        wrong(&["backup", "--port", "x"]),
        "invalid argument \"x\" for \"--port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    );
    assert_eq!(wrong(&["lisst"]), "unknown command \"lisst\" for \"mo_br\"\n\nDid you mean this?\n\tlist\n");
    assert_eq!(wrong(&["frobnicate"]), "unknown command \"frobnicate\" for \"mo_br\"");
}

#[test]
fn help_is_asked_for_anywhere() {
    assert!(line(&["-h"]).help);
    assert!(line(&["backup", "--host", "x", "--help"]).help);
    assert!(!line(&["backup", "--host", "--help"]).help);
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(words in proptest::collection::vec(
        prop_oneof![
            "(backup|list|snapshot|show|pitr|restore|--|-|-h|--host|--is_minio|--port=1|--help|)",
            "-{0,3}[a-zA-Z_=\"' é]{0,8}",
            ".{0,6}",
        ],
        0..8,
    )) {
        let _either = parse(&words);
    }
}
