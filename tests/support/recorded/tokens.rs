//! Takes statements apart, so that spelling does not matter: `DROP SNAPSHOT `s`` is `drop snapshot s`.
//!
//! Written for tests alone and apart from the program's own scanner: it is what proves that quoted names are read back.

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// A bare word, as written.
    Word(String),
    /// What stands in backticks.
    Name(String),
    /// What a string says.
    Text(String),
    Sign(char),
    /// A quote that never ends.
    Unfinished,
}

impl Piece {
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word))
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The pieces of a statement.
pub fn pieces(sql: &str) -> Vec<Piece> {
    let chars: Vec<char> = sql.chars().collect();
    let (mut at, mut found) = (0, Vec::new());
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        if c.is_whitespace() {
            continue;
        }
        if matches!(c, '\'' | '"' | '`') {
            let mut text = String::new();
            let piece = loop {
                match chars.get(at) {
                    None => break Piece::Unfinished,
                    Some(&inner) if inner == c && chars.get(at + 1) == Some(&c) => {
                        text.push(c);
                        at += 2;
                    }
                    Some(&inner) if inner == c => {
                        at += 1;
                        break if c == '`' { Piece::Name(text) } else { Piece::Text(text) };
                    }
                    Some('\\') if c != '`' => {
                        match chars.get(at + 1) {
                            Some('n') => text.push('\n'),
                            Some('t') => text.push('\t'),
                            Some('r') => text.push('\r'),
                            Some('0') => text.push('\0'),
                            Some('b') => text.push('\u{8}'),
                            Some('Z') => text.push('\u{1a}'),
                            Some(&other) => text.push(other),
                            None => break Piece::Unfinished,
                        }
                        at += 2;
                    }
                    Some(&inner) => {
                        text.push(inner);
                        at += 1;
                    }
                }
            };
            found.push(piece);
        } else if c.is_alphanumeric() || matches!(c, '_' | '@' | '$') {
            let mut word = String::from(c);
            while let Some(&next) =
                chars.get(at).filter(|next| next.is_alphanumeric() || matches!(next, '_' | '@' | '$'))
            {
                word.push(next);
                at += 1;
            }
            found.push(Piece::Word(word));
        } else {
            found.push(Piece::Sign(c));
        }
    }
    found
}

/// The same for comparing: names and words are folded and told apart no more; the name of a snapshot may be a string.
pub fn folded(pieces: &[Piece]) -> Vec<Piece> {
    let mut found: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let in_clause = matches!(
            found.as_slice(),
            [.., Piece::Sign('{'), Piece::Word(word), Piece::Sign('=')] if word == "snapshot"
        );
        let in_control = matches!(
            found.as_slice(),
            [.., Piece::Word(word), Piece::Sign('('), Piece::Text(_), Piece::Sign(',')] if word == "mo_ctl"
        );
        found.push(match piece {
            Piece::Word(word) | Piece::Name(word) => Piece::Word(word.to_lowercase()),
            Piece::Text(text) if in_clause => Piece::Word(text.to_lowercase()),
            // The method of mo_ctl is read without regard to case.
            Piece::Text(text) if in_control => Piece::Text(text.to_lowercase()),
            other => other.clone(),
        });
    }
    while found.last() == Some(&Piece::Sign(';')) {
        found.pop();
    }
    found
}
