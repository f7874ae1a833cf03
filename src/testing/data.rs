//! Finds the captures of a real server that tests run on, and unpacks them once.
//!
//! Looked for in `EVERPACK_TEST_DATA`, then in `../shared/data` beside the checkout; unpacked below the build directory. Where they are absent a
//! test says so and is skipped, or fails if `EVERPACK_REQUIRE` asks for `data`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const ARCHIVES: &[&str] = &["shop", "framed", "churn", "hole"];

/// True if `EVERPACK_REQUIRE` names this: then its absence is a failure and no reason to skip.
pub fn is_required(what: &str) -> bool {
    std::env::var("EVERPACK_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word.trim() == what))
}

/// Says that a test was skipped; panics if what it lacks is required.
#[allow(clippy::print_stderr, reason = "a skipped test has to be seen")]
pub fn skip(test: &str, lacks: &str, why: &str) {
    assert!(!is_required(lacks), "{test} needs {lacks}, which EVERPACK_REQUIRE asks for: {why}");
    eprintln!("skipped {test}: {why}");
}

/// The unpacked captures; `None`, said aloud, where they are absent.
pub fn captures(test: &str) -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(path) => Some(path),
        Err(why) => {
            skip(test, "data", why);
            None
        }
    }
}

/// The folder with transcripts of statements and their answers; `None`, said aloud, where they are absent.
pub fn transcripts(test: &str) -> Option<PathBuf> {
    let found = archives().map(|place| place.join("sql")).filter(|sql| sql.is_dir());
    if found.is_none() {
        skip(test, "data", "no transcripts: EVERPACK_TEST_DATA and ../shared/data hold none");
    }
    found
}

/// `FACTS.json` of the captures: what is known of every tree.
pub fn facts(captures: &Path) -> serde_json::Value {
    let places = [Some(captures.to_owned()), archives()];
    let facts = places.into_iter().flatten().map(|place| place.join("FACTS.json")).find(|path| path.exists());
    let bytes = std::fs::read(facts.expect("FACTS.json lies beside the captures")).expect("FACTS.json can be read");
    serde_json::from_slice(&bytes).expect("FACTS.json is JSON")
}

/// Where the archives are.
fn archives() -> Option<PathBuf> {
    let named = std::env::var_os("EVERPACK_TEST_DATA").map(PathBuf::from);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [named, Some(here.join("../shared/data")), Some(here.join("../../shared/data"))];
    places.into_iter().flatten().find(|place| place.join("FACTS.json").exists())
}

fn find() -> Result<PathBuf, String> {
    if let Some(unpacked) =
        std::env::var_os("EVERPACK_TEST_DATA_UNPACKED").map(PathBuf::from).filter(|path| path.is_dir())
    {
        return Ok(unpacked);
    }
    let archives = archives().ok_or("no captures: EVERPACK_TEST_DATA and ../shared/data hold none")?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let unpacked = target.join("test-data");
    let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", unpacked.display());
    std::fs::create_dir_all(&unpacked).map_err(|error| failed("make", error))?;
    // Several test programs may start at once: one unpacks, the others wait for it.
    let lock = std::fs::File::create(unpacked.join(".lock")).map_err(|error| failed("lock", error))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed("lock", error.into()))?;
    for name in ARCHIVES {
        let mark = unpacked.join(format!(".{name}.tar.zst.unpacked"));
        if !mark.exists() {
            unpack(&archives.join(format!("{name}.tar.zst")), &unpacked)
                .map_err(|error| failed("unpack into", error))?;
            std::fs::write(&mark, b"").map_err(|error| failed("mark", error))?;
        }
    }
    Ok(unpacked)
}

fn unpack(archive: &Path, target: &Path) -> std::io::Result<()> {
    let mut decoder = zstd::stream::read::Decoder::new(std::fs::File::open(archive)?)?;
    decoder.window_log_max(27)?;
    let mut tar =
        Command::new("tar").args(["-x", "--no-same-owner", "-C"]).arg(target).stdin(Stdio::piped()).spawn()?;
    let mut pipe = tar.stdin.take().expect("asked for above");
    std::io::copy(&mut decoder, &mut pipe)?;
    drop(pipe);
    if tar.wait()?.success() { Ok(()) } else { Err(std::io::Error::other("tar failed")) }
}
