//! Killed at random under mixed load, again and again: what was acknowledged is there and was told
//! of, what was not sent is not, and everything verifies. The load is batches over HTTPS, readings
//! over MQTT, an import, keys that are rotated, sealing, retention and a subscription.

use crate::harness::{City, Mqtt, program, receiver, stdout, tanggul};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Writers at once in each run: the last one by MQTT.
const WRITERS: usize = 4;
/// Rows of the file that is imported.
const ROWS: usize = 3_000;

fn runs() -> u64 {
    std::env::var("TANGGUL_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(30)
}

/// A journal outside the hub: the last value sent and the last acknowledged, by entity.
type Outside = Arc<Mutex<BTreeMap<String, (i64, i64)>>>;

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = tempfile::NamedTempFile::new().unwrap();
    // Seal and retain early, so that both happen between the kills.
    let settings = format!(
        "[egress]\nallow = [\"127.0.0.1:{port}\"]\n[store]\nseal_points = 40\nseal_commits = 200\n\
         seal_every_ms = 100\nretain_every_ms = 200\n"
    );
    std::fs::write(config.path(), settings).unwrap();
    let mut city =
        City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let told = Told { received: receiver(listener), values: BTreeMap::new(), keys: HashSet::new() };
    prepare(&city, port);
    let import = Import::prepare(&city);
    let mut told = told;
    let outside: Outside = Arc::default();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for run in 0..runs() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let importing = run.is_multiple_of(3).then(|| import.begin(&city));
        load(&mut city, &outside, run, Duration::from_millis(50 + seed % 400));
        importing.into_iter().for_each(|mut child| drop(child.wait()));
        if run % 10 == 9 {
            city.kill();
            let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "run {run}: {}{errors}", stdout(&output));
        }
        city.launch();
        check(&city, &outside, run);
        told.hear();
    }
    import.finish(&city);
    told.all_of(&outside);
    // What was past its retention when it came is gone.
    city.wait_for(|| {
        let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Past:1?options=temporalValues";
        let history = city.get(path, "app");
        (history.status == 404 || !history.text.contains("2001-")).then_some(())
    });
    city.verify_clean();
}

/// A retention for what the app writes, something that is past it, and a subscription.
fn prepare(city: &City, port: u16) {
    let mut dataset = city.get("/api/v1/datasets/test", "admin").json();
    dataset["retention_days"] = json!(3_650);
    let asked = city.act("admin", "dataset.put", json!({"dataset": dataset}));
    assert_eq!(asked.status, 202, "{}", asked.text);
    let path = format!("/api/v1/acts/{}/approve", asked.json()["pending"].as_str().unwrap());
    assert_eq!(city.post(&path, "steward", &json!({})).status, 200);
    let past = json!({"id": "urn:ngsi-ld:Past:1", "type": "Past",
        "n": {"value": 1, "observedAt": "2001-01-01T00:00:00Z"}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &past).status, 201);
    let subscription = json!({"type": "Subscription", "entities": [{"type": "Crash"}],
        "watchedAttributes": ["n"], "notification": {"format": "keyValues",
        "endpoint": {"uri": format!("http://127.0.0.1:{port}/"), "accept": "application/json"}}});
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &subscription).status, 201);
}

/// Writes from several threads, while keys are rotated, until the process is killed.
fn load(city: &mut City, outside: &Outside, run: u64, until: Duration) {
    let url = city.url().to_owned();
    let token = city.token("app");
    let ca = std::fs::read(city.ca()).unwrap();
    let begin = Instant::now();
    let mut writers: Vec<_> = (0..WRITERS - 1)
        .map(|writer| {
            let (outside, url, token, ca) = (outside.clone(), url.clone(), token.clone(), ca.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = reqwest::Client::builder()
                    .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
                    .no_proxy()
                    .build()
                    .unwrap();
                write(&outside, &format!("urn:ngsi-ld:Crash:{writer}"), run, |reading, step, value| {
                    let extra = json!({"id": format!("urn:ngsi-ld:Crash:{writer}:{}", step % 5), "type": "Beside", "word": {"value": format!("w{value}")}});
                    let sent = client
                        .post(format!("{url}/ngsi-ld/v1/entityOperations/upsert?options=update"))
                        .bearer_auth(&token)
                        .json(&json!([reading, extra]));
                    runtime.block_on(async { sent.send().await.ok()?.error_for_status().ok() }).map(drop)
                });
            })
        })
        .collect();
    if let Some(mut mqtt) = Mqtt::connect(city, "app", &token) {
        let outside = outside.clone();
        writers.push(std::thread::spawn(move || {
            write(&outside, "urn:ngsi-ld:Crash:mqtt", run, |reading, _, _| {
                mqtt.publish("in/test", &reading.to_string())
            });
        }));
    }
    // Now and then under a fresh key.
    if run.is_multiple_of(2) {
        let rotated = city.act("admin", "dataset.rotate_key", json!({"dataset": "test"}));
        assert_eq!(rotated.status, 200, "{}", rotated.text);
    }
    std::thread::sleep(until.saturating_sub(begin.elapsed()));
    city.kill();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// Sends one reading after the other until one is not acknowledged.
fn write(
    outside: &Outside,
    id: &str,
    run: u64,
    mut send: impl FnMut(Value, i64, i64) -> Option<()>,
) {
    for step in 0i64.. {
        let value = i64::try_from(run).unwrap() * 1_000_000 + step;
        let reading = json!({"id": id, "type": "Crash",
            "n": {"value": value, "observedAt": model_time(value)}});
        outside.lock().unwrap().entry(id.to_owned()).or_default().0 = value;
        if send(reading, step, value).is_none() {
            return;
        }
        outside.lock().unwrap().get_mut(id).unwrap().1 = value;
    }
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

/// What the subscription's receiver heard: values in the order of their first arrival.
struct Told {
    received: Receiver<(String, Value)>,
    values: BTreeMap<String, Vec<i64>>,
    keys: HashSet<String>,
}

impl Told {
    fn hear(&mut self) {
        while let Ok((head, body)) = self.received.try_recv() {
            let key = head.split("idempotency-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
            if !self.keys.insert(key.to_owned()) {
                continue;
            }
            for entity in body["data"].as_array().unwrap() {
                let id = entity["id"].as_str().unwrap().to_owned();
                self.values.entry(id).or_default().push(entity["n"].as_i64().unwrap());
            }
        }
    }

    /// Every entity's last acknowledged value was told of, and values came in order.
    fn all_of(&mut self, outside: &Outside) {
        let since = Instant::now();
        for (id, (_, acknowledged)) in outside.lock().unwrap().iter() {
            while self.values.get(id).and_then(|values| values.last()) < Some(acknowledged) {
                self.hear();
                let late = since.elapsed() > Duration::from_secs(60);
                assert!(!late, "{id}: {acknowledged} was acknowledged and never told of");
                std::thread::sleep(Duration::from_millis(20));
            }
            let values = &self.values[id];
            assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{id}: {values:?}");
        }
    }
}

/// A file that is imported again and again, cut off by kills, until it is in.
struct Import {
    arguments: Vec<String>,
}

impl Import {
    fn prepare(city: &City) -> Import {
        let path = |name: &str| city.directory.path().join(name).display().to_string();
        let map = "time = { columns = [\"t\"], format = \"rfc3339\" }\n\
            entity = { type = \"Imported\", id = \"urn:ngsi-ld:Imported:1\" }\n\
            column = [{ name = \"v\", attribute = \"v\" }]\n";
        let second =
            |n: usize| format!("2026-03-01T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60);
        let rows: String = (0..ROWS).map(|n| format!("{},{n}\n", second(n))).collect();
        std::fs::write(path("map.toml"), map).unwrap();
        std::fs::write(path("rows.csv"), format!("t,v\n{rows}")).unwrap();
        let arguments = ["import", &path("rows.csv"), "--map", &path("map.toml")];
        Import { arguments: arguments.map(str::to_owned).to_vec() }
    }

    fn command(&self, city: &City) -> Command {
        let token = city.directory.path().join("token");
        std::fs::write(&token, city.token("app")).unwrap();
        let mut command = Command::new(program());
        command.args(&self.arguments).args(["--hub", city.url(), "--ca", city.ca()]);
        command.arg("--token-file").arg(token);
        command
    }

    fn begin(&self, city: &City) -> Child {
        self.command(city).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Imports to the end: every row is there once.
    fn finish(&self, city: &City) {
        let output = self.command(city).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}{errors}", stdout(&output));
        let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Imported:1\
            ?options=temporalValues&timerel=after&timeAt=2026-02-28T00:00:00Z";
        let history = city.get(path, "app").json();
        let values = history["v"]["values"].as_array().unwrap();
        let values: Vec<usize> = values.iter().map(|v| v[0].as_u64().unwrap() as usize).collect();
        assert!(values.iter().copied().eq(0..ROWS), "{} rows", values.len());
    }
}
