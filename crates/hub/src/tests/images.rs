//! Power cuts: a city at work is traced, and at every moment at which it made something safe, what
//! the disk may hold then is built and opened. Acknowledged is there, not sent is not, and data and
//! records agree.

use super::disk::{Disk, Event, Fate};
use super::{Context, Form, dataset, device, numbers, parse_entity, parse_json, session};
use crate::{Act, Hub, HubOptions, ItemResult};
use model::{Change, Session, Time, Value};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::{Files, Store};

/// Set in the traced process: where it works.
const TRACED: &str = "TANGGUL_TRACED";
/// The calls that change files, or say which file is meant.
const CALLS: &str = "trace=openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,pwrite64,\
    writev,pwritev,sendfile,copy_file_range,ftruncate,truncate,fallocate,fsync,fdatasync,\
    sync_file_range,msync,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat";
const FATES: [Fate; 5] = [Fate::Dropped, Fate::Kept, Fate::Cut, Fate::Shuffled, Fate::Zeros];
/// Images that are tried at one moment, most of which may be the same.
const MOST_TRIES: usize = 100;
/// Bytes that a table holds before the engine writes it to a file.
const MEMTABLE: u64 = 16 << 10;
/// How many steps each of the city's workers takes in each of the two lives of the hub.
const STEPS: u32 = 24;

fn wanted_images() -> usize {
    std::env::var("TANGGUL_POWER_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// The journal outside the hub: one line a write, so that the trace holds it too.
struct Outside(std::fs::File);

impl Outside {
    fn say(&self, line: &str) {
        (&self.0).write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

fn at_noon() -> Time {
    Time::parse("2026-01-01T12:00:00Z").unwrap()
}

fn open_hub(root: &Path) -> Arc<Hub> {
    let files = Files::new(&root.join("data"), None);
    if !files.exist() {
        files.create().unwrap();
    }
    let options = HubOptions {
        origin: "test.example/log".into(),
        now: at_noon,
        contexts: std::collections::HashMap::new(),
        // So little that tables go to files, and files are merged.
        store: store::Options { min_free_bytes: 0, memtable_bytes: MEMTABLE },
        seal: store::SealPlan { max_blobs: 12, max_part: 7, ..store::SealPlan::default() },
        tidying: crate::Tidying::default(),
        patience: std::time::Duration::ZERO,
        limits: crate::Limits::default(),
        notice: None,
    };
    Hub::start(files, options).unwrap()
}

/// One life of the hub after the other, each with everybody at work at once.
async fn city_at_work(root: &Path) {
    let outside = std::fs::File::options().append(true).create(true).open(root.join("outside"));
    let outside = Arc::new(Outside(outside.unwrap()));
    let mut token = String::new();
    for life in 0..2 {
        let directory = root.to_owned();
        let hub = tokio::task::spawn_blocking(move || open_hub(&directory)).await.unwrap();
        if life == 0 {
            let mut people = dataset("people", "Person", false);
            people.about_people = true;
            let datasets = vec![
                dataset("rivers", "River", true),
                dataset("meters", "Meter", false),
                dataset("plans", "Plan", false),
                people,
            ];
            hub.bootstrap_datasets(datasets).await.unwrap();
            token = hub.bootstrap_principals(vec![device()]).await.unwrap().remove(0);
            outside.say(&format!("ready {}", hub.vkey()));
        }
        let first = life * STEPS;
        let mut workers = tokio::task::JoinSet::new();
        let left = Arc::new(AtomicUsize::new(7));
        for worker in 0..7 {
            let (hub, outside, left) = (hub.clone(), outside.clone(), left.clone());
            let gauge = session(&hub, &token);
            workers.spawn(async move {
                for step in first + 1..=first + STEPS {
                    work(&hub, &gauge, &outside, worker, step).await;
                }
                left.fetch_sub(1, Ordering::AcqRel);
            });
        }
        let tidier = hub.clone();
        let tidying = tokio::task::spawn_blocking(move || {
            while left.load(Ordering::Acquire) > 0 {
                tidier.tidy();
                std::thread::sleep(std::time::Duration::from_millis(40));
            }
        });
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        tidying.await.unwrap();
        hub.stop().await;
    }
    outside.say("over");
}

/// Whether a thing is gone at its `step`th version.
fn is_gone(key: &str, step: u32) -> bool {
    match key.as_bytes()[0] {
        b'm' => step.is_multiple_of(5),
        b'p' => step.is_multiple_of(8),
        _ => false,
    }
}

/// The `step`th thing that a worker does; each has things of its own.
async fn work(hub: &Hub, gauge: &Session, outside: &Outside, worker: u32, step: u32) {
    let own = hub.own_session();
    let put = |of_type: &str| {
        let json = format!(
            r#"{{"id":"urn:x:{of_type}:{worker}","type":"{of_type}","word":"w{step}","level":{{"value":{step},"observedAt":"2026-01-01T10:{:02}:00Z"}}}}"#,
            step % 60
        );
        let value = parse_json(json.as_bytes()).unwrap();
        Change::Put(parse_entity(&value, &Context::core(), Form::Full).unwrap())
    };
    let act = |name: &str, body: String| Act {
        name: name.to_owned(),
        body: parse_json(body.as_bytes()).unwrap(),
    };
    let key = match worker {
        0..=2 => format!("gauge {worker}"),
        3 | 4 => format!("meter {worker}"),
        5 => format!("person {worker}"),
        _ => "dataset".to_owned(),
    };
    outside.say(&format!("sent {key} {step}"));
    let write = async |session: &Session, change: Change| {
        let report = hub.write(session, vec![change]).await.unwrap();
        assert!(matches!(report.results[0], ItemResult::Done(_)), "{key} {step}: {report:?}");
        report.receipt
    };
    let receipt = match worker {
        0..=2 => {
            let at = format!("2026-01-01T10:{:02}:00Z", step % 60);
            let json = format!(
                r#"{{"id":"urn:x:River:{worker}","type":"River","level":{{"value":{step},"observedAt":"{at}"}}}}"#
            );
            let value = parse_json(json.as_bytes()).unwrap();
            let entity = parse_entity(&value, &Context::core(), Form::Full).unwrap();
            write(gauge, Change::Upsert(entity)).await
        }
        3 | 4 if is_gone(&key, step) => {
            let id = format!("urn:x:Meter:{worker}");
            write(&own, Change::Delete { id }).await
        }
        3 | 4 => write(&own, put("Meter")).await,
        5 if is_gone(&key, step) => {
            let body = format!(r#"{{"dataset":"people","entity":"urn:x:Person:{worker}"}}"#);
            Some(hub.act(&own, act("subject.erase", body)).await.unwrap().receipt)
        }
        5 => write(&own, put("Person")).await,
        _ => {
            let mut plans = dataset("plans", "Plan", false);
            plans.title = step.to_string();
            plans.retention_days = Some(100);
            let body = format!(r#"{{"dataset":{}}}"#, serde_json::to_string(&plans).unwrap());
            if step.is_multiple_of(6) {
                let body = r#"{"dataset":"meters"}"#.to_owned();
                hub.act(&own, act("dataset.rotate_key", body)).await.unwrap();
            }
            Some(hub.act(&own, act("dataset.put", body)).await.unwrap().receipt)
        }
    };
    let record = receipt.map_or(0, |receipt| receipt.index);
    outside.say(&format!("done {key} {step} {record}"));
}

/// What the outside knows at a moment.
#[derive(Default)]
struct Known {
    vkey: String,
    /// The last version sent and the last acknowledged, of each thing.
    things: BTreeMap<String, (u32, u32)>,
    /// Records that were told of.
    records: u64,
    /// Lines that were heard: the same image is another one when more is known.
    lines: usize,
}

impl Known {
    fn hear(&mut self, line: &str) {
        self.lines += 1;
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        match words[0] {
            "ready" => self.vkey = words[1..].join(" "),
            "over" => {}
            word => {
                let numbers = if word == "sent" { 1 } else { 2 };
                let key = words[1..words.len() - numbers].join(" ");
                let step = words[words.len() - numbers].parse().unwrap();
                let thing = self.things.entry(key).or_default();
                if word == "sent" {
                    thing.0 = step;
                } else {
                    thing.1 = step;
                    let record: u64 = words[words.len() - 1].parse().unwrap();
                    self.records = self.records.max(record + 1);
                }
            }
        }
    }

    /// What does not agree with a store; empty when all does.
    fn differences(&self, store: &Store) -> String {
        let mut wrong = String::new();
        if store.log_size() < self.records {
            let _ = writeln!(wrong, "{} of {} records", store.log_size(), self.records);
        }
        for (key, (sent, done)) in &self.things {
            let found = version(store, key);
            let fits = match found {
                Some(found) => (*done..=*sent).contains(&found) && !is_gone(key, found),
                None => *done == 0 || (*done..=*sent).any(|step| is_gone(key, step)),
            };
            if !fits {
                let _ = writeln!(wrong, "{key}: {found:?}, acknowledged {done}, sent {sent}");
            }
            if key.starts_with("gauge") {
                let points = points(store, &river(key));
                let all = points.iter().copied().eq(1..=points.len() as u32);
                if !all || points.len() < *done as usize || points.len() > *sent as usize {
                    let _ = writeln!(wrong, "{key}: {points:?}, acknowledged {done}, sent {sent}");
                }
            }
        }
        wrong
    }
}

fn river(key: &str) -> String {
    key.replace("gauge ", "urn:x:River:")
}

/// The version of a thing in a store; none when it is not there.
fn version(store: &Store, key: &str) -> Option<u32> {
    if key == "dataset" {
        let body = store.document(crate::kinds::DATASET, "plans")?;
        let doc: crate::kept::DatasetDoc = serde_json::from_slice(&body).unwrap();
        return doc.dataset.title.parse().ok();
    }
    let id = match key.split_once(' ').unwrap() {
        ("gauge", _) => river(key),
        ("meter", worker) => format!("urn:x:Meter:{worker}"),
        (_, worker) => format!("urn:x:Person:{worker}"),
    };
    let held = store.entity(&id).filter(|held| held.deleted.is_none())?;
    let value = |name: &str| {
        let instance = held.entity.attribute(name)?.default_instance()?;
        Some(instance.value().clone())
    };
    let level = value("level")?.as_number()? as u32;
    // A state is whole or not at all.
    if !key.starts_with("gauge") {
        assert_eq!(value("word"), Some(Value::from(format!("w{level}"))), "{key}");
    }
    Some(level)
}

fn points(store: &Store, id: &str) -> Vec<u32> {
    let Some(held) = store.entity(id) else { return Vec::new() };
    let of = |series| store.points(series, Time::MIN, Time::MAX, None).unwrap();
    let points = held.series.iter().flat_map(of);
    points
        .map(|point| match point {
            store::Point::Number(_, value) => value as u32,
            store::Point::Rich(_, instance) => instance.value().as_number().unwrap() as u32,
        })
        .collect()
}

/// Traces the city in a process of its own; gives the trace.
fn trace(root: &Path) -> std::path::PathBuf {
    let trace = root.join("trace");
    let traced = root.join("city");
    std::fs::create_dir(&traced).unwrap();
    let name = "tests::images::what_a_power_cut_leaves_opens_with_all_that_was_acknowledged";
    let status = Command::new("strace")
        .args(["-f", "-qq", "-xx", "-s", "9000000", "-e", "signal=none", "-e", CALLS, "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TRACED, &traced)
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success(), "the traced city failed");
    trace
}

#[test]
fn what_a_power_cut_leaves_opens_with_all_that_was_acknowledged() {
    if let Some(root) = std::env::var_os(TRACED) {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            show(panic);
            std::process::abort();
        }));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(city_at_work(Path::new(&root)));
    }
    let root = tempfile::tempdir().unwrap();
    let trace = trace(root.path());
    let lines = || BufReader::new(std::fs::File::open(&trace).unwrap()).lines();
    // How many moments there are, to spread the wanted images over all of them.
    let mut disk = Disk::new(&root.path().join("city"));
    let is_moment = |line: String| matches!(disk.line(&line), Some(Event::Sync));
    let moments = lines().map_while(Result::ok).map(is_moment).filter(|is| *is).count();
    assert!(moments > 200, "hardly anything was made safe: {moments}");
    let makes = |line: &String| line.contains("openat") && line.contains("O_CREAT");
    let tables = lines().map_while(Result::ok).filter(makes);
    let tables = tables.filter(|line| line.contains(&hex_of("/tables/"))).count();
    assert!(tables > 4, "the engine wrote {tables} tables");
    let mut disk = Disk::new(&root.path().join("city"));
    let mut known = Known::default();
    let mut random = numbers(0x2545_f491_4f6c_dd1d);
    let mut seen = HashSet::new();
    let mut moment = 0;
    for line in lines() {
        match disk.line(&line.unwrap()) {
            Some(Event::Told(line)) => known.hear(&line),
            Some(Event::Sync) => {
                moment += 1;
                let due = wanted_images() * moment / moments;
                // At each moment what is worst, and then whatever else is new.
                for tried in 0..MOST_TRIES {
                    if tried > 0 && seen.len() >= due {
                        break;
                    }
                    let fate = FATES[if tried == 0 { 0 } else { (moment + tried) % FATES.len() }];
                    let image = root.path().join("image");
                    if seen.insert((disk.image(&image, fate, &mut random), known.lines)) {
                        let wrong = differences(&image, &known);
                        assert!(
                            wrong.is_empty(),
                            "moment {moment} of {moments}, {fate:?}: {wrong}"
                        );
                    }
                    std::fs::remove_dir_all(&image).unwrap();
                }
            }
            None => {}
        }
    }
    println!("{} images at {moments} moments", seen.len());
    assert!(seen.len() >= wanted_images(), "only {} images", seen.len());
    assert!(known.things.values().all(|(sent, done)| sent == done && *done == 2 * STEPS));
}

/// As `strace -xx` writes a text.
fn hex_of(text: &str) -> String {
    text.bytes().fold(String::new(), |all, byte| all + &format!("\\x{byte:02x}"))
}

/// Opens an image; says what is not as it should be.
fn differences(image: &Path, known: &Known) -> String {
    let files = Files::new(&image.join("data"), None);
    if known.vkey.is_empty()
        && !files.exist()
        && let Err(error) = files.create()
    {
        return error.to_string();
    }
    let store =
        match Store::open(files, store::Options { min_free_bytes: 0, ..store::Options::default() })
        {
            Ok(store) => store,
            Err(error) => return error.to_string(),
        };
    if known.vkey.is_empty() {
        return String::new();
    }
    let vkey = journal::VerifyingKey::parse(&known.vkey).unwrap();
    let findings = crate::verify(&store, &vkey).unwrap().findings;
    let wrong = known.differences(&store);
    if findings.is_empty() { wrong } else { format!("{findings:?}\n{wrong}") }
}
