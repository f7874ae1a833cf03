//! Which chunks the log's live fragments name: what a writer may not have to send again.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::format::fragment::Fragment;
use crate::id::{ChunkId, ObjectName};
use crate::repo::Repository;

/// The chunks of every live fragment with their plain lengths, in the order in which the fragments count.
pub async fn live_fragments(repository: &Repository) -> Result<Vec<(ObjectName, BTreeMap<ChunkId, u32>)>> {
    repository.refresh().await?;
    let mut live = Vec::new();
    for (_, name) in &repository.state().fragments {
        let fragment = Fragment::decode(&repository.get_named(name).await?)?;
        live.push((*name, fragment.entries.iter().map(|entry| (entry.id, entry.plain_len)).collect()));
    }
    Ok(live)
}
