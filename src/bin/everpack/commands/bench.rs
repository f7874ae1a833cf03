//! `bench`: what this machine can do, and what that predicts.

use std::path::PathBuf;

use everpack::error::Result;
use everpack::ops::bench::{self, BenchReport};
use everpack::units;

use super::Context;
use crate::errors::Exit;
use crate::open::blocking;
use crate::output::{render, table};

const LONG_ABOUT: &str = "\
Measures this machine for about five seconds: hashing, cutting, walking LZ4 blocks, compressing and decoding on one core, and writing \
(with fsync) and reading on the disk of --dir. From these it predicts how fast a first backup, a restore and a scrub will be. The data \
is made up, about as compressible as a table; yours will differ.

  everpack bench --dir /backup";

/// Measure this machine.
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT)]
pub(crate) struct BenchArgs {
    /// A directory on the disk to measure; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(crate) async fn run(context: &Context, args: BenchArgs) -> Result<Exit> {
    let report = blocking(move || bench::bench(&args.dir)).await?;
    context.output.answer(&report, || text(&report))?;
    Ok(Exit::Done)
}

fn text(report: &BenchReport) -> String {
    let rate = |bytes: u64| format!("{}/s", units::bytes(bytes));
    let mut figures = table(&["measured", "rate", ""], &[1]);
    let on = "one core";
    for (what, bytes, remark) in [
        ("hash", report.hash, on),
        ("cut", report.cut, on),
        ("walk LZ4", report.walk, on),
        ("compress", report.encode, on),
        ("decode", report.decode, on),
        ("disk write", report.disk_write, "with fsync"),
        ("disk read", report.disk_read, report.disk_read_remark),
    ] {
        figures.add_row(vec![what.to_owned(), rate(bytes), remark.to_owned()]);
    }
    let mut predicted = table(&["predicted", "rate", ""], &[1]);
    for (what, prediction) in
        [("first backup", &report.first_backup), ("restore", &report.restore), ("scrub", &report.scrub)]
    {
        let remark = format!("of logical bytes, limited by the {}", prediction.limit);
        predicted.add_row(vec![what.to_owned(), rate(prediction.rate), remark]);
    }
    format!(
        "{} cores; made-up data takes {:.0}% of its size when stored\n\n{}\n{}",
        report.cores,
        report.stored_share * 100.0,
        render(&figures),
        render(&predicted)
    )
}
