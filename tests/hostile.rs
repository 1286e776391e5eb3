//! Crowds, slow senders, bombs and noise at the doors: cut at the named limits, others go on.

use crate::harness::{City, stdout, tls};
use serde_json::{Value, json};
use std::process::Command;

/// What somebody known waits for at most, 99 times in a hundred, whatever comes beside: as a city's
/// devices do while a backlog is drained (`cargo xtask bench city`).
const OTHERS_P99_MS: f64 = 250.0;

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
    let number = |name: &str| found[name].as_f64().unwrap();
    assert!(number("reached") > 0.9 * f64::from(most) * 10.0, "the crowd was not there: {found}");
    let phases = found["others"].as_object().unwrap();
    assert_eq!(phases.len(), 6, "{found}");
    for (phase, fared) in phases {
        assert!(fared["p99_ms"].as_f64().unwrap() < OTHERS_P99_MS, "{phase}: {found}");
    }
    assert!(number("worst_bomb_s") < 5.0, "{found}");
    assert!(number("slow_cut_after_s") < 20.0, "{found}");
    city.verify_clean();
}

/// A browser that is closed, or somebody who resets the stream on purpose: what an act does one after
/// another is done to its end, so that memory and disk say the same.
#[test]
fn whoever_goes_away_leaves_nothing_half_done() {
    use std::io::Write;
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[egress]\nallow = [\"127.0.0.1\"]\n").unwrap();
    let mut city = City::start_with(&["--config", config.path().to_str().unwrap()]);
    let port = city.url().rsplit(':').next().unwrap().to_owned();
    let subscription =
        json!({"type": "Subscription", "entities": [{"type": "T"}], "notification": {
        "endpoint": {"uri": "http://127.0.0.1:1/"}}})
        .to_string();
    let head = format!(
        "POST /ngsi-ld/v1/subscriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        city.token("app"),
        subscription.len()
    );
    for wait in 0..40 {
        let mut stream = tls(&city, &port).unwrap();
        stream.write_all(&[head.as_bytes(), subscription.as_bytes()].concat()).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(100 * wait));
        stream.sock.shutdown(std::net::Shutdown::Both).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let count = |city: &City| {
        city.get("/ngsi-ld/v1/subscriptions?limit=1000", "app").json().as_array().unwrap().len()
    };
    let before = count(&city);
    city.stop();
    city.launch();
    assert_eq!(count(&city), before, "those in memory are those on disk");
}

/// `[1,1,1,...]`: so many things that are no entities are not looked at one by one.
#[test]
fn what_is_too_many_is_not_parsed() {
    let city = City::start();
    let many = format!("[{}1]", "1,".repeat(1_500_000));
    for (who, status) in [("", 413), ("app", 413)] {
        let body = Some(("application/json", many.clone().into_bytes()));
        let answer = city.send("POST", "/ngsi-ld/v1/entityOperations/create", who, body);
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(answer.text.len() < 2_000);
    }
    // Nor are many names compared with each other, nor methods, keys and selectors repeated.
    let names: serde_json::Map<String, Value> =
        (0..15_000).map(|n| (format!("a{n}"), json!(1))).collect();
    let mut wide = json!({"id": "urn:x:wide", "type": "T"});
    wide.as_object_mut().unwrap().extend(names);
    let since = std::time::Instant::now();
    let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
    let answer = city.post(upsert, "app", &json!([wide]));
    assert!(answer.text.contains("attributes"), "{}", answer.text);
    let selectors: Vec<Value> = (0..101).map(|_| json!({"idPattern": "\\w{4}"})).collect();
    let ids: Vec<String> = (0..1_001).map(|n| format!("urn:x:{n}")).collect();
    for entities in [json!(selectors), json!([{"type": "T", "id": ids}])] {
        let query = json!({"type": "Query", "entities": entities});
        let answer = city.post("/ngsi-ld/v1/entityOperations/query", "", &query);
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("at most"), "{}", answer.text);
    }
    let order = format!("/ngsi-ld/v1/entities?type=T&orderBy={}", ["z"; 9].join(","));
    assert_eq!(city.get(&order, "app").status, 400);
    assert!(since.elapsed().as_secs() < 10, "{:?}", since.elapsed());
    // As many instances as may come are as fast as few.
    let instances: Vec<Value> = (0..10_000)
        .map(|n| json!({"value": n, "observedAt": "2026-02-01T10:00:00Z", "datasetId": format!("urn:d:{n}")}))
        .collect();
    let since = std::time::Instant::now();
    let entity = json!({"id": "urn:x:many", "type": "T", "a": instances});
    let answer = city.post("/ngsi-ld/v1/entities", "", &entity);
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert!(since.elapsed().as_secs() < 10);
}

/// What is wrong with a head is told also to whoever still sends a body.
#[test]
fn who_still_sends_hears_what_is_wrong() {
    use std::io::{Read, Write};
    let city = City::start();
    let port = city.url().rsplit(':').next().unwrap().to_owned();
    for (query, header) in [
        ("a=1&a=2", "Accept: */*"),
        ("", "NGSILD-Tenant: other"),
        ("", "Authorization: Bearer tgl_none"),
        ("", "Tanggul-Purpose: "),
    ] {
        let mut stream = tls(&city, &port).unwrap();
        let head = format!(
            "POST /ngsi-ld/v1/entities?{query} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\
             Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            stream.write_all(&[b' '; 10_000]).unwrap();
            stream.flush().unwrap();
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 4"),
            "{header}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
}

/// What an answer leaves of a request's body is thrown away: the next request over the same connection is heard.
#[test]
fn what_is_left_of_a_body_breaks_no_connection() {
    use std::io::{Read, Write};
    let city = City::start();
    let port = city.url().rsplit(':').next().unwrap().to_owned();
    let mut stream = tls(&city, &port).unwrap();
    let mut hear = |request: &str, body: &[u8]| {
        stream.write_all(format!("{request}\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        stream.write_all(body).unwrap();
        let mut answer = vec![0; 16_384];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let plain = [b' '; 20_000];
    // More than a stranger may send, in one chunk whose end is the last to come.
    let chunk = [b"61a80\r\n".as_slice(), &[b' '; 400_000], b"\r\n0\r\n\r\n"].concat();
    let (length, chunked) = ("Content-Length: 20000", "Transfer-Encoding: chunked");
    let long = format!("{length}\r\nX: {}", "x".repeat(70_000));
    for (request, framing, body, status) in [
        ("PUT /ngsi-ld/v1/temporal/entities", length, plain.as_slice(), "405"),
        ("POST /ngsi-ld/v1/nothing", length, &plain, "404"),
        ("PATCH /ngsi-ld/v1/temporal/entities/urn:x:1/attrs/a/urn:x:2", length, &plain, "501"),
        ("POST /ngsi-ld/v1/entities", &long, &plain, "431"),
        ("POST /ngsi-ld/v1/entities", chunked, &chunk, "413"),
    ] {
        let answer = hear(&format!("{request} HTTP/1.1\r\n{framing}"), body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        let next = hear("GET /healthz HTTP/1.1", b"");
        assert!(next.starts_with("HTTP/1.1 200"), "after {request}: {next}");
    }
}

/// Answers that nobody reads stay in memory: whoever lets most of them lie is sent away.
#[test]
fn whoever_reads_nothing_is_sent_away() {
    use std::io::{Read, Write};
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[limits]\nunread = 70000000\n").unwrap();
    let city = City::start_with(&["--config", config.path().to_str().unwrap()]);
    let port = city.url().rsplit(':').next().unwrap().to_owned();
    for n in 0..15 {
        let entity =
            json!({"id": format!("urn:x:big:{n}"), "type": "Big", "text": "y".repeat(2_000_000)});
        assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    }
    let head = format!(
        "GET /ngsi-ld/v1/entities?type=Big&limit=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        city.token("app")
    );
    let mut idle: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = tls(&city, &port).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.flush().unwrap();
            std::thread::sleep(std::time::Duration::from_secs(1));
            stream
        })
        .collect();
    let whole = city.get("/ngsi-ld/v1/entities?type=Big&limit=100", "app");
    assert_eq!((whole.status, whole.text.len() > 30_000_000), (200, true));
    let mut broken = 0;
    for stream in &mut idle {
        let (mut read, mut piece) = (0, vec![0; 1 << 16]);
        while read < 30_000_000 {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(more) => read += more,
            }
        }
        broken += usize::from(read < 30_000_000);
    }
    assert_eq!(broken, 1, "together they are more than may lie unread");
}
