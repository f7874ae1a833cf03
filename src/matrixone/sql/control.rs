//! What a backup asks of the server besides: checkpoints, and protection from garbage collection.
//!
//! `add_checker.backup.<garbage>` panics the TN, which in a standalone server is the whole process: the statement can be made from a [`Ts`] alone.

use crate::error::{Error, ErrorKind, Result};
use crate::matrixone::client::Row;
use crate::tae::Ts;

/// A request by `mo_ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Makes an incremental checkpoint of everything up to now.
    Checkpoint,
    /// Makes a global checkpoint.
    GlobalCheckpoint,
    /// Keeps garbage collection from running, for 20 minutes; there is one such protection for a whole cluster, and the latest counts.
    Protect(Ts),
    /// Ends the protection.
    Unprotect,
}

impl Control {
    /// The statement.
    pub fn sql(&self) -> Result<String> {
        Ok(match self {
            Self::Checkpoint => "select mo_ctl('dn','checkpoint','')".to_owned(),
            Self::GlobalCheckpoint => "select mo_ctl('dn','globalcheckpoint','')".to_owned(),
            Self::Protect(ts) if ts.physical <= 0 => {
                return Err(Error::invalid(format!(
                    "protect {ts} from garbage collection: that is the time of no backup"
                )));
            }
            Self::Protect(ts) => format!("select mo_ctl('dn','DiskCleaner','add_checker.backup.{ts}')"),
            Self::Unprotect => "select mo_ctl('dn','DiskCleaner','remove_checker.backup.')".to_owned(),
        })
    }

    /// Reads the answer: a document that has to say OK.
    pub fn check(&self, rows: &[Row]) -> Result<()> {
        let odd = || {
            Error::new(
                ErrorKind::Unsupported,
                format!("{self:?}: the server's answer is not known: {:?}", rows.first()),
            )
        };
        let text = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).ok_or_else(odd)?;
        let answer: serde_json::Value = serde_json::from_str(text).map_err(|_| odd())?;
        let results = answer["result"].as_array().ok_or_else(odd)?;
        for result in results {
            match result["returnStr"].as_str() {
                Some("OK") => {}
                Some(said) => {
                    return Err(Error::new(ErrorKind::Unavailable, format!("{self:?}: the server says {said:?}")));
                }
                None => return Err(odd()),
            }
        }
        if results.is_empty() { Err(odd()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        vec![vec![Some(text.to_owned())]]
    }

    #[test]
    fn requests_are_what_the_server_knows() {
        let ts = Ts::parse(b"1795235280963135674-1").unwrap();
        for (control, sql) in [
            (Control::Checkpoint, "select mo_ctl('dn','checkpoint','')"),
            (Control::GlobalCheckpoint, "select mo_ctl('dn','globalcheckpoint','')"),
            (Control::Protect(ts), "select mo_ctl('dn','DiskCleaner','add_checker.backup.1795235280963135674-1')"),
            (Control::Unprotect, "select mo_ctl('dn','DiskCleaner','remove_checker.backup.')"),
        ] {
            assert_eq!(control.sql().unwrap(), sql);
        }
        assert!(Control::Protect(Ts { physical: -5, logical: 0 }).sql().is_err());
        assert!(Control::Protect(Ts::ZERO).sql().is_err());
    }

    #[test]
    fn answers_have_to_say_ok() {
        let ok =
            "{\n  \"method\": \"Checkpoint\",\n  \"result\": [\n    {\n      \"returnStr\": \"OK\"\n    }\n  ]\n}\n";
        Control::Checkpoint.check(&rows(ok)).unwrap();
        let refused = "{\"method\":\"Checkpoint\",\"result\":[{\"returnStr\":\"OK\"},{\"returnStr\":\"context deadline exceeded\"}]}";
        let error = Control::Checkpoint.check(&rows(refused)).unwrap_err();
        assert!(error.to_string().contains("context deadline exceeded"), "{error}");
        for odd in ["", "OK", "{}", "{\"result\":[]}", "{\"result\":[{}]}", "{\"result\":\"OK\"}"] {
            assert_eq!(Control::Checkpoint.check(&rows(odd)).unwrap_err().kind(), ErrorKind::Unsupported, "{odd}");
        }
        assert!(Control::Checkpoint.check(&[]).is_err());
        assert!(Control::Checkpoint.check(&[vec![None]]).is_err());
    }
}
