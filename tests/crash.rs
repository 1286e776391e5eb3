//! Killed at random under mixed load, again and again: what was acknowledged is there, what was not
//! sent is not, and everything verifies.

use crate::harness::{City, stdout, tanggul};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Writers at once in each run.
const WRITERS: usize = 4;

fn runs() -> u64 {
    std::env::var("TANGGUL_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(30)
}

/// A journal outside the hub: the last value sent and the last acknowledged, by entity.
type Outside = Arc<Mutex<BTreeMap<String, (i64, i64)>>>;

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let config = tempfile::NamedTempFile::new().unwrap();
    // Seal early, so that sealing happens between the kills.
    std::fs::write(config.path(), "[store]\nseal_points = 40\nseal_commits = 200\n").unwrap();
    let mut city =
        City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let outside: Outside = Arc::default();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for run in 0..runs() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        load(&mut city, &outside, run, Duration::from_millis(50 + seed % 350));
        if run % 10 == 9 {
            city.kill();
            let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "run {run}: {}{errors}", stdout(&output));
        }
        city.launch();
        check(&city, &outside, run);
    }
    city.verify_clean();
}

/// Writes from several threads until the process is killed.
fn load(city: &mut City, outside: &Outside, run: u64, until: Duration) {
    let stop = Arc::new(AtomicBool::new(false));
    let url = city.url().to_owned();
    let token = city.token("app");
    let ca = std::fs::read(city.ca()).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, outside, url, token, ca) = (stop.clone(), outside.clone(), url.clone(), token.clone(), ca.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = reqwest::Client::builder()
                    .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
                    .no_proxy()
                    .build()
                    .unwrap();
                for step in 0i64.. {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let id = format!("urn:ngsi-ld:Crash:{writer}");
                    let value = i64::try_from(run).unwrap() * 1_000_000 + step;
                    let at = model_time(value);
                    outside.lock().unwrap().entry(id.clone()).or_default().0 = value;
                    let extra = json!({"id": format!("{id}:{}", step % 5), "type": "Crash", "word": {"value": format!("w{value}")}});
                    let main = json!({"id": id, "type": "Crash", "n": {"value": value, "observedAt": at}});
                    let sent = client
                        .post(format!("{url}/ngsi-ld/v1/entityOperations/upsert?options=update"))
                        .bearer_auth(&token)
                        .json(&json!([main, extra]));
                    match runtime.block_on(async { sent.send().await?.error_for_status() }) {
                        Ok(_) => outside.lock().unwrap().get_mut(&id).unwrap().1 = value,
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(until);
    city.kill();
    stop.store(true, Ordering::Release);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// An instant for a value: one microsecond each, so that every value is a point of its own.
fn model_time(value: i64) -> String {
    let (run, step) = (value / 1_000_000, value % 1_000_000);
    format!("2026-01-01T{:02}:{:02}:{:02}.{:06}Z", run / 3600 % 24, run / 60 % 60, run % 60, step)
}

fn check(city: &City, outside: &Outside, run: u64) {
    for (id, (sent, acknowledged)) in outside.lock().unwrap().iter() {
        let found = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "app");
        if found.status == 404 {
            assert_eq!(*acknowledged, 0, "run {run}: {id} is gone");
            continue;
        }
        let value = found.json()["n"].as_i64().unwrap();
        assert!(
            value >= *acknowledged,
            "run {run}: {id} has {value}, {acknowledged} was acknowledged"
        );
        assert!(value <= *sent, "run {run}: {id} has {value}, and only {sent} was sent");
        // Its last points are there too, each once.
        let path =
            format!("/ngsi-ld/v1/temporal/entities/{id}?options=temporalValues&attrs=n&lastN=50");
        let history = city.get(&path, "app").json();
        let points: Vec<i64> = history["n"]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p: &Value| p[0].as_i64().unwrap())
            .collect();
        assert_eq!(points.last(), Some(&value), "run {run}: {id}");
        assert!(points.windows(2).all(|pair| pair[0] < pair[1]), "run {run}: {points:?}");
    }
}
