//! A reading in by each door, decided, committed with its record, read back through a lens, right
//! after a kill; the log accepted by a verifier that nobody here wrote.

use crate::harness::{City, program, stdout, tanggul, tool};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn a_reading_goes_all_the_way() {
    let mut city = City::start();
    let by_mqtt = json!({
        "id": "urn:ngsi-ld:FloodMonitoring:demo-1", "type": "FloodMonitoring",
        "currentLevel": {"value": 93.5, "unitCode": "CMT", "observedAt": "2026-01-01T00:00:00Z"},
        "maintainer": "Dinas Air",
    });
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &city.mqtt_port(), "--cafile", city.ca(), "-V", "mqttv5"])
        .args(["-u", "device", "-P", &city.token("device"), "-q", "1", "-t", "in/rivers"])
        .args(["-m", &by_mqtt.to_string()])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let by_https = json!({"id": "urn:ngsi-ld:Test:1", "type": "Test", "level": {"value": 5}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &by_https).status, 201);

    // Through the lens: the public sees what is open, and not who maintains the gauge.
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:FloodMonitoring:demo-1?options=keyValues";
    let seen = city.get(path, "").json();
    assert_eq!(seen["currentLevel"], json!(93.5));
    assert_eq!(seen.get("maintainer"), None);
    assert_eq!(city.get(path, "steward:water-management").json()["maintainer"], "Dinas Air");

    city.kill();
    city.launch();
    assert_eq!(city.get(path, "").json()["currentLevel"], json!(93.5));
    let test = city.get("/ngsi-ld/v1/entities/urn:ngsi-ld:Test:1?options=keyValues", "app");
    assert_eq!(test.json()["level"], json!(5));
    city.wait_for(|| {
        (city.get("/log/checkpoint", "").text.lines().nth(1)?.parse::<u64>().ok()? > 2)
            .then_some(())
    });
    city.verify_clean();

    let exported = city.directory.path().join("log");
    let exported = exported.to_str().unwrap();
    let output = tanggul(&["log", "export", exported, "--data", city.data().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stdout(&output));
    assert!(tanggul(&["log", "verify", exported]).status.success());
    verify_with_go(exported, city.directory.path());
}

#[test]
fn told_to_end_as_soon_as_it_runs_it_ends_in_order() {
    let mut city = City::start();
    for _ in 0..5 {
        city.stop();
        city.launch();
    }
}

#[test]
fn what_the_demo_says_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (said, _) = demo(directory.path(), &[]);
    let left = std::fs::read_dir(directory.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty() && said.contains("is gone then"), "{left:?}\n{said}");

    let (said, tried) = demo(directory.path(), &["--data", "my city"]);
    // The last of what is to be tried catches a flipped byte.
    assert_eq!(tried.status.code(), Some(3), "{said}\n{}", stdout(&tried));
    for shown in ["currentLevel", "Not permitted", "tanggul-receipt: ", " is in the log `"] {
        assert!(stdout(&tried).contains(shown), "no `{shown}` in\n{}", stdout(&tried));
    }
    let check = said.lines().find_map(|line| line.split_once("check all of it: ")).unwrap().1;
    let checked = Command::new("bash").args(["-c", check]).output().unwrap();
    assert!(checked.status.success(), "{}", stdout(&checked));
}

/// What a demo in `directory` says until it is stopped, and what came of trying what it says is to be tried.
fn demo(directory: &std::path::Path, more: &[&str]) -> (String, std::process::Output) {
    let mut city = Command::new(program())
        .args(["demo", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--devices", "2"])
        .args(more)
        .current_dir(directory)
        .env("TMPDIR", directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(city.stdout.take().unwrap());
    while !said.contains("Stop with Ctrl-C") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    let commands =
        said.split_once("another terminal:").unwrap().1.split_once("Stop with").unwrap().0;
    let paste = |commands: &str| Command::new("bash").args(["-ec", commands]).output().unwrap();
    let see = commands.split_once("# be refused").unwrap().0;
    let since = std::time::Instant::now();
    while !stdout(&paste(see)).contains("currentLevel") {
        assert!(since.elapsed().as_secs() < 60, "no river rises");
    }
    let tried = paste(commands);
    let stop = Command::new("kill").args(["-INT", &city.id().to_string()]).status().unwrap();
    assert!(stop.success() && city.wait().unwrap().success());
    (said, tried)
}

/// Go's own transparency-log packages accept the export.
fn verify_with_go(exported: &str, scratch: &std::path::Path) {
    let Some(source) = tool("verify-log/main.go") else {
        println!("not run: the verifier is not here");
        return;
    };
    let verifier = scratch.join("verify-log");
    let built = Command::new("go")
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .args(["build", "-o"])
        .arg(&verifier)
        .arg(source)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let checked = Command::new(&verifier).arg(exported).output().unwrap();
    assert!(checked.status.success(), "{}", stdout(&checked));
    assert!(stdout(&checked).starts_with("OK "), "{}", stdout(&checked));
}

#[test]
fn nothing_lies_in_clear() {
    let mut city = City::start();
    let path = "/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1";
    assert_eq!(city.get(path, "crisis:flood-response").status, 200);
    let entity = json!({"id": "urn:ngsi-ld:Test:plaintext-marker", "type": "MarkerType", "markerattribute": "markervalue"});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    let tokens: Vec<String> =
        ["admin", "crisis", "app", "device"].iter().map(|name| city.token(name)).collect();
    city.stop();
    let mut known: Vec<&str> = vec![
        "plaintext-marker",
        "MarkerType",
        "markerattribute",
        "markervalue",
        "Wulandari",
        "Jalan Contoh",
        "EvacuationAssistance",
        "flood-response",
        "steward.social",
        "wheelchair",
    ];
    known.extend(tokens.iter().map(String::as_str));
    let mut looked_at = 0;
    for file in files(&city.data()) {
        let bytes = std::fs::read(&file).unwrap();
        looked_at += bytes.len();
        for word in &known {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "`{word}` lies in clear in {}", file.display());
        }
    }
    assert!(looked_at > 10_000);
}

pub fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_city_of_devices_comes_alive() {
    let city = City::start_with(&["--devices", "60"]);
    let all = "/ngsi-ld/v1/entities?type=Streetlight&count=true&limit=0";
    let lights = city.wait_for(|| {
        let count = city.get(all, "crisis:flood-response");
        let count: usize = count.header("ngsild-results-count").parse().ok()?;
        (count >= 20).then_some(count)
    });
    assert!(lights >= 20);
    let levels = city.get("/ngsi-ld/v1/entities?type=FloodMonitoring&options=keyValues", "").json();
    assert!(levels[0]["currentLevel"].is_number(), "{levels}");
}
