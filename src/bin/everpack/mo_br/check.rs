//! `check`: every byte of a backup against its digest, by id or by place.

use std::sync::Arc;

use everpack::error::{Error, Result};
use everpack::ops::import::{self, FileState};

use super::Env;
use super::found::{Found, FoundTree, given_id};
use super::list::{check_stored, damaged, shown, small_file, table_of};
use super::place::{BACKUP_FROM, Keys, Place};
use crate::open::blocking;

pub(super) async fn run(env: &Env) -> Result<()> {
    let keys = Keys::given(&env.line, "backup_");
    let mut small = None;
    let found = match given_id(&env.line) {
        Some(id) => {
            let (line, found) = env.find(id, &keys).await?;
            env.print(&table_of(env, line.as_ref(), &found))?;
            env.print("\nChecking the backup data...\n\n")?;
            small = small_file(env, line.as_ref(), &keys).await;
            found
        }
        None => {
            let place = Place::given(&env.line, BACKUP_FROM)?.ok_or_else(|| {
                Error::invalid(
                    "check: name a backup by its ID, or a place by --backup_dir and --backup_path or --backup_bucket",
                )
            })?;
            env.find_in(place, &keys).await?
        }
    };
    match found {
        Found::Stored { repository, backup } => check_stored(env, &repository, &backup, true, small).await,
        Found::Tree(tree) => check_tree(env, tree).await,
    }
}

/// Every file against its digest and its list, then the closure: what its checkpoints name must be there.
async fn check_tree(env: &Env, tree: FoundTree) -> Result<()> {
    let (tree, earlier) = tree.open().await?;
    let monitor = env.progress.watch();
    let (lines, looked) = std::sync::mpsc::channel::<FileState>();
    let verified = blocking(move || {
        // If nobody listens any more, there is nothing left to tell.
        import::verify(&tree, &*monitor, &mut |state| drop(lines.send(state.clone())))?;
        drop(lines);
        let supplied = Arc::new((tree, earlier));
        let missing = lacking(&supplied.0, &supplied.1);
        let holes = import::holes(&supplied.0, &supplied.1)?;
        Ok((missing, holes))
    });
    let mut wrong = Vec::new();
    let tell = async {
        let (outcome, states) = tokio::join!(verified, drain(looked));
        (outcome, states)
    };
    let (outcome, states) = tell.await;
    for FileState { path, problem } in states {
        match problem {
            None => env.print(&format!("check: {}\n", shown(&path)))?,
            Some(why) => {
                env.print(&format!("check: {} FAILED: {}\n", shown(&path), crate::output::one_line(&why)))?;
                wrong.push(format!("{}: {why}", shown(&path)));
            }
        }
    }
    let (missing, holes) = outcome?;
    wrong.extend(
        missing.into_iter().map(|path| format!("{path}: neither this backup nor an earlier one beside it has it")),
    );
    wrong.extend(holes);
    damaged(&wrong)
}

async fn drain(states: std::sync::mpsc::Receiver<FileState>) -> Vec<FileState> {
    let all = tokio::task::spawn_blocking(move || states.into_iter().collect());
    all.await.unwrap_or_default()
}

/// What the list names and no tree holds.
fn lacking(tree: &import::Tree, earlier: &[import::Tree]) -> Vec<String> {
    let path = |row: &everpack::matrixone::tree::ListedFile| format!("tae/{}", row.path);
    let has = |path: &str| std::iter::once(tree).chain(earlier).any(|tree| tree.holds(path.as_bytes()));
    tree.list().iter().map(path).filter(|path| !has(path)).collect()
}
