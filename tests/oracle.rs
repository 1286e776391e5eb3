//! An independent oracle in Python agrees with the hub about who may do what.

use crate::harness::{City, stdout};
use std::process::Command;

#[test]
fn the_oracle_agrees_on_every_cell() {
    let Ok(python) = std::env::var("TANGGUL_TEST_PYTHON") else {
        println!("not run: `cargo xtask test` installs the Python clients");
        return;
    };
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        config.path(),
        "[egress]\nallow = [\"127.0.0.1\"]\n[limits]\nrefusals_recorded = 1000000\n",
    )
    .unwrap();
    let city = City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle.py");
    let ready = city.directory.path().join("ready.json");
    let output = Command::new(python).arg(script).arg(ready).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}{errors}", stdout(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{} cells: {}", found["cells"], found["by"]);
    assert_eq!(found["different"], 0, "{}", found["differences"]);
    for (door, least) in [("http", 45_000), ("mqtt", 400), ("subscriptions", 1_000)] {
        assert!(found["by"][door].as_u64().unwrap() > least, "{door}: {}", found["by"]);
    }
}
