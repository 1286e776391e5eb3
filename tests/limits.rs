//! Every limit that `tanggul limits` names is hit, and answers as it says.

use crate::harness::{City, receiver, stdout, tanggul};
use serde_json::{Value, json};
use std::process::Command;

fn ngsild_core() -> &'static str {
    "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld"
}

const BATCH: &str = "/ngsi-ld/v1/entityOperations/create";
const UPSERT: &str = "/ngsi-ld/v1/entityOperations/upsert?options=update";
const ENTITIES: &str = "/ngsi-ld/v1/entities";

/// A city under these limits.
fn limited(limits: &str) -> City {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.keep().join("limits.toml");
    std::fs::write(&path, format!("[egress]\nallow = [\"127.0.0.1\"]\n[limits]\n{limits}"))
        .unwrap();
    City::start_with(&["--devices", "0", "--config", path.to_str().unwrap()])
}

fn slow(port: &str, cases: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/slow.py");
    let output = Command::new("python3").arg(script).arg(port).args(cases).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn https_port(city: &City) -> String {
    city.url().rsplit(':').next().unwrap().to_owned()
}

/// So many entities of half a kilobyte that each link to all of them; their ids.
fn linked(city: &City, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|n| format!("urn:x:link:{n}")).collect();
    let one = |id: &String| json!({"id": id, "type": "Link", "to": {"object": ids}, "text": "y".repeat(500)});
    let all: Vec<Value> = ids.iter().map(one).collect();
    assert_eq!(city.post(BATCH, "app", &json!(all)).status, 201);
    ids
}

fn gauge(value: f64, at: &str) -> Value {
    json!({"id": "urn:ngsi-ld:Gauge:1", "type": "Gauge", "level": {"value": value, "observedAt": at}})
}

#[test]
fn what_is_too_much_is_answered_with_the_limit_that_was_hit() {
    let city = limited(
        "batch = 50\npage = 30\npoints = 20\nperiods = 10\nquarantine = 3\nsubscriptions = 2\n\
         watches = 1\ncontexts = 1\nahead = 60\nrefusals_recorded = 3\nhttp_body = 5000000\n\
         http_body_stranger = 100000\nanswer = 200000\nhttp_head = 30000\n\
         http_head_timeout = 1\nhttp_body_timeout = 1\ntls_handshake_timeout = 1\n\
         mqtt_packet = 20000\nmqtt_refusals = 3\nrecords_page = 10\n",
    );
    // Path, body, status, what the answer names.
    let attributes: serde_json::Map<String, Value> =
        (0..1_001).map(|n| (format!("a{n}"), json!(n))).collect();
    let mut wide = json!({"id": "urn:x:wide", "type": "T"});
    wide.as_object_mut().unwrap().extend(attributes);
    let terms: serde_json::Map<String, Value> =
        (0..10_001).map(|n| (format!("t{n}"), json!(format!("urn:t:{n}")))).collect();
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let many: Vec<Value> =
        (0..51).map(|n| json!({"id": format!("urn:x:{n}"), "type": "T"})).collect();
    let long = "x".repeat(6_000_000);
    let values = vec![1; 2_000_001];
    let instances: Vec<Value> =
        (0..10_001).map(|n| json!({"value": n, "datasetId": format!("urn:d:{n}")})).collect();
    let links = vec![ngsild_core(); 101];
    let name = "n".repeat(1_100);
    let types: Vec<String> = (0..101).map(|n| format!("T{n}")).collect();
    let contexts = |n: usize| json!({"@context": {"t": format!("urn:t:{n}")}, "id": format!("urn:x:{n}"), "type": "T"});
    let contexts: Vec<Value> = (0..9).map(contexts).collect();
    let note = "n".repeat(70_000);
    let subscription = json!({"type": "Subscription", "entities": [{"type": "T"}], "description": note,
        "notification": {"endpoint": {"uri": "http://127.0.0.1:1/"}}});
    let ring: Vec<Value> = (0..10_001).map(|n| json!([f64::from(n) / 1e4, 0.0])).collect();
    let line = json!({"type": "GeoProperty", "value": {"type": "LineString", "coordinates": ring}});
    let refused = [
        (ENTITIES, json!({"id": "urn:x:1", "type": name}), 400, "name"),
        (ENTITIES, json!({"id": "urn:x:1", "type": types}), 400, "100 values"),
        ("/ngsi-ld/v1/subscriptions", subscription, 400, "65536 bytes"),
        (ENTITIES, json!({"id": "urn:x:1", "type": "T", "location": line}), 400, "positions"),
        (BATCH, json!(many), 413, "batch"),
        (ENTITIES, json!({"id": "urn:x:1", "type": "T", "a": long}), 413, "5000000"),
        (ENTITIES, json!({"id": "urn:x:1", "type": "T", "a": values}), 400, "values"),
        (ENTITIES, json!({"id": "urn:x:1", "type": "T", "a": instances}), 400, "instances"),
        (ENTITIES, json!({"@context": links, "id": "urn:x:1", "type": "T"}), 400, "leads to"),
        (ENTITIES, wide, 400, "attributes"),
        (ENTITIES, json!({"id": "urn:x:1", "type": "T", "a": {"value": deep}}), 400, "deep"),
        (ENTITIES, json!({"@context": [terms], "id": "urn:x:1", "type": "T"}), 400, "terms"),
        (ENTITIES, gauge(1.0, "2099-01-01T00:00:00Z"), 400, "60 seconds"),
    ];
    for (path, body, status, names) in refused {
        let answer = city.send(
            "POST",
            path,
            "app",
            Some(("application/ld+json", body.to_string().into_bytes())),
        );
        let plain = city.post(path, "app", &body);
        let answer = if body.get("@context").is_some() { answer } else { plain };
        assert_eq!(
            (answer.status, answer.text.contains(names)),
            (status, true),
            "{names}: {}",
            answer.text
        );
    }
    let body = Some(("application/ld+json", json!(contexts).to_string().into_bytes()));
    let answer = city.send("POST", BATCH, "app", body);
    assert_eq!((answer.status, answer.text.contains("8th")), (400, true), "{}", answer.text);
    // Whoever shows no credential sends less.
    let asked = json!({"type": "Query", "entities": [{"type": "x".repeat(150_000)}]});
    let query = "/ngsi-ld/v1/entityOperations/query";
    let stranger = city.post(query, "", &asked);
    assert_eq!(stranger.status, 413, "{}", stranger.text);
    assert!(stranger.text.contains("100000 bytes without a credential"), "{}", stranger.text);
    assert_eq!(city.post(query, "app", &asked).status, 400);
    // What an answer may hold, also where the same is written again and again.
    linked(&city, 30);
    let whole = city.get(&format!("{ENTITIES}?type=Link&limit=30"), "app");
    assert_eq!(whole.status, 200, "{}", whole.text);
    for asked in
        ["type=Link&limit=30&join=inline&joinLevel=4", "id=urn:x:link:1&join=inline&joinLevel=4"]
    {
        let answer = city.get(&format!("{ENTITIES}?{asked}"), "app");
        assert_eq!((answer.status, answer.text.contains("answer")), (413, true), "{}", answer.text);
    }
    let policies = json!({"text": "// ".to_owned() + &"x".repeat(300_000)});
    let policy = city.act("admin", "policies.put", policies);
    assert_eq!(policy.status, 400, "{}", policy.text);
    let q = format!("{ENTITIES}?type=T&q={}", "a;".repeat(2_100));
    let got = |path: &str, who: &str, status: u16| {
        let answer = city.get(path, who);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        answer
    };
    got(&q, "app", 400);
    for (asked, names) in [
        (format!("type=T&x={}", "y".repeat(17_000)), "16384"),
        (format!("type=T&idPattern={}", "a".repeat(1_100)), "1024"),
        (format!("type=T&q={}", ["a~=b"; 9].join(";")), "8 patterns"),
        ((0..65).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&"), "64 parameters"),
        (
            format!(
                "type=T&georel=within&geometry=Polygon&coordinates=[[{}[0,0]]]",
                (0..500).map(|n| format!("[{},{}],", n % 90, n / 90)).collect::<String>()
            ),
            "500 positions",
        ),
        (format!("type={}", "T,".repeat(2_100)), "4096"),
        ("type=T&join=flat&joinLevel=5".to_owned(), "from 1 to 4"),
    ] {
        let answer = got(&format!("{ENTITIES}?{asked}"), "app", 400);
        assert!(answer.text.contains(names), "{}", answer.text);
    }
    let context = json!({"@context": {"a": "urn:a"}});
    let host = || {
        let body = Some(("application/ld+json", context.to_string().into_bytes()));
        city.send("POST", "/ngsi-ld/v1/jsonldContexts", "app", body).status
    };
    assert_eq!((host(), host()), (201, 507));
    let official = json!({"kind": "official", "login": "long", "department": "it", "roles": []});
    let code = city.act("admin", "principal.enrol", official).json()["answer"]["code"].clone();
    let redeem = json!({"code": code, "password": "kuda meja ".repeat(60)});
    assert_eq!(city.post("/api/v1/redeem", "", &redeem).status, 400);
    got(&format!("{ENTITIES}?type=T&limit=31"), "app", 400);
    got("/api/v1/records?limit=11", "auditor", 400);

    // Histories: more points than an answer holds, more periods than are summed. The first has none then.
    let first = json!({"id": "urn:ngsi-ld:Gauge:0", "type": "Gauge", "level": {"value": 1, "observedAt": "2025-02-01T10:00:00Z"}});
    assert_eq!(city.post(ENTITIES, "app", &first).status, 201);
    for minute in 0..25 {
        let reading = gauge(f64::from(minute), &format!("2026-02-01T10:{minute:02}:00Z"));
        assert!(city.post(UPSERT, "app", &json!([reading])).status < 300);
    }
    let history = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:Gauge:1?timerel=after&timeAt=2026-01-01T00:00:00Z";
    got(history, "app", 206);
    // Entities that do not fit into an answer are the next page's, and never lost.
    let other = json!({"id": "urn:ngsi-ld:Gauge:2", "type": "Gauge", "level": {"value": 1, "observedAt": "2026-02-01T10:00:00Z"}});
    assert_eq!(city.post(ENTITIES, "app", &other).status, 201);
    let page = got(
        "/ngsi-ld/v1/temporal/entities?type=Gauge&timerel=after&timeAt=2026-01-01T00:00:00Z",
        "app",
        206,
    );
    let links = page.headers.get_all("link").iter().map(|link| link.to_str().unwrap());
    let link = links.filter(|link| link.contains("rel=\"next\"")).collect::<String>();
    assert!(!page.text.contains("Gauge:2") && link.contains("rel=\"next\""), "{link}");
    let next = link.split(['<', '>']).nth(1).unwrap();
    let next = got(next, "app", 200);
    assert!(next.text.contains("Gauge:2") && !next.text.contains("Gauge:1"), "{}", next.text);
    let sums =
        format!("{history}&options=aggregatedValues&aggrMethods=avg&aggrPeriodDuration=PT1M");
    assert!(got(&sums, "app", 413).text.contains("periods"));

    // Misfits of a device are set apart up to a number.
    let stream = "urn:ngsi-ld:FloodMonitoring:limit";
    let device = city.enrol_device("limit", "rivers", stream);
    let misfit = json!([{"id": stream, "type": "FloodMonitoring", "currentLevel": {"value": 99_999, "unitCode": "CMT", "observedAt": "2026-02-01T10:00:00Z"}}]);
    let answers: Vec<String> = (0..4).map(|_| city.post(UPSERT, &device, &misfit).text).collect();
    assert!(answers[..3].iter().all(|text| text.contains("quarantined")), "{answers:?}");
    assert!(answers[3].contains("507") && answers[3].contains("steward"), "{}", answers[3]);

    let subscription = json!({"type": "Subscription", "entities": [{"type": "T"}],
        "notification": {"endpoint": {"uri": "http://127.0.0.1:1/"}}});
    let subscriptions = "/ngsi-ld/v1/subscriptions";
    let mut hasty = subscription.clone();
    hasty["timeInterval"] = json!(0.5);
    let answer = city.post(subscriptions, "app", &hasty);
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("seconds from 1"), "{}", answer.text);
    let subscribe = || city.post(subscriptions, "app", &subscription).status;
    assert_eq!((subscribe(), subscribe(), subscribe()), (201, 201, 507));

    // Refusals are recorded one by one up to a rate.
    for _ in 0..6 {
        got("/ngsi-ld/v1/entities?type=SmartMeteringObservation", "app", 403);
    }
    // Their records are on their way when the answers go: before what is written after them.
    assert_eq!(city.post(UPSERT, "app", &json!([gauge(1.0, "2026-02-01T11:00:00Z")])).status, 204);
    let recorded = got("/api/v1/records?decision=refused&dataset=meters&limit=10", "auditor", 200);
    let recorded = recorded.json();
    let recorded =
        recorded["records"].as_array().unwrap_or_else(|| recorded.as_array().unwrap()).len();
    assert_eq!(recorded, 3);

    // Streams held open, and what is never finished.
    let watch = |city: &City| {
        Command::new("curl")
            .args([
                "-sN",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--max-time",
                "2",
                "--cacert",
                city.ca(),
                "-H",
            ])
            .arg(format!("Authorization: Bearer {}", city.token("crisis")))
            .arg(format!("{}/api/v1/watch?type=FloodMonitoring", city.url()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let first = watch(&city);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let second = watch(&city).wait_with_output().unwrap();
    assert_eq!(
        (stdout(&second).as_str(), stdout(&first.wait_with_output().unwrap()).as_str()),
        ("429", "200")
    );
    for version in ["--http1.1", "--http2"] {
        let head = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                version,
                "--cacert",
                city.ca(),
                "-H",
            ])
            .arg(format!("X-Long: {}", "x".repeat(40_000)))
            .arg(format!("{}/healthz", city.url()))
            .output()
            .unwrap();
        assert_eq!(stdout(&head), "431", "{version}");
    }
    let held = slow(&https_port(&city), &["handshake", "head", "body"]);
    for (case, says) in held.as_array().unwrap().iter().zip(["", "", "408"]) {
        let seconds = case["seconds"].as_f64().unwrap();
        assert!((0.5..10.0).contains(&seconds), "{case}");
        assert!(case["said"].as_str().unwrap().contains(says), "{case}");
    }

    // MQTT: a packet too large ends the connection; so do refusals in version 3.1.1.
    let foreign = json!({"id": "urn:ngsi-ld:FloodMonitoring:other", "type": "FloodMonitoring", "currentLevel": 1});
    let own = json!({"id": stream, "type": "FloodMonitoring", "currentLevel": {"value": 1, "unitCode": "CMT"}});
    let (foreign, own, large) = (foreign.to_string(), own.to_string(), "x".repeat(30_000));
    // Times, payload, whether the connection is cut.
    for (times, payload, cut) in [(1, large, true), (12, foreign, true), (12, own, false)] {
        let case = format!("mqtt={}", json!(["limit", device, times, payload]));
        let held = slow(&city.mqtt_port(), &[&case]);
        assert_eq!(held[0]["seconds"].as_f64().unwrap() < 2.5, cut, "{held}");
    }
    assert_eq!(city.get("/readyz", "").status, 200);
}

#[test]
fn what_waits_behind_a_limit_is_not_lost() {
    let mut city = limited(
        "queue = 1\ngroup_changes = 1\ndecisions_cached = 1\nwatch_behind = 1\nsources_counted = 1\npassword_hashes = 1\noutbox = 2\n\
         outbox_keep = 1\nmqtt_in_flight = 1\nhttp_connections = 6\nmqtt_connections = 3\ninbox = 2\n",
    );
    let dead = json!({"id": "urn:ngsi-ld:Subscription:dead", "type": "Subscription", "entities": [{"type": "T"}],
        "notification": {"endpoint": {"uri": "http://127.0.0.1:1/"}}});
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &dead).status, 201);
    let threads: Vec<_> = (0..4)
        .map(|writer| {
            let (url, ca, token) = (city.url().to_owned(), city.ca().to_owned(), city.token("app"));
            std::thread::spawn(move || {
                let statuses = (0..5).map(|n| {
                    let output = Command::new("curl")
                        .args([
                            "-s",
                            "-o",
                            "/dev/null",
                            "-w",
                            "%{http_code}",
                            "--cacert",
                            &ca,
                            "-H",
                            &format!("Authorization: Bearer {token}"),
                        ])
                        .args(["-H", "Content-Type: application/json", "-d"])
                        .arg(
                            json!({"id": format!("urn:x:{writer}-{n}"), "type": "T", "a": n})
                                .to_string(),
                        )
                        .arg(format!("{url}{ENTITIES}"))
                        .output()
                        .unwrap();
                    stdout(&output)
                });
                statuses.collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), ["201"; 5]);
    }
    let count = city.get(&format!("{ENTITIES}?type=T&count=true&limit=0"), "app");
    assert_eq!(count.header("ngsild-results-count"), "20");
    let lost = city.wait_for(|| {
        let shown =
            city.get("/ngsi-ld/v1/subscriptions/urn:ngsi-ld:Subscription:dead", "app").json();
        shown["notification"]["timesLost"].as_u64().filter(|lost| *lost == 20)
    });
    assert_eq!(lost, 20, "pushed out by the outbox's size, then by its age, and counted");
    // Two sign-ins at once share one place for hashing; strangers who guess get no other answer.
    let sign_in = json!({"login": "nobody", "password": "something long enough"});
    assert_eq!(city.post("/api/v1/session", "", &sign_in).status, 401);
    // Known clients hold all places of the HTTPS door, and others wait; strangers make room.
    city.hang_up();
    let known = format!("known={}", json!([6, city.token("app")]));
    let held = slow(&https_port(&city), &[&known, "hold=12"]);
    assert_eq!((&held[0]["full"], &held[0]["after"]), (&json!(false), &json!(true)), "{held}");
    assert_eq!(held[1]["full"], true, "{held}");
    assert_eq!(city.get("/api/v1/session", "app").status, 200);
    slow(&city.mqtt_port(), &["hold=9"]);
    // Messages of one connection go on one at a time.
    let stream = "urn:ngsi-ld:FloodMonitoring:narrow";
    let device = city.enrol_device("narrow", "rivers", stream);
    let lines: String = (0..5).map(|n| {
        json!({"id": stream, "type": "FloodMonitoring", "currentLevel": {"value": n, "unitCode": "CMT", "observedAt": format!("2026-02-01T10:0{n}:00Z")}}).to_string() + "\n"
    }).collect();
    let mut child = Command::new("mosquitto_pub")
        .args([
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-t",
            "in/rivers",
            "-l",
            "-i",
            "narrow",
            "-u",
            "narrow",
            "-P",
            &device,
        ])
        .args(["-h", "localhost", "-p", &city.mqtt_port(), "--cafile", city.ca()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let path = format!(
        "/ngsi-ld/v1/temporal/entities/{stream}?options=temporalValues&timerel=after&timeAt=2026-01-01T00:00:00Z"
    );
    assert_eq!(city.get(&path, "").json()["currentLevel"]["values"].as_array().unwrap().len(), 5);
    // While the sensitive root is closed, only so much can wait for it.
    let meter = "urn:ngsi-ld:SmartMeteringObservation:limit";
    let body = json!({"kind": "device", "login": "limit-meter", "datasets": ["meters"], "streams": [meter]});
    let code = city.act("admin", "principal.enrol", body).json()["answer"]["code"].clone();
    let token = city.post("/api/v1/redeem", "", &json!({"code": code})).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    city.stop();
    let key = city.directory.path().join("data.keys/sensitive.key");
    std::fs::remove_file(key).unwrap();
    city.launch();
    let reading = json!({"id": meter, "type": "SmartMeteringObservation", "totalConsumption": {"value": 5, "unitCode": "KWH"}});
    let statuses: Vec<u16> = (0..3).map(|_| city.post(ENTITIES, &token, &reading).status).collect();
    assert_eq!(statuses, [202, 202, 507]);
}

#[test]
fn a_stream_tells_of_so_many_and_says_that_some_were_left_out() {
    let city = limited("watch_changes = 2\n");
    let gauges = |level: u32| {
        let one = |n: u32| json!({"id": format!("urn:ngsi-ld:Gauge:{n}"), "type": "Gauge", "level": {"value": level}});
        let all: Vec<_> = (0..5).map(one).collect();
        assert!(city.post(UPSERT, "app", &json!(all)).status < 300);
    };
    gauges(1);
    let stream = |who: &str| {
        Command::new("curl")
            .args(["-sN", "--max-time", "3", "--cacert", city.ca(), "-H"])
            .arg(format!("Authorization: Bearer {}", city.token(who)))
            .arg(format!("{}/api/v1/watch?type=Gauge", city.url()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (owner, other) = (stream("app"), stream("crisis"));
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    gauges(2);
    let seen = stdout(&owner.wait_with_output().unwrap());
    assert!(seen.contains("event: missed"), "{seen}");
    assert_eq!(seen.matches("urn:ngsi-ld:Gauge:").count(), 2, "{seen}");
    // Who does not see them does not hear that there were many either.
    let seen = stdout(&other.wait_with_output().unwrap());
    assert!(!seen.contains("missed") && !seen.contains("Gauge"), "{seen}");
}

#[test]
fn who_waits_for_a_password_is_told_to_come_again() {
    for limit in ["password_queue = 1\n", "password_queue_block = 1\n"] {
        let city = limited(&format!("password_hashes = 1\n{limit}"));
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let one = |n: usize| {
                let sign_in = json!({"login": format!("nobody {n}"), "password": "something long"});
                city.post("/api/v1/session", "", &sign_in).status
            };
            let all: Vec<_> = (0..8).map(|n| scope.spawn(move || one(n))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&401) && statuses.contains(&429), "{limit}: {statuses:?}");
    }
}

#[test]
fn a_notification_tells_by_ids_what_would_be_too_much() {
    let city = limited("notification = 3000\n");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = receiver(listener);
    let links = linked(&city, 10);
    let subscription = json!({"type": "Subscription", "entities": [{"type": "From"}], "notification": {
        "join": "inline", "joinLevel": 4, "endpoint": {"uri": format!("http://127.0.0.1:{port}/")}}});
    let made = city.post("/ngsi-ld/v1/subscriptions", "app", &subscription);
    assert_eq!(made.status, 201, "{}", made.text);
    let from = json!({"id": "urn:x:from", "type": "From", "to": {"object": links}});
    assert_eq!(city.post(ENTITIES, "app", &from).status, 201);
    let (_, told) = received.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    let told = told.to_string();
    assert!(told.contains("yyyy") && links.iter().all(|id| told.contains(id)), "{told}");
    assert!(told.len() < 10_000, "{} bytes", told.len());
}

#[test]
fn every_limit_has_its_test() {
    let own = include_str!("limits.rs");
    let printed = tanggul(&["limits", "--output", "json"]);
    let printed: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    // Asked for above, each by what is one too many of it.
    let fixed = [
        "policy",
        "attributes",
        "json_depth",
        "context_terms",
        "query",
        "query_string",
        "id_pattern",
        "selection",
        "name",
        "positions",
        "join_levels",
        "interval",
        "password",
        "json_values",
        "instances",
        "context_links",
        "types",
        "parameters",
        "patterns",
        "geo_reference",
        "batch_contexts",
        "subscription",
        // In `hostile::what_is_too_many_is_not_parsed`.
        "selectors",
        "ids",
        "order_keys",
    ];
    // Hit where they can be waited for.
    let turns = (
        include_str!("../crates/hub/src/tests/turns.rs"),
        "fn few_long_looks_go_on_at_once_and_few_of_one_principal_wait",
    );
    let hostile = include_str!("../crates/hub/src/tests/hostile.rs");
    let grows = "fn an_entity_grows_only_so_far";
    let units = [
        ("entity_instances", hostile, grows),
        ("entity_histories", hostile, grows),
        ("entity_bytes", hostile, grows),
        ("quarantine_bytes", hostile, "fn quarantine_holds_so_many_bytes"),
        ("outbox_bytes", hostile, "fn what_waits_for_a_dead_receiver_has_its_limits"),
        ("outbox_all", hostile, "fn what_waits_for_a_dead_receiver_has_its_limits"),
        ("subscriptions_each", hostile, "fn one_subscriber_has_his_share"),
        ("subscription_positions", hostile, "fn one_subscriber_has_his_share"),
        ("watches_each", hostile, "fn one_principal_has_his_share"),
        ("contexts_each", hostile, "fn one_principal_has_his_share"),
        ("pending", hostile, "fn what_waits_for_a_second_person"),
        (
            "sign_ins",
            include_str!("../crates/hub/src/state.rs"),
            "fn the_oldest_sign_in_ends_for_the_newest",
        ),
        (
            "connections_each",
            include_str!("../crates/server/src/places.rs"),
            "fn nobody_takes_all_places_with_one_token",
        ),
        (
            "stranger_time",
            include_str!("../crates/server/src/places.rs"),
            "fn who_comes_among_many_has_time_to_show_who_it_is",
        ),
        ("long_looks", turns.0, turns.1),
        ("long_looks_waiting", turns.0, turns.1),
        ("long_looks_strangers", turns.0, turns.1),
        ("unread", include_str!("hostile.rs"), "fn whoever_reads_nothing_is_sent_away"),
        ("ring", include_str!("../crates/hub/src/ring.rs"), "fn a_full_ring_takes_nothing_more"),
        (
            "records_kept",
            include_str!("../crates/hub/src/tests/ring.rs"),
            "fn nothing_confidential_is_read_unrecorded",
        ),
    ];
    for limit in printed.as_array().unwrap() {
        let name = limit["name"].as_str().unwrap();
        let set_here = own.contains(&format!("{name} = "));
        let in_unit = units.iter().any(|(of, text, test)| *of == name && text.contains(test));
        assert!(set_here || in_unit || fixed.contains(&name), "no test hits the limit `{name}`");
    }
}
