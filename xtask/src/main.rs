//! Build and check tasks: `cargo xtask TASK`. They call the same tools a person would, and install
//! what those need.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str =
    "cargo xtask build | demo [ARGS] | test [ARGS] | bench [--output json] | docs | release-check

  build          the release binary, target/release/tanggul
  demo           build it, and run a working city
  test           every test, installing what they need
  bench          the figures, on the release build
  docs           write docs/configuration.md and docs/openapi.json anew
  release-check  the long proofs";

/// Debian packages that the tests use, and the program that shows each is there.
const PACKAGES: [(&str, &str); 6] = [
    ("mosquitto_pub", "mosquitto-clients"),
    ("curl", "curl"),
    ("strace", "strace"),
    ("faketime", "faketime libfaketime"),
    ("go", "golang-go golang-golang-x-mod-dev"),
    ("python3", "python3 python3-venv"),
];
/// Python packages that the tests use as clients nobody here wrote.
const PYTHON: [&str; 2] = ["paho-mqtt==2.1.0", "ngsildclient==0.5.2"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("build") => build(),
        Some("demo") => build().and_then(|()| demo(rest)),
        Some("test") => test(rest),
        Some("bench") => build().and_then(|()| bench(rest.contains(&"json".to_owned()))),
        Some("docs") => docs(),
        Some("release-check") => release_check(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Runs a program in the checkout.
pub fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, String)],
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).envs(environment.iter().map(|(k, v)| (*k, v)));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", arguments.join(" "))),
        Err(error) => Err(format!("`{program}` cannot be run: {error}")),
    }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn build() -> Result<(), String> {
    run(&cargo(), &["build", "--release", "--locked", "--package", "tanggul"], &[])
}

fn demo(arguments: &[String]) -> Result<(), String> {
    let program = root().join("target/release/tanggul").display().to_string();
    let mut all = vec!["demo"];
    all.extend(arguments.iter().map(String::as_str));
    run(&program, &all, &[])
}

/// Runs the load against the release binary; the figures are described in `benches/`.
fn bench(json: bool) -> Result<(), String> {
    let program = root().join("target/release/tanggul").display().to_string();
    let mut all =
        vec!["run", "--quiet", "--release", "--locked", "--package", "bench", "--", &program];
    if json {
        all.push("json");
    }
    run(&cargo(), &all, &[])
}

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// Installs what is missing, or says in one line what to install.
fn install() -> Result<PathBuf, String> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !there(program))
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    if !missing.is_empty() {
        let ask = format!("install what the tests need: apt-get install -y {}", missing.join(" "));
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&missing);
        let quiet = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
        let installed = run("apt-get", &["update", "-qq"], &quiet)
            .and_then(|()| run("apt-get", &arguments, &quiet));
        installed.map_err(|error| format!("{error}\n{ask}"))?;
    }
    let python = root().join(".test-tools/python");
    if !python.join("bin/python").exists() {
        let shown = python.display().to_string();
        run("python3", &["-m", "venv", &shown], &[])
            .map_err(|error| format!("{error}\ninstall python3-venv"))?;
    }
    let pip = python.join("bin/pip").display().to_string();
    let mut arguments = vec!["install", "--quiet", "--disable-pip-version-check"];
    arguments.extend(PYTHON);
    run(&pip, &arguments, &[])?;
    Ok(python)
}

fn test(arguments: &[String]) -> Result<(), String> {
    let python = install()?;
    let environment = [("TANGGUL_TEST_PYTHON", python.join("bin/python").display().to_string())];
    let mut all = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    all.extend(arguments.iter().map(String::as_str));
    run(&cargo(), &all, &environment)
}

fn docs() -> Result<(), String> {
    run(&cargo(), &["build", "--package", "tanggul"], &[])?;
    let program = root().join("target/debug/tanggul");
    for (arguments, file) in [
        (["config", "reference"].as_slice(), "docs/configuration.md"),
        (&["openapi"], "docs/openapi.json"),
    ] {
        let output = Command::new(&program).args(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        std::fs::write(root().join(file), output.stdout)
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// The long forms of the proofs that the tests keep short.
fn release_check() -> Result<(), String> {
    let python = install()?;
    let environment = [
        ("TANGGUL_TEST_PYTHON", python.join("bin/python").display().to_string()),
        ("TANGGUL_CRASH_RUNS", "1000".to_owned()),
    ];
    run(&cargo(), &["test", "--workspace", "--locked", "--release"], &environment)
}
