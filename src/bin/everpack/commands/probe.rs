//! TEMPORARY.
use super::Context;
use crate::errors::Exit;
use everpack::error::Result;
/// Find out what a store can do.
#[derive(Debug, clap::Args)]
pub(crate) struct ProbeArgs {
    /// The store, as for --repo [default: the repository's].
    url: Option<String>,
}
pub(crate) async fn run(_context: &Context, _args: ProbeArgs) -> Result<Exit> {
    Ok(Exit::Refused)
}
