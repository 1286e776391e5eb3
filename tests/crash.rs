//! Killed at random under mixed load, again and again: every value that was acknowledged is there and
//! was told of, what was not sent is not, and everything verifies. The load is batches over HTTPS,
//! readings over MQTT, an import, keys that are rotated, sealing, retention and a subscription.

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
/// Entities that each writer by HTTPS changes in turns beside its own.
const BESIDE: i64 = 5;
/// Rows of the file that is imported.
const ROWS: usize = 3_000;
/// The entity that is written by MQTT. It, and the first of each writer's others, is told of.
const MQTT: &str = "urn:ngsi-ld:Crash:mqtt";
/// Days of history at first; each run ends some days more of it, and writes a point that then is past.
const RETENTION_DAYS: u64 = 9_000;
const DAYS_A_RUN: u64 = 4;

fn runs() -> u64 {
    std::env::var("TANGGUL_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(30)
}

/// A journal outside the hub, by entity: the last value sent, and all that were acknowledged.
type Outside = Arc<Mutex<BTreeMap<String, (i64, Vec<i64>)>>>;

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = tempfile::NamedTempFile::new().unwrap();
    // Seal and retain early, so that both happen between the kills. More waits to be told than a hub that is
    // killed so often can tell; nothing of it is to be over a limit.
    let settings = format!(
        "[egress]\nallow = [\"127.0.0.1:{port}\"]\n[limits]\noutbox = 1000000\noutbox_bytes = 1073741824\n\
         outbox_all = 1073741824\n[store]\nseal_points = 40\nseal_commits = 200\n\
         seal_every_ms = 100\nretain_every_ms = 200\n"
    );
    std::fs::write(config.path(), settings).unwrap();
    let mut city =
        City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let told = Told { received: receiver(listener), values: BTreeMap::new(), keys: HashSet::new() };
    prepare(&city, port);
    let import = Import::prepare(&city);
    let mut told = told;
    let (mut cut, mut starting) = (0, 0);
    let outside: Outside = Arc::default();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for run in 0..runs() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        cut += load(&mut city, &outside, &import, run, seed);
        if run % 10 == 9 {
            city.kill();
            let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "run {run}: {}{errors}", stdout(&output));
        }
        if run % 5 == 2 {
            // And again, before it has recovered.
            starting += u64::from(city.begin(Duration::from_millis(10 + seed % 150)));
        }
        city.launch();
        check(&city, &outside, run);
        told.hear();
    }
    let done = |verb: &str, what: &str| {
        let (mut before, mut found) = (u64::MAX >> 1, 0);
        loop {
            let path =
                format!("/api/v1/records?dataset=test&verb={verb}&limit=500&before={before}");
            let page = city.get(&path, "auditor").json();
            let page = page.as_array().unwrap();
            let texts = page.iter().map(|record| record["text"].as_str().unwrap());
            found += texts.filter(|text| text.contains(what)).count() as u64;
            let Some(last) = page.last() else { return found };
            before = last["index"].as_u64().unwrap();
        }
    };
    let rotated = done("act", "dataset.rotate_key");
    let (sealed, retained) = (done("upkeep", "generation"), done("upkeep", "history_before_ends"));
    println!(
        "cut off: {cut} imports, {starting} starts; {rotated} rotations, {sealed} seals, {retained} retentions"
    );
    assert!(cut > 0 && starting > 0, "no kill met an import, or a start");
    assert!(rotated.min(sealed).min(retained) > runs() / 50, "hardly anything went on meanwhile");
    import.finish(&city);
    told.all_of(&outside);
    (0..runs()).for_each(|run| points_of(&city, &outside, run));
    // What had become past its retention is gone.
    city.wait_for(|| {
        let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Past:1?options=temporalValues\
            &timerel=after&timeAt=1990-01-01T00:00:00Z";
        let history = city.get(path, "app");
        (history.status == 404 || !history.text.contains("Z\"")).then_some(())
    });
    city.verify_clean();
}

/// A retention for what the app writes, and a subscription.
fn prepare(city: &City, port: u16) {
    retain(city, RETENTION_DAYS);
    let subscription = json!({"type": "Subscription",
        "entities": [{"type": "Crash", "id": MQTT}, {"type": "Beside", "idPattern": ":0$"}],
        "watchedAttributes": ["n", "word"], "notification": {"format": "keyValues",
        "endpoint": {"uri": format!("http://127.0.0.1:{port}/"), "accept": "application/json"}}});
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &subscription).status, 201);
}

fn retain(city: &City, days: u64) {
    let mut dataset = city.get("/api/v1/datasets/test", "admin").json();
    dataset["retention_days"] = json!(days);
    let asked = city.act("admin", "dataset.put", json!({"dataset": dataset}));
    assert_eq!(asked.status, 202, "{}", asked.text);
    let path = format!("/api/v1/acts/{}/approve", asked.json()["pending"].as_str().unwrap());
    let agreed = city.post(&path, "steward", &json!({}));
    assert_eq!(agreed.status, 200, "{}", agreed.text);
}

/// Ends some more days of history, in which there is a point.
fn pass(city: &City, run: u64) {
    let days = RETENTION_DAYS - DAYS_A_RUN * (run + 1);
    let at = city_now().plus_seconds(-86_400 * i64::try_from(days + 2).unwrap());
    let past = json!([{"id": "urn:ngsi-ld:Past:1", "type": "Past",
        "n": {"value": run, "observedAt": at.to_string()}}]);
    let answer = city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "app", &past);
    assert!([201, 204].contains(&answer.status), "{}", answer.text);
    retain(city, days);
}

fn city_now() -> model::Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    model::Time::from_seconds(i64::try_from(now.as_secs()).unwrap())
}

/// Writes from several threads, while history ends, a file is imported and keys are rotated, until the
/// process is killed; how many imports that cut off.
fn load(city: &mut City, outside: &Outside, import: &Import, run: u64, seed: u64) -> usize {
    let until = Duration::from_millis(50 + seed % 400);
    let url = city.url().to_owned();
    let token = city.token("app");
    let ca = std::fs::read(city.ca()).unwrap();
    let begin = Instant::now();
    let mut writers: Vec<_> = (0..WRITERS - 1)
        .map(|writer| {
            let (outside, url, token, ca) = (outside.clone(), url.clone(), token.clone(), ca.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = client(&ca);
                write(&outside, &format!("urn:ngsi-ld:Crash:{writer}"), run, |reading, step, value| {
                    let extra = json!({"id": beside(writer, step), "type": "Beside", "word": {"value": format!("w{value}")}});
                    let sent = client
                        .post(format!("{url}/ngsi-ld/v1/entityOperations/upsert?options=update"))
                        .bearer_auth(&token)
                        .json(&json!([reading, extra]));
                    runtime.block_on(async { sent.send().await.ok()?.error_for_status().ok() }).map(drop)
                });
            })
        })
        .collect();
    let mut mqtt = Mqtt::connect(city, "app", &token).unwrap();
    let outside = outside.clone();
    writers.push(std::thread::spawn(move || {
        write(&outside, MQTT, run, |reading, _, _| mqtt.publish("in/test", &reading.to_string()));
    }));
    pass(city, run);
    // Now and then under a fresh key, and a file: begun so late that the kill may meet either.
    let late =
        |ms: u64| until.saturating_sub(Duration::from_millis(ms)).saturating_sub(begin.elapsed());
    let importing = run.is_multiple_of(3).then(|| {
        std::thread::sleep(late(20 + seed / 512 % 100));
        import.begin(city)
    });
    // By times so late that it is cut off, and so early that it ends also where everything is slow.
    let most = [8, 150][usize::from(run.is_multiple_of(4))];
    let lead = Duration::from_millis(seed / 64 % most);
    if run.is_multiple_of(2) {
        std::thread::sleep(until.saturating_sub(lead).saturating_sub(begin.elapsed()));
        let (ca, admin) = (ca.clone(), city.token("admin"));
        writers.push(std::thread::spawn(move || {
            let act = json!({"act": "dataset.rotate_key", "body": {"dataset": "test"}});
            let sent = client(&ca).post(format!("{url}/api/v1/acts")).bearer_auth(admin).json(&act);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            if let Ok(answer) = runtime.block_on(sent.send()) {
                assert_eq!(answer.status(), 200);
            }
        }));
    }
    std::thread::sleep(until.saturating_sub(begin.elapsed()).max(lead));
    city.kill();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let ended = importing.map(|mut child| child.wait().unwrap());
    usize::from(ended.is_some_and(|status| !status.success()))
}

fn client(ca: &[u8]) -> reqwest::Client {
    let builder = reqwest::Client::builder();
    let ca = reqwest::Certificate::from_pem(ca).unwrap();
    builder.tls_certs_only([ca]).no_proxy().build().unwrap()
}

/// What is written beside a writer's own entity.
fn beside(writer: usize, step: i64) -> String {
    format!("urn:ngsi-ld:Crash:{writer}:{}", step % BESIDE)
}

/// Sends one reading after the other until one is not acknowledged.
fn write(
    outside: &Outside,
    id: &str,
    run: u64,
    mut send: impl FnMut(Value, i64, i64) -> Option<()>,
) {
    for step in 1i64.. {
        let value = i64::try_from(run).unwrap() * 1_000_000 + step;
        let reading = json!({"id": id, "type": "Crash",
            "n": {"value": value, "observedAt": model_time(value)}});
        outside.lock().unwrap().entry(id.to_owned()).or_default().0 = value;
        if send(reading, step, value).is_none() {
            return;
        }
        outside.lock().unwrap().get_mut(id).unwrap().1.push(value);
    }
}

/// An instant for a value: one microsecond each, so that every value is a point of its own; none has the first.
fn model_time(value: i64) -> String {
    let (run, step) = (value / 1_000_000, value % 1_000_000);
    format!("2026-01-01T{:02}:{:02}:{:02}.{:06}Z", run / 3600 % 24, run / 60 % 60, run % 60, step)
}

/// What there is now lies between what was acknowledged last and what was sent last.
fn check(city: &City, outside: &Outside, run: u64) {
    for (id, (sent, acknowledged)) in outside.lock().unwrap().iter() {
        let last = acknowledged.last().copied().unwrap_or_default();
        let between = |what: &str, value: i64, least: i64| {
            assert!(value >= least, "run {run}: {what} has {value}, {least} was acknowledged");
            assert!(value <= *sent, "run {run}: {what} has {value}, and only {sent} was sent");
        };
        let found = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "app");
        if found.status == 404 {
            assert_eq!(last, 0, "run {run}: {id} is gone");
            continue;
        }
        between(id, found.json()["n"].as_i64().unwrap(), last);
        let Ok(writer) = id.rsplit(':').next().unwrap().parse() else { continue };
        let recent = acknowledged.iter().rev().take(usize::try_from(BESIDE).unwrap());
        for value in recent.filter(|value| **value >= i64::try_from(run).unwrap() * 1_000_000) {
            let name = beside(writer, value % 1_000_000);
            let path = format!("/ngsi-ld/v1/entities/{name}?options=keyValues");
            let word =
                city.get(&path, "app").json()["word"].as_str().unwrap()[1..].parse().unwrap();
            between(&name, word, *value);
        }
    }
    points_of(city, outside, run);
}

/// The points of a run are those that were acknowledged, each once, and at most one that was only sent.
fn points_of(city: &City, outside: &Outside, run: u64) {
    let first = i64::try_from(run).unwrap() * 1_000_000;
    for (id, (_, acknowledged)) in outside.lock().unwrap().iter() {
        let path = format!(
            "/ngsi-ld/v1/temporal/entities/{id}?options=temporalValues&attrs=n&timerel=between\
             &timeAt={}&endTimeAt={}",
            model_time(first),
            model_time(first + 999_999)
        );
        let history = city.get(&path, "app").json();
        let points = history["n"]["values"].as_array().cloned().unwrap_or_default();
        let points: Vec<i64> = points.iter().map(|point| point[0].as_i64().unwrap()).collect();
        let own = acknowledged.partition_point(|value| *value < first);
        let own = &acknowledged[own..];
        let own = &own[..own.partition_point(|value| *value < first + 1_000_000)];
        let there = points.strip_prefix(own);
        let more = there.unwrap_or_else(|| panic!("run {run}: {id} has {points:?}, not {own:?}"));
        let next = own.last().map_or(first + 1, |last| last + 1);
        assert!(more.is_empty() || *more == [next], "run {run}: {id} has {more:?} too");
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
                let value = &entity[if id == MQTT { "n" } else { "word" }];
                let value = value.as_i64().or_else(|| value.as_str()?[1..].parse().ok()).unwrap();
                self.values.entry(id).or_default().push(value);
            }
        }
    }

    /// Every acknowledged value was told of, and values came in order.
    fn all_of(&mut self, outside: &Outside) {
        let since = Instant::now();
        for (id, (_, acknowledged)) in outside.lock().unwrap().iter() {
            // Of a writer those that it wrote beside into its first.
            let is_told = |value: &&i64| id == MQTT || *value % 1_000_000 % BESIDE == 0;
            let acknowledged: Vec<i64> = acknowledged.iter().filter(is_told).copied().collect();
            let id = &if id == MQTT { id.clone() } else { format!("{id}:0") };
            while self.values.get(id).and_then(|values| values.last()) < acknowledged.last() {
                self.hear();
                let late = since.elapsed() > Duration::from_secs(60);
                assert!(!late, "{id}: the last acknowledged value was never told of");
                std::thread::sleep(Duration::from_millis(20));
            }
            let values = &self.values[id];
            assert!(values.is_sorted_by(|a, b| a < b), "{id}: {values:?}");
            let missed = acknowledged.iter().filter(|value| values.binary_search(value).is_err());
            let missed: Vec<_> = missed.collect();
            assert!(missed.is_empty(), "{id}: {missed:?} were acknowledged and never told of");
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
