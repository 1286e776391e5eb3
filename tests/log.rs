//! The log from outside: every byte of a small export flipped, one at a time, is caught and named;
//! receipts hold, and forged ones do not.

use crate::harness::{City, stdout, tanggul};
use serde_json::json;

#[test]
fn every_flipped_byte_is_caught_and_named() {
    let mut city = City::start();
    city.wait_for(|| (!city.get("/log/checkpoint", "").text.is_empty()).then_some(()));
    city.stop();
    let directory = city.directory.path().join("export");
    let shown = directory.to_str().unwrap();
    assert!(
        tanggul(&["log", "export", shown, "--data", city.data().to_str().unwrap()])
            .status
            .success()
    );
    let mut flipped = 0;
    for name in ["vkey", "checkpoint", "tile/0/000", "tile/entries/000"] {
        let found = walk(&directory)
            .into_iter()
            .find(|path| path.to_str().unwrap().contains(name))
            .unwrap();
        let original = std::fs::read(&found).unwrap();
        // All bytes of the small files; of the larger every seventh, and the ends.
        let step = if original.len() > 400 { 7 } else { 1 };
        for at in (0..original.len()).step_by(step).chain([original.len() - 1]) {
            let mut changed = original.clone();
            changed[at] ^= 0x01;
            std::fs::write(&found, &changed).unwrap();
            let output = tanggul(&["log", "verify", shown]);
            assert_eq!(output.status.code(), Some(3), "{name}, byte {at}: {}", stdout(&output));
            assert!(stdout(&output).contains("does not fit: "), "{name}, byte {at}");
            flipped += 1;
        }
        std::fs::write(&found, &original).unwrap();
    }
    assert!(tanggul(&["log", "verify", shown]).status.success());
    assert!(flipped > 300, "{flipped}");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_read_of_personal_data_leaves_a_receipt_that_holds() {
    let city = City::start();
    let read =
        city.get("/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1", "crisis:flood-response");
    let index = read.receipt();
    let record = &city.get("/api/v1/records?dataset=evacuation&limit=1", "auditor").json()[0];
    assert_eq!(record["index"], json!(index));
    assert_eq!((&record["verb"], &record["purpose"]), (&json!("read"), &json!("flood-response")));
    // Who read what about X: found by the keyed reference, not by the name.
    let about = city
        .get("/api/v1/records?subject=urn:ngsi-ld:EvacuationAssistance:001&limit=10", "auditor")
        .json();
    assert!(
        about.as_array().unwrap().iter().any(|record| record["index"] == json!(index)),
        "{about}"
    );
    let nobody = city
        .get("/api/v1/records?subject=urn:ngsi-ld:EvacuationAssistance:zzz&limit=10", "auditor")
        .json();
    assert_eq!(nobody, json!([]));

    // A count tells too, and is recorded before it is answered.
    let counted =
        "/ngsi-ld/v1/entities?type=EvacuationAssistance&q=need==%22dialysis%22&count=true&limit=0";
    let counted = city.get(counted, "crisis:flood-response");
    assert_eq!(counted.header("ngsild-results-count"), "10");
    assert!(counted.receipt() > index);

    let receipt = city.wait_for(|| {
        let receipt = city.get(&format!("/api/v1/receipts/{index}"), "");
        (receipt.status == 200).then_some(receipt.text)
    });
    let (receipt_file, vkey_file) =
        (city.directory.path().join("receipt"), city.directory.path().join("vkey"));
    std::fs::write(&vkey_file, city.get("/log/vkey", "").text).unwrap();
    let check = |text: &str| {
        std::fs::write(&receipt_file, text).unwrap();
        tanggul(&[
            "log",
            "check",
            receipt_file.to_str().unwrap(),
            "--vkey",
            vkey_file.to_str().unwrap(),
        ])
        .status
        .code()
    };
    assert_eq!(check(&receipt), Some(0));
    for at in (0..receipt.len()).step_by(11) {
        let mut bytes = receipt.clone().into_bytes();
        bytes[at] ^= 1;
        assert_eq!(check(&String::from_utf8_lossy(&bytes)), Some(3), "byte {at}");
    }
}

#[test]
fn a_flipped_byte_in_the_data_directory_is_caught() {
    let mut city = City::start();
    for n in 0..20 {
        let entity = json!({"id": format!("urn:ngsi-ld:T:{n}"), "type": "T", "a": {"value": n}});
        assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    }
    city.stop();
    let journal = walk(&city.data().join("store"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let original = std::fs::read(&journal).unwrap();
    let mut first: Option<Vec<u8>> = None;
    let used = original.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (used / 20..used).step_by(used / 12) {
        let mut changed = original.clone();
        changed[at] ^= 0x10;
        std::fs::write(&journal, &changed).unwrap();
        let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "byte {at} of {used}: {}", stdout(&output));
        // What the engine may have cut lies in the rescue copy, as it was at the first refusal.
        let kept = city.data().join("rescue").join(journal.file_name().unwrap());
        let first = first.get_or_insert_with(|| changed.clone());
        assert!(std::fs::read(kept).unwrap() == *first, "byte {at}");
        std::fs::write(&journal, &original).unwrap();
    }
    let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn a_look_at_what_is_confidential_is_in_the_log_within_a_second() {
    let city = City::start();
    let pipe = "urn:ngsi-ld:WaterObserved:log";
    let device = city.enrol_device("log-pipe", "pipes", pipe);
    let entity = serde_json::json!({"id": pipe, "type": "WaterObserved", "flow": {"value": 3, "unitCode": "G51"},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [106.8, -6.2]}}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", &device, &entity).status, 201);
    let path = format!("/ngsi-ld/v1/entities/{pipe}");
    let records = || {
        let found = city
            .get("/api/v1/records?dataset=pipes&verb=read&decision=allowed&limit=10", "auditor");
        assert_eq!(found.status, 200, "{}", found.text);
        found.json().as_array().unwrap().len()
    };
    for looks in 1..4 {
        assert_eq!(city.get(&path, "steward:water-management").status, 200);
        let since = std::time::Instant::now();
        while records() < looks {
            assert!(since.elapsed().as_millis() < 1_000, "look {looks} is not in the log");
        }
    }
}
