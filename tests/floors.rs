//! The house stands: a crate uses only crates on lower floors, and only the courier reaches out.

use serde_json::Value;
use std::process::Command;

/// Each floor's crates, lowest first.
const FLOORS: [(&str, u8); 13] = [
    ("model", 1),
    ("ngsild", 2),
    ("journal", 2),
    ("vault", 2),
    ("guard", 2),
    ("store", 3),
    ("courier", 3),
    ("hub", 4),
    ("citysim", 5),
    ("server", 6),
    ("tanggul", 7),
    ("xtask", 7),
    ("bench", 7),
];

/// What a crate must not use, though it lies lower or outside.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("model", &["serde_json", "tokio", "fjall", "time", "reqwest"]),
    ("ngsild", &["tokio", "fjall", "reqwest"]),
    ("journal", &["tokio", "serde_json", "fjall", "model"]),
    ("vault", &["tokio", "fjall", "model"]),
    ("guard", &["tokio", "fjall", "reqwest"]),
    ("store", &["tokio", "axum", "reqwest", "guard", "ngsild"]),
    ("hub", &["axum", "hyper", "reqwest", "tokio-rustls"]),
    ("server", &["store", "vault", "guard", "reqwest"]),
];

#[test]
fn crates_use_lower_floors_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let floor =
        |name: &str| FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor);
    let mut edges = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let own = floor(name).unwrap_or_else(|| panic!("`{name}` has no floor"));
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let used = dependency["name"].as_str().unwrap();
            if let Some(below) = floor(used) {
                // Journal and vault lie beside guard, not below: none of them uses another.
                assert!(below < own, "`{name}` (floor {own}) uses `{used}` (floor {below})");
                edges += 1;
            }
            let forbidden = FORBIDDEN.iter().find(|(crate_name, _)| *crate_name == name);
            let forbidden = forbidden.is_some_and(|(_, list)| list.contains(&used));
            assert!(!forbidden, "`{name}` must not use `{used}`");
        }
    }
    assert!(edges > 20);
}

#[test]
fn the_api_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let output = crate::harness::tanggul(&["openapi"]);
    let now: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(kept, now, "run `cargo xtask docs`");
}
