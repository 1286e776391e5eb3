//! How long the program takes to build where nothing is built yet; the console has to be there.

use crate::Figures;
use std::process::Command;
use std::time::Instant;

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let target = tempfile::tempdir()?;
    let since = Instant::now();
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["build", "--quiet", "--release", "--locked", "--package", "tanggul", "--target-dir"])
        .arg(target.path())
        .status()?;
    anyhow::ensure!(status.success(), "the program does not build");
    figures.add("cold release build", since.elapsed().as_secs_f64(), "s");
    Ok(())
}
