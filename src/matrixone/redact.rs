//! Takes passwords and keys out of what is shown of a statement and of a server's answer to it.
//!
//! A string in a statement is a secret where it stands behind `identified by` or is the value of an option whose name says so
//! (`secret_access_key`, …). A server's syntax error repeats a statement from somewhere in its middle, so a secret may come back cut in two:
//! if a statement holds one, nothing that a server quotes of it is shown.

use crate::matrixone::sql::token::{Token, tokens};

/// As much of a statement as an error shows.
const SHOWN_MOST: usize = 160;
const HIDDEN: &str = "***";

/// The secrets of one statement.
pub(crate) struct Redaction<'a> {
    sql: &'a str,
    /// Byte ranges of the secret strings, quotes included.
    spans: Vec<std::ops::Range<usize>>,
    /// What they say, as written and as meant.
    texts: Vec<String>,
}

impl<'a> Redaction<'a> {
    /// Finds the secrets of a statement.
    pub(crate) fn of(sql: &'a str) -> Self {
        let mut found = Self { sql, spans: Vec::new(), texts: Vec::new() };
        let tokens = tokens(sql);
        for (at, token) in tokens.iter().enumerate() {
            let Token::Text { value, span } = token else { continue };
            if is_secret(&tokens[..at]) {
                found.texts.push(value.clone());
                found.texts.push(sql.get(span.start + 1..span.end.saturating_sub(1)).unwrap_or_default().to_owned());
                found.spans.push(span.clone());
            }
        }
        found.texts.retain(|text| !text.is_empty());
        // The longest first: one may begin with another.
        found.texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found.texts.dedup();
        found
    }

    /// The statement with its secrets hidden.
    pub(crate) fn sql(&self) -> String {
        let mut shown = String::with_capacity(self.sql.len());
        let mut from = 0;
        for span in &self.spans {
            shown.push_str(&self.sql[from..span.start]);
            shown.push_str("'***'");
            from = span.end;
        }
        shown.push_str(&self.sql[from..]);
        shown
    }

    /// The same, cut to what an error has room for.
    pub(crate) fn shown(&self) -> String {
        let sql = self.sql();
        let mut shown: String = sql.chars().take(SHOWN_MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if shown.len() < sql.len() {
            shown.push('…');
        }
        shown
    }

    /// What a server said, without the secrets.
    pub(crate) fn clean(&self, said: &str) -> String {
        if self.spans.is_empty() {
            return said.to_owned();
        }
        let mut clean = match said.find(" near ") {
            Some(at) => format!("{} near …", &said[..at]),
            None => said.to_owned(),
        };
        for text in &self.texts {
            clean = clean.replace(text.as_str(), HIDDEN);
        }
        clean
    }
}

/// Whether a string behind these tokens is a secret.
fn is_secret(before: &[Token]) -> bool {
    match before {
        [.., Token::Word(first), Token::Word(second)] => {
            first.eq_ignore_ascii_case("identified") && matches!(second.to_ascii_lowercase().as_str(), "by" | "with")
        }
        [.., Token::Text { value: key, .. }, Token::Sign('=')] => {
            let key = key.to_ascii_lowercase();
            ["secret", "password", "token", "passwd"].iter().any(|word| key.contains(word))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_stand() {
        for (sql, shown) in [
            (
                "create account `b` admin_name 'adm' identified by 'hunter2'",
                "create account `b` admin_name 'adm' identified by '***'",
            ),
            ("ALTER USER x IDENTIFIED BY \"hun''ter2\" comment 'c'", "ALTER USER x IDENTIFIED BY '***' comment 'c'"),
            (
                "backup 'l' s3option {'bucket'='b','secret_access_key'='hunter2'}",
                "backup 'l' s3option {'bucket'='b','secret_access_key'='***'}",
            ),
            (
                "backup 'l' s3option {'SECRET_ACCESS_KEY' = 'hun\\'ter2', 'x'='y'}",
                "backup 'l' s3option {'SECRET_ACCESS_KEY' = '***', 'x'='y'}",
            ),
            ("select 'hunter2'", "select 'hunter2'"),
        ] {
            assert_eq!(Redaction::of(sql).sql(), shown);
        }
    }

    #[test]
    fn answers_that_repeat_a_statement_lose_its_secrets() {
        let sql = "create account `b` admin_name 'adm' identified by 'hun\\'ter2' oops";
        let redaction = Redaction::of(sql);
        for said in [
            "SQL parser error: You have an error; syntax error at line 1 column 7 near \" by 'hun\\'ter2' oops\";",
            "no such thing: hun'ter2",
            "no such thing: hun\\'ter2",
        ] {
            let clean = redaction.clean(said);
            assert!(!clean.contains("ter2"), "{clean}");
        }
        assert_eq!(Redaction::of("selec 1").clean("error near \"selec 1\""), "error near \"selec 1\"");
    }

    #[test]
    fn long_statements_are_cut_for_errors() {
        let sql = format!("select '{}'", "數".repeat(10_000));
        let shown = Redaction::of(&sql).shown();
        assert!(shown.ends_with('…') && shown.chars().count() == SHOWN_MOST + 1);
    }
}
