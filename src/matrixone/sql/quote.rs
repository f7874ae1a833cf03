//! Names and strings in statements.
//!
//! Every name goes out in backticks and every string in single quotes, so that nothing in them is read as anything else. A quote is doubled, never
//! escaped by a backslash, so it ends a string under no `sql_mode`. Control characters are refused: no name of a real object holds them, and
//! logs and terminals would show something else than was sent.
//!
//! The server folds every name to lower case, in backticks too: names are compared folded ([`fold`]).

use crate::error::{Error, Result};

/// A name, in backticks.
pub fn identifier(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::invalid("a name is empty"));
    }
    refuse_controls("the name", name)?;
    Ok(format!("`{}`", name.replace('`', "``")))
}

/// A string, in single quotes.
pub fn string(text: &str) -> Result<String> {
    refuse_controls("the text", text)?;
    Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// A name as the server keeps it.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// True if the server takes two names for the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    fold(one) == fold(other)
}

/// The name of a snapshot or a PITR, in backticks; `kind` says of which.
pub(super) fn object_name(kind: &str, name: &str) -> Result<String> {
    const MOST: usize = 64;
    if name.is_empty() {
        return Err(Error::invalid(format!("{kind} name should not be empty")));
    }
    if name.contains([' ', '\t', '`', '\'', '"']) {
        return Err(Error::invalid(format!(
            "{kind} {name:?}: the server takes no blanks and no quotes in such a name"
        )));
    }
    if name.chars().count() > MOST {
        return Err(Error::invalid(format!("{kind} {name:?}: a name has at most {MOST} characters")));
    }
    identifier(name)
}

/// The name of an account, in backticks.
pub(super) fn account_name(name: &str) -> Result<String> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return identifier(name);
    }
    Err(Error::invalid(format!("account {name:?}: the name of an account holds letters, digits, _ and - alone")))
}

fn refuse_controls(what: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{what} {text:?} holds control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::token::{Token, tokens};
    use super::*;

    fn text_of(token: &Token) -> Option<&str> {
        match token {
            Token::Text { value, .. } => Some(value),
            _ => None,
        }
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(identifier("a`b'c\"d\\e").unwrap(), "`a``b'c\"d\\e`");
        assert_eq!(string("it's a \"\\`\"").unwrap(), "'it''s a \"\\\\`\"'");
        for wrong in ["a\0b", "a\nb", "a\u{7f}", "\u{85}"] {
            assert!(identifier(wrong).is_err() && string(wrong).is_err(), "{wrong:?}");
        }
        assert!(identifier("").is_err() && string("").is_ok());
    }

    #[test]
    fn names_that_the_server_refuses_are_refused_here() {
        for wrong in ["", "a b", "a\tb", "a`b", "a'b", "a\"b", &"s".repeat(65)] {
            assert!(object_name("snapshot", wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(object_name("snapshot", "sn-q").unwrap(), "`sn-q`");
        assert_eq!(account_name("01a1fc5b-95b0").unwrap(), "`01a1fc5b-95b0`");
        for wrong in ["", "a.b", "a b", "ü", "a#b", "a`"] {
            assert!(account_name(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_in_is_read_back(name in "[`'\"\\\\a-c. ;/*-]{1,12}|\\PC{1,12}") {
            let statement = format!("drop snapshot {} 'x'", identifier(&name).unwrap());
            let pieces = tokens(&statement);
            prop_assert_eq!(pieces.len(), 4);
            prop_assert_eq!(&pieces[2], &Token::Name(name.clone()));

            let statement = format!("select {},'x'", string(&name).unwrap());
            let pieces = tokens(&statement);
            prop_assert_eq!(pieces.len(), 4);
            prop_assert_eq!(text_of(&pieces[1]), Some(name.as_str()));
        }
    }
}
