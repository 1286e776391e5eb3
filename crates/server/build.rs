//! Puts the console's files into the program, as `cargo xtask build` made them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript",
        "css" => "text/css",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        "png" => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let own = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let built = own.join("../../console/dist");
    println!("cargo::rerun-if-changed={}", built.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut found = Vec::new();
    if built.exists() {
        walk(&built, &mut found)?;
    }
    found.sort();
    // Copies, so that a console that is built anew takes nothing from under this program.
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let copies = out.join("console");
    if copies.exists() {
        std::fs::remove_dir_all(&copies)?;
    }
    std::fs::create_dir_all(&copies)?;
    let copy = |path: &Path| {
        let kept = copies.join(path.file_name().unwrap_or_default());
        std::fs::copy(path, &kept)?;
        Ok::<_, std::io::Error>(format!("include_bytes!({:?})", kept.display().to_string()))
    };
    let mut code = String::from("static FILES: &[File] = &[\n");
    for path in found.iter().filter(|path| path.extension().is_none_or(|kind| kind != "br")) {
        let name = path.strip_prefix(&built).unwrap_or(path).display().to_string();
        let brotli = PathBuf::from(format!("{}.br", path.display()));
        let small = if brotli.exists() { copy(&brotli)? } else { "&[]".to_owned() };
        // Writing into a string cannot fail.
        let _ = writeln!(
            code,
            "File {{ path: {name:?}, kind: {:?}, plain: {}, brotli: {small} }},",
            kind(&name),
            copy(path)?,
        );
    }
    code.push_str("];\n");
    std::fs::write(out.join("console.rs"), code)
}
