//! Statements, as text: names and strings quoted, and refused where the server would do something else than was asked for.

pub(crate) mod token;
