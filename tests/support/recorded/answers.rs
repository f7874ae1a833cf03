//! What a statement is answered: from the transcripts, from the test, and a few answers that no recording can hold.
//!
//! A transcript is a story: the same statement has other answers as it goes on. So each one keeps its place, and a statement is answered by
//! its next record behind that place, else by the last one before it.

use std::path::PathBuf;

use everpack::tae::Ts;
use serde_json::Value;

use super::tokens::{Piece, folded, pieces};

/// What goes back to the client.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A plain OK.
    Done {
        affected: u64,
    },
    /// Rows: columns with their type codes, and their values.
    Rows {
        columns: Vec<(String, u8)>,
        rows: Vec<Vec<Option<String>>>,
    },
    Error {
        code: u16,
        message: String,
    },
    /// The connection is cut.
    Cut,
    /// The server is gone.
    Dies,
}

impl Answer {
    pub fn error(code: u16, message: &str) -> Self {
        Self::Error { code, message: message.to_owned() }
    }

    /// Rows of text.
    pub fn rows(columns: &[&str], rows: &[&[&str]]) -> Self {
        Self::Rows {
            columns: columns.iter().map(|&name| (name.to_owned(), 253)).collect(),
            rows: rows.iter().map(|row| row.iter().map(|&value| Some(value.to_owned())).collect()).collect(),
        }
    }
}

/// All that is known.
pub struct Answers {
    own: Vec<(Vec<Piece>, Answer)>,
    stories: Vec<Story>,
}

struct Story {
    records: Vec<Record>,
    at: usize,
}

struct Record {
    sql: Vec<Piece>,
    /// Who asked: the `as …` of its note; `None` is a user of sys.
    user: Option<String>,
    answer: Answer,
}

impl Answers {
    pub fn load(transcripts: &[PathBuf], own: &[(String, Answer)]) -> Self {
        let mut answers = Self { own: Vec::new(), stories: Vec::new() };
        for path in transcripts {
            let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let records = text.lines().filter_map(|line| Record::read(&serde_json::from_str(line).unwrap())).collect();
            answers.stories.push(Story { records, at: 0 });
        }
        for (sql, answer) in own {
            answers.add(sql, answer.clone());
        }
        answers
    }

    pub fn add(&mut self, sql: &str, answer: Answer) {
        self.own.insert(0, (folded(&pieces(sql)), answer));
    }

    /// The answer to a statement; `own_only` leaves the transcripts out.
    pub fn find(&mut self, sql: &[Piece], user: &str, own_only: bool) -> Option<Answer> {
        let sql = folded(sql);
        if let Some((_, answer)) = self.own.iter().find(|(known, _)| *known == sql) {
            return Some(answer.clone());
        }
        if own_only {
            return None;
        }
        self.stories.iter_mut().find_map(|story| story.find(&sql, user))
    }
}

impl Story {
    fn find(&mut self, sql: &[Piece], user: &str) -> Option<Answer> {
        let fits = |record: &Record| record.sql == sql && record.is_by(user);
        let (before, behind) = self.records.split_at(self.at);
        let found = match behind.iter().position(fits) {
            Some(at) => {
                self.at += at + 1;
                self.at - 1
            }
            None => before.iter().rposition(fits)?,
        };
        Some(self.records[found].answer.clone())
    }
}

impl Record {
    fn read(value: &Value) -> Option<Self> {
        let sql = value["sql"].as_str()?;
        let note = value["note"].as_str().unwrap_or_default();
        let user = note.split("; ").find_map(|part| part.strip_prefix("as ")).map(str::to_owned);
        Some(Self { sql: folded(&pieces(sql)), user, answer: answer_of(value) })
    }

    fn is_by(&self, user: &str) -> bool {
        let plain = user.replace('#', ":");
        match &self.user {
            Some(own) => {
                *own == plain || own.strip_prefix("sys:").is_some_and(|own| own.split(':').next() == Some(&plain))
            }
            // Users of sys that a transcript speaks of by name have no privileges; all others share what root was told.
            None => super::account_of(user) == "sys" && plain != "bk",
        }
    }
}

fn answer_of(value: &Value) -> Answer {
    if let Some(error) = value["error"].as_object() {
        let code = error["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(20101);
        let message = error["text"].as_str().unwrap_or_default();
        return if code == 2013 { Answer::Dies } else { Answer::error(code, message) };
    }
    match (value["columns"].as_array(), value["rows"].as_array()) {
        (Some(columns), Some(rows)) => Answer::Rows {
            columns: columns
                .iter()
                .map(|column| {
                    let kind = column["type"].as_u64().and_then(|kind| u8::try_from(kind).ok()).unwrap_or(253);
                    (column["name"].as_str().unwrap_or_default().to_owned(), kind)
                })
                .collect(),
            rows: rows.iter().map(|row| row.as_array().unwrap().iter().map(text_of).collect()).collect(),
        },
        _ => Answer::Done { affected: value["affected"].as_u64().unwrap_or(0) },
    }
}

/// A value as the text protocol sends it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Questions by which a client learns where it is.
#[derive(Clone, Copy)]
pub enum Identity {
    Version,
    VersionComment,
    Account,
}

pub fn identity_question(sql: &str) -> Option<Identity> {
    match sql.trim_end_matches(';').trim().to_lowercase().as_str() {
        "select version()" | "select @@version" => Some(Identity::Version),
        "select @@version_comment" => Some(Identity::VersionComment),
        "select current_account_name()" => Some(Identity::Account),
        _ => None,
    }
}

pub fn identity(question: Identity, release: &str, account: &str) -> Answer {
    match question {
        Identity::Version => Answer::rows(&["version()"], &[&[release]]),
        Identity::VersionComment if release.contains("MatrixOne") => {
            Answer::rows(&["@@version_comment"], &[&["MatrixOne"]])
        }
        Identity::VersionComment => Answer::rows(&["@@version_comment"], &[&["Source distribution"]]),
        Identity::Account => Answer::rows(&["current_account_name()"], &[&[account]]),
    }
}

/// `kill [query] N`.
pub fn kill_target(pieces: &[Piece]) -> Option<u32> {
    let [first, rest @ ..] = pieces else { return None };
    let number = match rest {
        [query, Piece::Word(number)] if query.is_word("query") || query.is_word("connection") => number,
        [Piece::Word(number)] => number,
        _ => return None,
    };
    if first.is_word("kill") { number.parse().ok() } else { None }
}

/// `mo_ctl('dn','DiskCleaner','add_checker.backup.<ts>')`: whether the timestamp is one.
pub fn checker(pieces: &[Piece]) -> Option<bool> {
    let text = pieces.iter().filter_map(Piece::text).nth(2)?;
    let is_control = pieces.iter().any(|piece| piece.is_word("mo_ctl"));
    let ts = text.strip_prefix("add_checker.backup.")?;
    is_control.then(|| Ts::parse(ts.as_bytes()).is_some())
}

/// What `mo_ctl` says when something is done.
pub fn control_done(method: &str) -> Answer {
    let json = format!(
        "{{\n  \"method\": \"{method}\",\n  \"result\": [\n    {{\n      \"returnStr\": \"OK\"\n    }}\n  ]\n}}\n"
    );
    Answer::rows(&[&format!("mo_ctl(dn, {method}, )")], &[&[&json]])
}
