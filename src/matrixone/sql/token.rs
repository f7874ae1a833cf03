//! Takes a statement apart as the server's scanner does: words, quoted names, strings, signs.
//!
//! Used to find secrets in statements, and by tests to prove that what was quoted is read back. Never fails: what has no end ends with the
//! statement.

use std::ops::Range;

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A keyword, a bare name or a number.
    Word(String),
    /// A name in backticks, without them.
    Name(String),
    /// A string, as the server understands it, and the bytes that it takes, quotes included.
    Text {
        /// What it says.
        value: String,
        /// Where it stands.
        span: Range<usize>,
    },
    /// Anything else.
    Sign(char),
}

/// The pieces of a statement.
pub(crate) fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut chars = sql.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '`' | '\'' | '"' => {
                let mut value = String::new();
                let mut end = sql.len();
                while let Some((at, inner)) = chars.next() {
                    if inner == c {
                        if chars.next_if(|&(_, next)| next == c).is_none() {
                            end = at + 1;
                            break;
                        }
                        value.push(c);
                    } else if inner == '\\' && c != '`' {
                        value.push(chars.next().map_or('\\', |(_, escaped)| unescaped(escaped)));
                    } else {
                        value.push(inner);
                    }
                }
                found.push(if c == '`' { Token::Name(value) } else { Token::Text { value, span: start..end } });
            }
            c if is_word(c) => {
                let mut word = String::from(c);
                while let Some((_, next)) = chars.next_if(|&(_, next)| is_word(next)) {
                    word.push(next);
                }
                found.push(Token::Word(word));
            }
            c => found.push(Token::Sign(c)),
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '@')
}

fn unescaped(c: char) -> char {
    match c {
        '0' => '\0',
        'b' => '\u{8}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'Z' => '\u{1a}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_come_apart() {
        let text = |value: &str, span| Token::Text { value: value.into(), span };
        assert_eq!(
            tokens("drop `a``b` 'c\\'d''e'=\"f'\""),
            [
                Token::Word("drop".into()),
                Token::Name("a`b".into()),
                text("c'd'e", 12..21),
                Token::Sign('='),
                text("f'", 22..26),
            ]
        );
        assert_eq!(tokens("'open"), [text("open", 0..5)]);
        assert_eq!(tokens("'\\"), [text("\\", 0..2)]);
    }
}
