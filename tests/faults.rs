//! The disk under the store fails: what was acknowledged stays, nothing is tried again on the same
//! file, reads go on, life-safety data goes through the ring, and a restart recovers.

use crate::harness::{City, PASSWORD, stdout};
use serde_json::{Value, json};
use std::process::Command;

const STREAM: &str = "urn:ngsi-ld:FloodMonitoring:fault";

/// What fails: a call on the engine's journal, which is told how, and when: at one of the calls alone.
struct Fault {
    call: &'static str,
    error: &'static str,
    nth: u32,
    /// Nor can the ring be written.
    ring: bool,
}

/// A city whose disk has a fault, with what was called on its journal since.
fn failing(fault: &Fault) -> (City, String, String, tempfile::NamedTempFile) {
    let Fault { call, error, nth, ring } = fault;
    let mut city = City::start();
    let device = city.enrol_device("fault", "rivers", STREAM);
    city.enrol_official("social.1", "social", &["department"]);
    city.stop();
    let calls = tempfile::NamedTempFile::new().unwrap();
    let journal = city.data().join("store/0.jnl");
    let ring_file = city.data().join("ring");
    let inject = format!("inject={call}:error={error}:when={nth}");
    let trace = format!("trace={call},pwrite64");
    let output = calls.path().to_str().unwrap();
    let mut under = vec!["strace", "-D", "-f", "-qq", "-o", output, "-P"];
    under.push(journal.to_str().unwrap());
    if *ring {
        // Only the ring is written in place.
        under.extend(["-P", ring_file.to_str().unwrap(), "-e", "inject=pwrite64:error=ENOSPC"]);
    }
    under.extend(["-e", &trace, "-e", &inject]);
    city.launch_under(&under);
    let sign_in = json!({"login": "social.1", "password": PASSWORD});
    let social = city.post("/api/v1/session", "", &sign_in).json()["token"].clone();
    (city, device, social.as_str().unwrap().to_owned(), calls)
}

fn note(n: u32) -> Value {
    json!({"id": format!("urn:ngsi-ld:Note:{n}"), "type": "Note", "level": n})
}

/// Writes until a write is refused; gives how many were acknowledged.
fn until_refused(city: &City) -> u32 {
    let mut acknowledged = 0;
    let refused = loop {
        let answer = city.post("/ngsi-ld/v1/entities", "app", &note(acknowledged));
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 500, "the fault does not come");
    };
    assert!(acknowledged > 0, "the fault comes too early");
    assert_eq!(refused.status, 503, "{}", refused.text);
    acknowledged
}

/// Class A of DESIGN section 8: what must be recorded first is refused, and says why.
fn class_a_is_refused(city: &City, social: &str) {
    let register = "/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1";
    let chart = "/api/v1/chart?entity=urn:ngsi-ld:EvacuationAssistance:001&attribute=need";
    for refused in [
        city.get(register, &format!("{social}:social-care")),
        city.get(chart, &format!("{social}:social-care")),
        city.act("admin", "dataset.rotate_key", json!({"dataset": "test"})),
        city.act("steward", "device.revoke", json!({"login": "fault", "dataset": "rivers"})),
    ] {
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.text.contains("remedy"), "{}", refused.text);
    }
}

fn fails_safely(fault: &Fault) {
    let (mut city, device, social, calls) = failing(fault);
    let acknowledged = until_refused(&city);
    // Never tried again on the same file, and said so; only this one call would have failed.
    for n in 0..3 {
        let again = city.post("/ngsi-ld/v1/entities", "app", &note(10_000 + n));
        assert_eq!(again.status, 503, "{}", again.text);
    }
    let ready = city.get("/readyz", "");
    assert_eq!((ready.status, ready.text.contains("restart")), (503, true), "{}", ready.text);
    for n in 0..acknowledged {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
        assert_eq!(city.get(&path, "app").json()["level"], json!(n));
    }
    class_a_is_refused(&city, &social);
    // Class B: for an emergency the list is shown, and its record goes to the ring, as life-safety
    // readings do; with an alarm.
    let register = "/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1";
    let shown = city.get(register, "crisis:flood-response");
    let kept = city.post(UPSERT, &device, &level(9));
    let trouble = city.get("/api/v1/state", "admin").json()["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|alarm| alarm.contains("restart")), "{trouble}");
    if fault.ring {
        // The ring cannot take it either: no acknowledgement, and no look.
        assert_eq!((shown.status, kept.status), (503, 503), "{} {}", shown.text, kept.text);
    } else {
        assert_eq!(shown.status, 200, "{}", shown.text);
        assert!(kept.status < 300, "life-safety goes on: {}", kept.text);
        let calls = std::fs::read_to_string(calls.path()).unwrap();
        let failed = calls.lines().position(|line| line.contains("INJECTED")).unwrap();
        let after: Vec<_> = calls.lines().skip(failed + 1).collect();
        assert!(!after.iter().any(|line| line.contains(fault.call)), "tried again: {after:?}");
    }
    city.kill();
    city.launch();
    for n in 0..acknowledged {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
        assert_eq!(city.get(&path, "app").json()["level"], json!(n));
    }
    for n in 0..3 {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{}", 10_000 + n);
        assert_eq!(city.get(&path, "app").status, 404, "refused is not done");
    }
    if !fault.ring {
        let path = format!("/ngsi-ld/v1/entities/{STREAM}?options=keyValues");
        let found = city.get(&path, "").json();
        assert_eq!(found["currentLevel"], json!(9), "{found}");
        let looked = city
            .get("/api/v1/records?dataset=evacuation&purpose=flood-response&limit=5", "auditor");
        assert!(
            looked.text.contains("\"counted\""),
            "the emergency read has its record: {}",
            looked.text
        );
    }
    // A device that was to be revoked is not, for it was refused.
    assert!(city.post(UPSERT, &device, &level(10)).status < 300);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(20_000)).status, 201);
    city.verify_clean();
}

#[test]
fn a_failed_fsync_is_never_tried_again() {
    for (error, nth) in [("EIO", 40), ("ENOSPC", 57)] {
        fails_safely(&Fault { call: "fdatasync", error, nth, ring: false });
    }
}

#[test]
fn a_failed_write_is_never_tried_again() {
    for (error, nth) in [("ENOSPC", 40), ("EIO", 71)] {
        fails_safely(&Fault { call: "write", error, nth, ring: false });
    }
}

#[test]
fn what_neither_log_nor_ring_can_take_is_not_acknowledged() {
    fails_safely(&Fault { call: "fdatasync", error: "EIO", nth: 40, ring: true });
}

/// Nothing can be opened any more, of all that the hub keeps: keys are not changed, what was open goes
/// on, and nothing that was acknowledged is lost.
fn nothing_opens(error: &str) {
    let config = tempfile::NamedTempFile::new().unwrap();
    // So that files are begun all the time.
    let settings = "[store]\nseal_points = 40\nseal_commits = 50\nseal_every_ms = 100\n";
    std::fs::write(config.path(), settings).unwrap();
    let mut city =
        City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]);
    let device = city.enrol_device("opening", "rivers", STREAM);
    let numbered = |n: u32| {
        json!([{"id": "urn:ngsi-ld:Note:one", "type": "Note", "level":
        {"value": n, "observedAt": format!("2026-02-01T10:{:02}:{:02}Z", n / 60, n % 60)}}])
    };
    // A dataset that nothing was ever written to has no key, and then can be given none.
    assert_eq!(city.post(UPSERT, &device, &level(1)).status, 201);
    let mut acknowledged = 0;
    while acknowledged < 100 {
        assert!(city.post(UPSERT, "app", &numbered(acknowledged)).status < 300);
        acknowledged += 1;
    }
    let process = city.process_id().to_string();
    let inject = format!("inject=openat,open,creat:error={error}");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &process, "-e", &inject])
        .spawn()
        .unwrap();
    let status = format!("/proc/{process}/status");
    city.wait_for(|| {
        let traced = std::fs::read_to_string(&status).unwrap();
        (!traced.contains("TracerPid:\t0\n")).then_some(())
    });
    let rotated = city.act("admin", "dataset.rotate_key", json!({"dataset": "test"}));
    assert_eq!(rotated.status, 503, "{}", rotated.text);
    while acknowledged < 600 && city.post(UPSERT, "app", &numbered(acknowledged)).status < 300 {
        acknowledged += 1;
    }
    let kept = city.post(UPSERT, &device, &level(9));
    assert!([201, 204].contains(&kept.status), "life-safety goes on: {}", kept.text);
    let note = "/ngsi-ld/v1/entities/urn:ngsi-ld:Note:one?options=keyValues";
    assert_eq!(city.get(note, "app").json()["level"], json!(acknowledged - 1));
    let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Note:one?options=temporalValues\
        &timerel=after&timeAt=2026-01-01T00:00:00Z";
    let all = |city: &City| {
        let answer = city.get(path, "app");
        let values = answer.json()["level"]["values"].as_array().cloned().unwrap_or_default();
        (answer.status, values.iter().map(|v| v[0].as_u64().unwrap() as u32).collect::<Vec<_>>())
    };
    let whole = |count: u32| (200, (0..count).collect::<Vec<_>>());
    // Refused in words, or whole; never short.
    let shown = all(&city);
    assert!(shown == whole(acknowledged) || shown.0 >= 500, "{shown:?} of {acknowledged}");
    city.kill();
    strace.wait().unwrap();
    city.launch();
    let shown = all(&city);
    assert!(shown == whole(acknowledged) || shown == whole(acknowledged + 1), "{shown:?}");
    let path = format!("/ngsi-ld/v1/entities/{STREAM}?options=keyValues");
    let level = city.get(&path, "");
    assert_eq!(level.json()["currentLevel"], json!(9), "{}", level.text);
    let rotated = city.act("admin", "dataset.rotate_key", json!({"dataset": "test"}));
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    city.verify_clean();
}

#[test]
fn a_disk_on_which_nothing_opens_loses_nothing() {
    nothing_opens("EIO");
}

#[test]
fn a_hub_that_may_open_no_more_loses_nothing() {
    nothing_opens("EMFILE");
}

/// A small file system of its own; it goes with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mib: u32) -> Option<Small> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            let is_required = std::env::var_os("TANGGUL_MOUNTS").is_some();
            assert!(!is_required, "a file system cannot be mounted: run this as root");
            println!("not run: a file system cannot be mounted here");
            return None;
        }
        Some(Small(directory))
    }

    /// Leaves this much room, in KiB.
    fn leave(&self, kib: u64) {
        let filler = self.0.path().join("filler");
        drop(std::fs::remove_file(&filler));
        let output = Command::new("df").args(["--output=avail", "-k"]).arg(self.0.path()).output();
        let free = stdout(&output.unwrap()).lines().nth(1).unwrap().trim().parse::<u64>().unwrap();
        let count = format!("count={}", free - kib);
        let of = format!("of={}", filler.display());
        let filled = Command::new("dd")
            .args(["if=/dev/zero", "bs=1k", "status=none", &count, &of])
            .status()
            .unwrap();
        assert!(filled.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// A city whose data lies on a small file system.
fn cramped(small: &Small, least_mib: u32) -> City {
    let config = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    std::fs::write(&config, format!("[store]\nmin_free_mib = {least_mib}\n")).unwrap();
    let directory = tempfile::tempdir_in(small.0.path()).unwrap();
    let arguments = ["--devices", "0", "--config", config.to_str().unwrap()];
    City::start_in(directory, &arguments, &[])
}

fn level(n: u32) -> Value {
    json!([{"id": STREAM, "type": "FloodMonitoring", "currentLevel":
        {"value": n, "unitCode": "CMT", "observedAt": format!("2026-02-01T10:00:{n:02}Z")}}])
}

const UPSERT: &str = "/ngsi-ld/v1/entityOperations/upsert?options=update";

#[test]
fn a_small_disk_that_fills_up_keeps_the_flood_picture() {
    let Some(small) = Small::mount(64) else { return };
    let mut city = cramped(&small, 8);
    let device = city.enrol_device("small", "rivers", STREAM);
    assert!(city.post(UPSERT, &device, &level(1)).status < 300);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(1)).status, 201);
    // Less room than the hub keeps for itself.
    small.leave(4 << 10);
    let refused = city.post("/ngsi-ld/v1/entities", "app", &note(2));
    assert_eq!((refused.status, refused.text.contains("MiB")), (507, true), "{}", refused.text);
    assert_eq!(city.get("/readyz", "").status, 503);
    assert!(city.post(UPSERT, &device, &level(2)).status < 300, "life-safety goes on");
    let shown = city.get(&format!("/ngsi-ld/v1/entities/{STREAM}?options=keyValues"), "").json();
    assert_eq!(shown["currentLevel"], 2);
    // Room again: without a restart everything goes on, and the ring is brought home.
    small.leave(24 << 10);
    city.wait_for(|| (city.get("/readyz", "").status == 200).then_some(()));
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(3)).status, 201);
    let path = format!("/ngsi-ld/v1/temporal/entities/{STREAM}?options=temporalValues");
    city.wait_for(|| city.get(&path, "").text.contains("10:00:02").then_some(()));
    city.verify_clean();
}

#[test]
fn a_disk_without_any_room_loses_nothing_that_was_acknowledged() {
    let Some(small) = Small::mount(64) else { return };
    let mut city = cramped(&small, 0);
    let device = city.enrol_device("small", "rivers", STREAM);
    assert!(city.post(UPSERT, &device, &level(1)).status < 300);
    small.leave(48);
    let mut acknowledged = 0;
    let refused = loop {
        let answer = city.post("/ngsi-ld/v1/entities", "app", &note(acknowledged));
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 2_000, "the disk does not fill up");
    };
    assert!([503, 507].contains(&refused.status), "{}", refused.text);
    assert!(city.post(UPSERT, &device, &level(3)).status < 300, "life-safety goes on");
    city.kill();
    small.leave(0);
    // A start needs no room that is not there: what is open to all is shown again.
    assert!(served(&city).contains("currentLevel"));
    small.leave(24 << 10);
    city.launch();
    for n in 0..acknowledged {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
        assert_eq!(city.get(&path, "app").json()["level"], json!(n));
    }
    let path = format!("/ngsi-ld/v1/entities/{STREAM}?options=keyValues");
    assert_eq!(city.get(&path, "").json()["currentLevel"], 3);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(10_000)).status, 201);
    city.verify_clean();
}

/// What a hub that serves the city's data without its demo says of the river.
fn served(city: &City) -> String {
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (https, mqtt) = (port(), port());
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "data = \"{}\"\n[listen]\nhttps = \"{https}\"\nmqtt = \"{mqtt}\"\n[store]\nmin_free_mib = 0\n",
        city.data().display()
    );
    std::fs::write(config.path(), text).unwrap();
    let mut hub = Command::new(crate::harness::program())
        .args(["serve", "--config", config.path().to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = Command::new("curl")
        .args(["-sf", "--retry", "100", "--retry-connrefused", "--retry-delay", "1"])
        .args(["--cacert", city.data().join("ca.pem").to_str().unwrap()])
        .arg(format!("https://localhost:{}/ngsi-ld/v1/entities/{STREAM}", https.port()))
        .output()
        .unwrap();
    hub.kill().unwrap();
    hub.wait().unwrap();
    stdout(&output)
}

#[test]
fn without_file_handles_known_clients_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut city = City::start_in(directory, &["--devices", "0"], &["prlimit", "--nofile=700:700"]);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(1)).status, 201);
    // More strangers than there are handles, and they stay.
    let port: u16 = city.url().rsplit(':').next().unwrap().parse().unwrap();
    let strangers: Vec<_> =
        (0..900).filter_map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    assert!(strangers.len() > 800, "{} connected", strangers.len());
    for n in 2..40 {
        assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(n)).status, 201);
    }
    // A newcomer gets in as well.
    let output = Command::new("curl")
        .args(["-sf", "--max-time", "20", "--cacert", city.ca()])
        .arg(format!("{}/healthz", city.url()))
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "ok\n");
    drop(strangers);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(50)).status, 201);
    city.verify_clean();
}

#[test]
fn a_clock_that_jumps_loses_nothing_and_locks_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).unwrap();
    set("+0");
    let environment = [
        "env",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        &format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        &format!("LD_PRELOAD={}", faketime()),
    ];
    let mut city = City::start_in(directory, &["--devices", "0"], &environment);
    let device = city.enrol_device("clock", "rivers", STREAM);
    city.enrol_official("social.1", "social", &["department"]);
    let sign_in = json!({"login": "social.1", "password": PASSWORD});
    // A day on, a week back, home again, and a minute back: everybody works, and each write has its
    // receipt within the second that checkpoints come in.
    for (n, offset) in (1..).zip(["+1d", "-7d", "+0", "-1m"]) {
        set(offset);
        assert!(city.post(UPSERT, &device, &level(n)).status < 300, "{offset}");
        let written = city.post("/ngsi-ld/v1/entities", "app", &note(n));
        assert_eq!(written.status, 201, "{offset}: {}", written.text);
        let index = written.receipt();
        let receipt = || city.get(&format!("/api/v1/receipts/{index}"), "").status == 200;
        city.wait_for(|| receipt().then_some(()));
        assert_eq!(city.post("/api/v1/session", "", &sign_in).status, 200, "{offset}");
        // Guessing is slowed down all the same, and wakes up by itself.
        let wrong = json!({"login": "social.1", "password": "kuda meja awan tujuh sebelas"});
        assert_eq!(city.post("/api/v1/session", "", &wrong).status, 401, "{offset}");
    }
    // All of it is there, whatever the clock said: also where what is old goes.
    let all_there = |city: &City| {
        for n in 1..=4 {
            let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
            assert_eq!(city.get(&path, "app").json()["level"], json!(n));
        }
        let path = format!(
            "/ngsi-ld/v1/temporal/entities/{STREAM}?attrs=currentLevel&options=temporalValues"
        );
        let levels = city.get(&path, "").json()["currentLevel"]["values"].clone();
        let levels: Vec<_> =
            levels.as_array().unwrap().iter().map(|point| point[0].as_u64().unwrap()).collect();
        assert_eq!(levels, [1, 2, 3, 4]);
    };
    all_there(&city);
    // Far on, what was given for a time has ended; back home it holds again.
    set("+4000d");
    assert_eq!(city.get("/api/v1/principals", "admin").status, 401);
    set("+0");
    assert_eq!(city.get("/api/v1/principals", "admin").status, 200);
    all_there(&city);
    city.kill();
    city.launch();
    all_there(&city);
    city.verify_clean();
}

/// The library that makes up the time.
fn faketime() -> String {
    let found = Command::new("dpkg").args(["-L", "libfaketime"]).output().unwrap();
    let files = stdout(&found);
    let library = files.lines().find(|line| line.ends_with("libfaketimeMT.so.1"));
    library.unwrap_or_else(|| panic!("install libfaketime")).to_owned()
}

#[test]
fn a_slow_disk_holds_up_only_those_who_write() {
    let mut city = City::start();
    let written = note(1);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &written).status, 201);
    city.stop();
    let journal = city.data().join("store/0.jnl");
    // A second for every fsync.
    city.launch_under(&[
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        journal.to_str().unwrap(),
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_exit=1000000",
    ]);
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:Note:1?options=keyValues";
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (url, ca, token) = (city.url().to_owned(), city.ca().to_owned(), city.token("app"));
            std::thread::spawn(move || {
                let output = Command::new("curl")
                    .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca])
                    .args(["-H", &format!("Authorization: Bearer {token}")])
                    .args(["-H", "Content-Type: application/json"])
                    .args(["-d", &note(100 + n).to_string()])
                    .arg(format!("{url}/ngsi-ld/v1/entities"))
                    .output();
                stdout(&output.unwrap())
            })
        })
        .collect();
    let mut reads = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        assert_eq!(city.get(path, "app").json()["level"], json!(1));
        reads += 1;
    }
    assert!(writers.into_iter().all(|writer| writer.join().unwrap() == "201"));
    assert!(reads > 20, "reads waited for the disk: {reads}");
    city.verify_clean();
}
