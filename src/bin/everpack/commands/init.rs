//! `init`: makes a repository.

use everpack::error::{Error, Result};
use everpack::id::RepositoryId;
use everpack::repo::{Chunking, InitOptions, Repository, StoreFacts};
use everpack::units::{self, KIB, MIB};

use super::Context;
use crate::args::parse_size;
use crate::errors::Exit;
use crate::open::{create_store, environment};

const LONG_ABOUT: &str = "\
Makes a repository in an empty place: a directory or a prefix of a bucket. The place is probed first, and refused if two writers \
could overwrite each other unnoticed there.

How files are cut is decided here and for ever. The default suits repositories up to about 20 TB; beyond, take --chunk-size 128K.

  everpack -r /backup/everpack init
  everpack -r s3://backups/shop --endpoint https://s3.example.org init";

/// Make a repository.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct InitArgs {
    /// Average chunk of MatrixOne objects, 16K to 1M, a power of two: smaller finds more again after merges, larger keeps the index small.
    #[arg(long, value_name = "SIZE", default_value = "32K", value_parser = parse_chunk_size)]
    chunk_size: u32,
    /// Size of the stored objects that hold the chunks, 1M to 1G.
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = parse_pack_size)]
    pack_size: u32,
    /// zstd level of what MatrixOne has not compressed itself, 1 to 19.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Accept a store that cannot refuse a second create: never more than one writer at a time, by your word.
    #[arg(long)]
    single_writer: bool,
    /// Encrypt what is stored (not in this release).
    #[arg(long)]
    encrypt: bool,
}

pub(crate) fn parse_chunk_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    let fits = size.is_power_of_two() && (16 * KIB..=MIB).contains(&size);
    let size = u32::try_from(size).ok().filter(|_| fits);
    size.ok_or_else(|| "expected a power of two from 16K to 1M".to_owned())
}

fn parse_pack_size(text: &str) -> Result<u32, String> {
    let size = u32::try_from(parse_size(text)?).ok().filter(|size| (1 << 20..=1 << 30).contains(size));
    size.ok_or_else(|| "expected a size from 1M to 1G".to_owned())
}

/// What was decided.
#[derive(serde::Serialize)]
struct Made {
    id: RepositoryId,
    location: String,
    chunking: Chunking,
    pack_size: u32,
    level: i32,
    store: StoreFacts,
}

pub(crate) async fn run(context: &Context, args: InitArgs) -> Result<Exit> {
    if args.encrypt {
        let message = "init with --encrypt: not in this release; use an encrypted disk or bucket until it is";
        return Err(Error::invalid(message));
    }
    let options = InitOptions {
        chunking: Chunking { tae_average: args.chunk_size, ..Chunking::default() },
        pack_target: args.pack_size,
        level: args.level,
        single_writer: args.single_writer,
    };
    let store = create_store(&context.globals)?;
    let repository = Repository::create(store, &options, environment(&context.globals)).await?;
    let made = Made {
        id: repository.id(),
        location: repository.location(),
        chunking: repository.chunking(),
        pack_size: args.pack_size,
        level: args.level,
        store: repository.store_facts(),
    };
    context.output.report(&made, || text(&made))?;
    Ok(Exit::Done)
}

fn text(made: &Made) -> String {
    let Made { id, location, chunking, pack_size, level, store } = made;
    let id = id.to_string();
    let size = |bytes: u32| units::bytes(u64::from(bytes));
    let mut abilities = Vec::new();
    for (has, name) in [
        (store.create_only, "create-only writes"),
        (store.create_race_safe, "races have one winner"),
        (store.range_reads, "ranges"),
        (store.list_offset, "listings from a name"),
    ] {
        abilities.push(if has { name.to_owned() } else { format!("NOT {name}") });
    }
    let writers = if store.single_writer { "\n  one writer at a time, by --single-writer" } else { "" };
    format!(
        "made repository {} in {location}\n  id       {id}\n  chunks   {} of MatrixOne objects, {} of other files, on average\n  \
         packs    {}\n  zstd     level {level}\n  store    {}{writers}\n",
        &id[..8],
        size(chunking.tae_average),
        size(chunking.cdc_average),
        size(*pack_size),
        abilities.join(", "),
    )
}
