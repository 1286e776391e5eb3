//! Crowds, slow senders, bombs and noise at the doors: cut at the named limits, others go on.

use crate::harness::{City, stdout};
use std::process::Command;

#[test]
fn others_are_served_whoever_means_harm() {
    let crowd = std::env::var("TANGGUL_CROWD").unwrap_or_else(|_| "3000".to_owned());
    let config = tempfile::NamedTempFile::new().unwrap();
    // Fewer places than the crowd has heads.
    let most = crowd.parse::<u32>().unwrap() / 10;
    let limits = format!(
        "[limits]\nhttp_connections = {most}\nmqtt_connections = {most}\nhttp_head_timeout = 5\nhttp_body_timeout = 5\n"
    );
    std::fs::write(config.path(), limits).unwrap();
    let mut city =
        City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hostile.py");
    let ready = city.directory.path().join("ready.json");
    let output = Command::new("python3").arg(script).arg(ready).arg(&crowd).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}{errors}", stdout(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{found}");
    assert_eq!(found["newcomers"], 20, "{found}");
    assert!(found["slow_cut_after_s"].as_f64().unwrap() < 40.0, "{found}");
    city.verify_clean();
}
