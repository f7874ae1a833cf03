//! All fuzz targets as plain tests: their corpus, and seeded mutations of it. See fuzz/README.md.
//!
//! `EVERPACK_FUZZ_ROUNDS` multiplies the mutations, `EVERPACK_FUZZ_SEED` chooses others; what fails names both and keeps the input.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod memory;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use everpack::testing::fuzz::{Mutator, TARGETS, Target, captured, seeds};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const SEED: u64 = 1;
/// The whole committed corpus, bytes.
const CORPUS_MAX: u64 = 200 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no whole number"))
}

/// Names of the files of a folder, sorted; none if it is not there.
fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target.name);
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    file_names(&folder).into_iter().map(read).collect()
}

/// Runs a target on one input. If it fails, the input is kept and `whence` said.
fn run(target: &Target, input: &[u8], whence: impl Fn() -> String) -> bool {
    memory::start();
    let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let peak = memory::peak();
    let complain = |what: &str| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
        std::fs::write(&kept, input).unwrap();
        format!("{}: {what} on {}, kept as {}", target.name, whence(), kept.display())
    };
    let bound = target.memory.base + target.memory.factor * input.len();
    match ran {
        Ok(_) if peak > bound => panic!("{}", complain(&format!("{peak} bytes of memory for {}", input.len()))),
        Ok(was_accepted) => was_accepted,
        Err(panic) => {
            eprintln!("{}", complain("failed"));
            resume_unwind(panic)
        }
    }
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(target);
    let taken = corpus.iter().filter(|(name, input)| run(target, input, || format!("corpus file {name}"))).count();
    assert!(taken > 0, "{name}: accepts nothing of its corpus, so it tests nothing");
    run(target, &[], || "no bytes".into());

    let seeds: Vec<_> = corpus.into_iter().map(|(_, input)| input).collect();
    let seed = number("EVERPACK_FUZZ_SEED", SEED);
    let rounds = u64::from(target.rounds) * number("EVERPACK_FUZZ_ROUNDS", 1);
    let started = std::time::Instant::now();
    let mut mutator = Mutator::new(&seeds, seed);
    let mut taken = 0;
    for round in 0..rounds {
        let input = mutator.next_input();
        taken += u64::from(run(target, &input, || format!("round {round} of EVERPACK_FUZZ_SEED={seed}")));
    }
    let seconds = started.elapsed().as_secs_f32();
    eprintln!("{name}: EVERPACK_FUZZ_SEED={seed}, {rounds} rounds, {taken} accepted, {seconds:.1} s");
    assert!(taken * 100 >= rounds, "{name}: hardly a mutation is accepted, so little is tested");
}

macro_rules! targets {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )*
    };
}

targets! {
    config pack fragment segment piece_list manifest log_entry log_state scrub
    tae_object tae_checkpoint tae_names framing
    codec_decode codec_split codec_cut lz4_walk
    restore_path parse_bytes
}

#[test]
fn no_target_is_forgotten() {
    let known: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(known.len(), TARGETS.len(), "a name stands twice");
    let tested: BTreeSet<String> = TESTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(tested, known, "tests here");
    let files = file_names(&folder("fuzz_targets"));
    let files: BTreeSet<String> = files.iter().map(|file| file.strip_suffix(".rs").unwrap().to_owned()).collect();
    assert_eq!(files, known, "files in fuzz/fuzz_targets");
    let corpora: BTreeSet<String> = file_names(&folder("corpus")).into_iter().collect();
    assert_eq!(corpora, known, "folders in fuzz/corpus");
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in known {
        let calls = format!("everpack::testing::fuzz::{name}(");
        let file = folder("fuzz_targets").join(format!("{name}.rs"));
        assert!(std::fs::read_to_string(file).unwrap().contains(&calls), "{name}.rs calls another target");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

#[test]
fn the_corpus_stays_small() {
    let committed = |name: &String| ["seed-", "captured-", "found-"].iter().any(|prefix| name.starts_with(prefix));
    let mut total = 0;
    for target in TARGETS {
        for (name, bytes) in corpus(target).into_iter().filter(|(name, _)| committed(name)) {
            assert!(bytes.len() <= 6 << 10, "{}/{name} has {} bytes", target.name, bytes.len());
            total += bytes.len() as u64;
        }
    }
    assert!(total <= CORPUS_MAX, "{total} bytes");
}

/// A target that asks for memory out of proportion would be noticed.
#[test]
fn memory_is_counted() {
    memory::start();
    drop(std::hint::black_box(vec![0u8; 1 << 20]));
    drop(std::hint::black_box(vec![0u8; 1 << 20]));
    assert!((1 << 20..(1 << 20) + 4096).contains(&memory::peak()), "{}", memory::peak());
}

#[test]
#[ignore = "writes fuzz/corpus anew: after a format has changed"]
fn write_corpus() {
    let captures = everpack::testing::data::captures("captured seeds");
    for target in TARGETS {
        let folder = folder("corpus").join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        let write = |prefix: &str, inputs: Vec<Vec<u8>>| {
            for old in file_names(&folder).iter().filter(|name| name.starts_with(prefix)) {
                std::fs::remove_file(folder.join(old)).unwrap();
            }
            for (number, input) in inputs.iter().enumerate() {
                std::fs::write(folder.join(format!("{prefix}{number:02}")), input).unwrap();
            }
        };
        write("seed-", seeds(target.name));
        if let Some(captures) = captures {
            write("captured-", captured(target.name, captures).unwrap());
        }
    }
}
