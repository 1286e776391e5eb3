//! Build and check tasks: `cargo xtask TASK`. They call the same tools a person would, and install
//! what those need.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const USAGE: &str =
    "cargo xtask build | demo [ARGS] | test [ARGS] | bench [--output json] [SECTION...] | docs | release-check [PART...]

  build          the release binary with the console in it, target/release/tanggul
  demo           build it, and run a working city
  test           every test, installing what they need
  bench          the figures, on the release build; of all sections but the long ones, or of those that are named
  docs           write docs/configuration.md and docs/openapi.json anew
  release-check  the long proofs, or those parts of them that are named: tests outside fuzz mutants";

/// Debian packages that the tests use, and the program that shows each is there.
const PACKAGES: [(&str, &str); 7] = [
    ("mosquitto_pub", "mosquitto-clients"),
    ("curl", "curl"),
    ("strace", "strace"),
    ("faketime", "faketime libfaketime"),
    ("go", "golang-go golang-golang-x-mod-dev"),
    ("python3", "python3 python3-venv"),
    ("chromium", "chromium"),
];
/// Python packages that the tests use as clients nobody here wrote.
const PYTHON: [&str; 2] = ["paho-mqtt==2.1.0", "ngsildclient==0.5.2"];
/// What `tests/outside.py` uses.
const OUTSIDE_PACKAGES: [(&str, &str); 1] = [("slowhttptest", "slowhttptest")];
const OUTSIDE_PYTHON: [&str; 2] = ["schemathesis==4.32.5", "boofuzz"];
const CARGO_FUZZ: &str = "cargo-fuzz";
const CARGO_MUTANTS: &str = "cargo-mutants";
/// The parts of the long proofs.
const PARTS: [&str; 4] = ["tests", "outside", "fuzz", "mutants"];
/// Seconds that each fuzz target runs: an hour in all.
const FUZZ_S: u32 = 450;
const FUZZ_TARGETS: [&str; 8] =
    ["entity", "context", "query", "geo", "mqtt", "map", "checkpoint", "token"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("build") => build(),
        Some("demo") => build().and_then(|()| demo(rest)),
        Some("test") => test(rest),
        Some("bench") => build().and_then(|()| bench(rest)),
        Some("docs") => docs(),
        Some("release-check") => release_check(rest),
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
    // As cargo says now: where this was built may have been moved.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = own.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    own.parent().unwrap_or(&own).to_owned()
}

/// Runs a program in the checkout.
pub fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, String)],
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).envs(environment.iter().map(|(k, v)| (*k, v)));
    if program == "npm" {
        // What is built on the way is no part of what was asked for.
        command.stdout(std::io::stderr());
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}` ended with {status}", arguments.join(" "))),
        Err(error) => Err(format!("`{program}` cannot be run: {error}")),
    }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Runs npm in the console's directory.
fn npm(arguments: &[&str], environment: &[(&str, String)]) -> Result<(), String> {
    let mut all = vec!["--prefix", "console", "--no-audit", "--no-fund", "--loglevel", "warn"];
    all.splice(0..0, arguments.iter().copied());
    run("npm", &all, environment).map_err(|error| {
        if there("npm") { error } else { format!("{error}\ninstall Node.js 20 with npm") }
    })
}

/// Builds the console, which the next build of the program takes in. A missing text, a wrong type or a
/// warning fails it.
fn console() -> Result<(), String> {
    let time =
        |path: &str| std::fs::metadata(root().join(path)).and_then(|found| found.modified()).ok();
    // npm writes this file when it has installed what the lock file names.
    if time("console/node_modules/.package-lock.json") < time("console/package-lock.json") {
        npm(&["ci"], &[])?;
    }
    npm(&["run", "build"], &[])
}

fn build() -> Result<(), String> {
    console()?;
    run(&cargo(), &["build", "--release", "--locked", "--package", "tanggul"], &[])
}

fn demo(arguments: &[String]) -> Result<(), String> {
    let program = root().join("target/release/tanggul").display().to_string();
    let mut all = vec!["demo"];
    all.extend(arguments.iter().map(String::as_str));
    run(&program, &all, &[])
}

/// Runs the load against the release binary; the figures are described in `benches/`.
fn bench(arguments: &[String]) -> Result<(), String> {
    let program = root().join("target/release/tanggul").display().to_string();
    let mut all =
        vec!["run", "--quiet", "--release", "--locked", "--package", "bench", "--", &program];
    let words = arguments.iter().map(|word| word.strip_prefix("--output=").unwrap_or(word));
    all.extend(words.filter(|word| *word != "--output"));
    run(&cargo(), &all, &[])
}

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// Installs Debian packages whose programs are missing, or says in one line what to install.
fn install_packages(packages: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(program, _)| !there(program))
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ask = format!("install what is needed: apt-get install -y {}", missing.join(" "));
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    let quiet = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let installed = run("apt-get", &["update", "-qq"], &quiet)
        .and_then(|()| run("apt-get", &arguments, &quiet));
    installed.map_err(|error| format!("{error}\n{ask}"))
}

/// A Python of the checkout's own by that name, with these packages; gives its program.
fn install_python(name: &str, packages: &[&str]) -> Result<String, String> {
    let python = root().join(".test-tools").join(name);
    let pip = python.join("bin/pip");
    if !pip.exists() {
        let shown = python.display().to_string();
        let make = || run("python3", &["-m", "venv", "--clear", &shown], &[]);
        // Debian has the module in a package of its own.
        make().or_else(|_| {
            install_packages(&[("python3 -m venv", "python3-venv")]).and_then(|()| make())
        })?;
    }
    let pip = pip.display().to_string();
    let mut arguments = vec!["install", "--quiet", "--disable-pip-version-check"];
    arguments.extend(packages);
    run(&pip, &arguments, &[])?;
    Ok(python.join("bin/python").display().to_string())
}

fn install() -> Result<String, String> {
    install_packages(&PACKAGES)?;
    install_python("python", &PYTHON)
}

fn test(arguments: &[String]) -> Result<(), String> {
    let python = install()?;
    console()?;
    let environment = [("TANGGUL_TEST_PYTHON", python)];
    let mut all = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    all.extend(arguments.iter().map(String::as_str));
    run(&cargo(), &all, &environment)?;
    // What was asked for by name is all there is to do.
    if !arguments.is_empty() {
        return Ok(());
    }
    browse("target/debug/tanggul")?;
    outside("target/debug/tanggul", "1")?;
    mutate(&["--shard", "0/24"])
}

/// The console's tests, in Chromium, on a program.
fn browse(program: &str) -> Result<(), String> {
    let program = root().join(program).display().to_string();
    npm(&["test"], &[("TANGGUL_PROGRAM", program)])
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

/// The long forms of the proofs that the tests keep short, and those with tools of others.
fn release_check(named: &[String]) -> Result<(), String> {
    if let Some(unknown) = named.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("`{unknown}` is none of: {}", PARTS.join(", ")));
    }
    let asked = |part: &str| named.is_empty() || named.iter().any(|one| one == part);
    if asked("tests") {
        long_tests()?;
    }
    if asked("outside") {
        build()?;
        outside("target/release/tanggul", "20")?;
    }
    if asked("fuzz") {
        install_cargo(CARGO_FUZZ)?;
    }
    // None of them looks at the clock.
    let (fuzzes, mutates) = (asked("fuzz"), asked("mutants"));
    std::thread::scope(|scope| {
        let fuzzed = fuzzes.then(|| scope.spawn(fuzz));
        if mutates {
            mutate(&[])?;
        }
        fuzzed.map_or(Ok(()), joined)
    })
}

/// What a thread ended with.
fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<(), String>>) -> Result<(), String> {
    thread.join().map_err(|_| "a thread panicked".to_owned())?
}

/// Every test in its long form.
fn long_tests() -> Result<(), String> {
    let python = install()?;
    let long = |name: &'static str, count: &str| (name, count.to_owned());
    let environment = [
        long("TANGGUL_TEST_PYTHON", &python),
        long("TANGGUL_CRASH_RUNS", "1000"),
        long("TANGGUL_POWER_CUTS", "10000"),
        long("TANGGUL_DAMAGE_RUNS", "1000"),
        long("TANGGUL_SCHEDULES", "5000"),
        long("TANGGUL_CROWD", "100000"),
        long("TANGGUL_MOUNTS", "required"),
        long("TANGGUL_FUZZ_SEEDS", &root().join("fuzz/corpus").display().to_string()),
        long("TANGGUL_MERKLE_VECTORS", &merkle_vectors()?),
    ];
    run(&cargo(), &["test", "--workspace", "--locked", "--profile", "long"], &environment)
}

/// A program, asked by tools of others: with so many examples for each operation.
fn outside(program: &str, examples: &str) -> Result<(), String> {
    install_packages(&OUTSIDE_PACKAGES)?;
    // Apart, for it and the tests want different versions of a third.
    let outside = install_python("outside", &OUTSIDE_PYTHON)?;
    run(&outside, &["tests/outside.py", program, examples], &[])
}

/// Changes what decides, mutant by mutant: some test has to fail for each.
fn mutate(which: &[&str]) -> Result<(), String> {
    install_cargo(CARGO_MUTANTS)?;
    // Without what is built, for the fuzz targets are built meanwhile.
    let mut all =
        vec!["mutants", "--package", "guard", "--output", "target", "--gitignore", "true"];
    all.extend(which);
    all.extend(["--", "--lib"]);
    run(&cargo(), &all, &[])
}

fn install_cargo(tool: &str) -> Result<(), String> {
    if there(tool) { Ok(()) } else { run(&cargo(), &["install", "--locked", tool], &[]) }
}

/// The folder of the public Merkle test vectors: the one that is named, or that of Go's own mirror.
fn merkle_vectors() -> Result<String, String> {
    const MODULE: &str = "github.com/transparency-dev/merkle@v0.0.2";
    if let Ok(named) = std::env::var("TANGGUL_MERKLE_VECTORS") {
        return Ok(named);
    }
    let output = Command::new("go").args(["mod", "download", "-json", MODULE]).output();
    let output = output.map_err(|error| format!("`go` cannot be run: {error}"))?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let folder = answer.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \""));
    let folder = folder.and_then(|rest| rest.split('"').next()).ok_or_else(|| {
        format!("{MODULE} cannot be had; name its `testdata` folder in TANGGUL_MERKLE_VECTORS")
    })?;
    Ok(format!("{folder}/testdata"))
}

/// Each target for its share of an hour, two at a time.
fn fuzz() -> Result<(), String> {
    // Coverage counters are a flag of the unstable compiler; nothing that ships is built so.
    let unstable = [("RUSTC_BOOTSTRAP", "1".to_owned())];
    let seconds = format!("-max_total_time={FUZZ_S}");
    let one_after_another = |targets: &[&str]| {
        targets.iter().try_for_each(|target| {
            let arguments = ["fuzz", "run", "-s", "none", target, "--", &seconds, "-timeout=10"];
            run(&cargo(), &arguments, &unstable)
        })
    };
    let (some, others) = FUZZ_TARGETS.split_at(FUZZ_TARGETS.len() / 2);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| one_after_another(some));
        one_after_another(others)?;
        joined(beside)
    })
}
