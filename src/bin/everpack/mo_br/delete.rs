//! `delete`: a backup leaves the catalogue, and the repository's list.

use everpack::error::{Context, Error, ErrorKind, Result};
use everpack::ops::forget::{ForgetOptions, Which, forget};
use everpack::repo::{BackupInfo, Repository};
use everpack::store::{ObjectPath, Store};

use super::Env;
use super::found::{Found, given_id};
use super::meta::{Catalogue, MetaLine, Record};
use super::place::Keys;

pub(super) async fn run(env: &Env) -> Result<()> {
    let id = given_id(&env.line)
        .ok_or_else(|| Error::invalid("delete: the ID of the backup is missing; `mo_br list` shows them"))?;
    let keys = Keys::given(&env.line, "");
    if !env.line.is_set("not_delete_data") {
        let (line, found) = match env.find(id, &keys).await {
            Ok((line, found)) => (line, Some(found)),
            Err(error) => gone(env, id, error)?,
        };
        match found {
            Some(Found::Tree(tree)) => {
                let message = format!(
                    "delete {id}: it is a tree in a directory, {}, as another tool or `mo_br merge` wrote it. Others may build on it, so everpack does \
                     not remove it: import them first (`everpack import`), or remove it yourself; `--not_delete_data` drops the line",
                    tree.place.url()
                );
                return Err(Error::invalid(message));
            }
            Some(Found::Stored { repository, backup }) => forget_it(env, id, &repository, &backup).await?,
            None => {}
        }
        if let Some(MetaLine::Ours(record)) = &line {
            clear_place(env, record, &keys).await;
        }
    }
    let mut catalogue = Catalogue::lock(env.meta_path())?;
    if catalogue.find(id).is_none() && env.line.is_set("not_delete_data") {
        let message = format!("backup {id}: it is not in {}; `mo_br list` shows what is", catalogue.name());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    if catalogue.find(id).is_some() {
        catalogue.remove(id)?;
    }
    Ok(())
}

/// Takes the backup out of the repository's list, unless another line of the catalogue stands for it as well.
async fn forget_it(env: &Env, id: &str, repository: &Repository, backup: &BackupInfo) -> Result<()> {
    if !is_the_last(env, id, &backup.id.to_string())? {
        return Ok(());
    }
    let options =
        ForgetOptions { which: Which::Named(vec![backup.id]), reason: format!("mo_br delete {id}"), dry_run: false };
    forget(repository, &options).await.map(drop).context(|| format!("delete {id}"))
}

/// A backup of ours that its repository no longer lists was deleted before, but for its line.
fn gone(env: &Env, id: &str, error: Error) -> Result<(Option<MetaLine>, Option<Found>)> {
    let line = env.catalogue()?.find(id).cloned();
    if error.kind() == ErrorKind::NotFound
        && matches!(line, Some(MetaLine::Ours(_)))
        && error.message().contains("it was forgotten")
    {
        env.note(&format!("backup {id} had left the repository already"));
        return Ok((line, None));
    }
    Err(error)
}

/// True unless another line stands for the same backup in the repository.
fn is_the_last(env: &Env, id: &str, backup: &str) -> Result<bool> {
    let catalogue = env.catalogue()?;
    let other = |line: &MetaLine| matches!(line, MetaLine::Ours(record) if record.backup == backup && !record.id.eq_ignore_ascii_case(id));
    Ok(!catalogue.lines.iter().any(other))
}

/// Removes the small files that callers look at. The backup is gone either way, so what cannot be removed is only told.
async fn clear_place(env: &Env, record: &Record, keys: &Keys) {
    let removed = async {
        let store = record.place.open(keys, env.settings.virtual_host)?;
        let mut objects = Vec::new();
        for path in small_files(&record.kind, &record.id) {
            let path = ObjectPath::parse(&path)?;
            if store.exists(path.clone()).await? {
                objects.push(path);
            }
        }
        store.delete_many(objects).await?;
        remove_directory(&store, record);
        Ok::<_, Error>(())
    };
    if let Err(error) = removed.await {
        env.note(&format!("the backup was deleted; its small files in {} were not: {error}", record.place.url()));
    }
}

/// What a backup leaves in its place.
pub(super) fn small_files(kind: &str, id: &str) -> Vec<String> {
    let inside = ["backup_meta", "mo_meta", "mo_meta.sha256"].map(|name| format!("{kind}-{id}/{name}"));
    inside.into_iter().chain([format!("{id}.meta"), format!("{id}.meta.sha256")]).collect()
}

/// The directory of a backup, if nothing is left in it.
fn remove_directory(store: &Store, record: &Record) {
    if let Some(root) = store.local_path() {
        // Whatever somebody else put there stays.
        let _kept = std::fs::remove_dir(root.join(format!("{}-{}", record.kind, record.id)));
    }
}
