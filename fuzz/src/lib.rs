//! What reads bytes that anybody may send, each as one function that must hold for all of them.
//! `cargo fuzz` drives them for long (`cargo xtask release-check`), the tests for a moment.

#[path = "../../crates/tanggul/src/import/reading.rs"]
#[expect(dead_code, reason = "sending is not read here")]
mod reading;

use journal::{Receipt, SigningKey, TilePath, VerifyingKey};
use model::{Entity, Name, Value};
use ngsild::{Aggregation, Context, Filter, Form, GeoQuery, Members, Options, OrderKey};
use std::sync::{Arc, LazyLock};

/// A function, its name, and what to begin from.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

/// All of them.
pub const TARGETS: [Target; 8] = [
    (
        "entity",
        entity,
        &[
            ENTITY,
            r#"[{"id":"urn:x:1","type":"T","n":{"value":1.5,"unitCode":"CMT","observedAt":"2026-01-01T00:00:00Z"}}]"#,
            r#"{"id":"urn:x:2","type":["A","B"],"scope":["/a/b"],"l":{"languageMap":{"id":"air"}},"v":{"vocab":"x"},"j":{"json":{"a":[null,1e9]}}}"#,
            r#"{"id":"urn:x:4","type":"T","https://uri.etsi.org/ngsi-ld/default-context/id":1,"l":{"value":2,"https://uri.etsi.org/ngsi-ld/default-context/observedAt":"x"}}"#,
            r#"{"id":"urn:x:3","type":"T","a":[{"value":1},{"value":2,"datasetId":"urn:d:1"}],"list":{"valueList":[1,"b"]}}"#,
        ],
    ),
    (
        "context",
        context,
        &[
            r#"{"@context":[{"@vocab":"urn:v:","a":"urn:a","b":{"@id":"a:b","@type":"@id"},"c":"b:c"},"urn:known"]}"#,
            r#"["https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld",{"x":"@type"}]"#,
            r#"{"@context":[{":a":":8","urn":":"}]}"#,
            r#"{"@context":[{"/a":":8","urn":"/"}]}"#,
        ],
    ),
    (
        "query",
        query,
        &[
            r#"(a==1|b!="x");c>2.5;d~="^l.*";e.f[g.h]==1..9,"z";!i"#,
            r#"observedAt>2026-01-01T00:00:00Z;a[b]!~="(x|y)+""#,
            "/a/+/c,(/x;/y/#)\nA,(B;C)\na.b{c,d{e}};desc\nP1DT2H\nP800\u{42a}el\nmin,avg,stddev",
        ],
    ),
    (
        "geo",
        geo,
        &[
            "near;maxDistance==2000\nPoint\n[107.6,-6.9]",
            "within\nPolygon\n[[[0,0],[1,0],[1,1],[0,1],[0,0]]]",
            "intersects\nMultiPolygon\n[[[[0,0],[1e9,0],[1,-91],[0,0]]]]",
            "equals\nLineString\n[[0,0],[1,1]]",
        ],
    ),
    (
        "mqtt",
        mqtt,
        &[
            "\x10\x1c\0\x04MQTT\x05\u{2}\0\x3c\0\0\x04test\0\x04user\0\x02pw",
            "\x32\x12\0\x09in/rivers\0\x01\0{\"a\":1}",
            "\u{40}\u{2}\0\x01\u{30}\u{5}\0\x01a{}",
        ],
    ),
    (
        "map",
        map,
        &[
            "time = { columns = [\"t\"], format = \"DD-MM-YYYY hh:mm\", offset = \"+07:00\" }\nentity = { type = \"T\", id = \"urn:x:{suffix}:{u}\" }\ncolumn = [{ name = \"v\", attribute = \"v\", decimal_comma = true, missing = [\"8888\"], minimum = 0, max_step = 3, scale = 0.1 }]\n\0t,u,v\n01-01-2026 00:00,a,\"1,5\"\n",
            "format = \"jsonl\"\n\0{\"id\":\"urn:x:1\",\"type\":\"T\"}\n[]\n",
        ],
    ),
    (
        "checkpoint",
        checkpoint,
        &[
            "tile/0/x001/234.p/17\ntest/log\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u{2014} test/log AAAAAAAA\n",
            "c2sp.org/tlog-proof@v1\nindex 3\nAAAA\n\ntest/log\n3\nAAAA\n",
        ],
    ),
    (
        "token",
        token,
        &[
            "tga_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "2222-2222-2222-2222-2222",
            "siti\nkuda meja",
            "\0\0\0\0\u{1}",
            "",
        ],
    ),
];

const ENTITY: &str = r#"{"id":"urn:ngsi-ld:T:1","type":"T","level":{"type":"Property","value":2.5,"unitCode":"MTR",
    "observedAt":"2026-01-01T10:00:00Z","accuracy":{"type":"Property","value":0.1}},"name":{"value":"Siti \u00e9"},
    "location":{"type":"GeoProperty","value":{"type":"Point","coordinates":[107.6,-6.9]}},
    "owner":{"type":"Relationship","object":"urn:x:9"}}"#;

static SAMPLE: LazyLock<Entity> = LazyLock::new(|| {
    ngsild::parse_json(ENTITY.as_bytes())
        .and_then(|value| ngsild::parse_entity(&value, &Context::core(), Form::Full))
        .unwrap_or_else(|error| panic!("{error}"))
});

/// What is read as an entity and written again is read as the same; readings by the short way name
/// what the long way does.
pub fn entity(data: &[u8]) {
    let Ok(value) = ngsild::parse_json(data) else { return };
    let items = if value.items().is_empty() { std::slice::from_ref(&value) } else { value.items() };
    for form in [Form::Full, Form::Simplified, Form::Any] {
        for item in items {
            let Ok(entity) = ngsild::parse_entity(item, &Context::core(), form) else { continue };
            let mut written = Vec::new();
            ngsild::render_entity(&mut written, &entity, &Context::core(), &Options::default());
            let again = ngsild::parse_json(&written)
                .and_then(|value| ngsild::parse_entity(&value, &Context::core(), Form::Full));
            let again = again
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
            assert_eq!((&again.id, &again.types), (&entity.id, &entity.types));
            let names = |entity: &Entity| {
                let mut names: Vec<_> =
                    entity.attributes.iter().map(|a| (a.name.clone(), a.instances.len())).collect();
                names.sort();
                names
            };
            assert_eq!(names(&again), names(&entity), "{}", String::from_utf8_lossy(&written));
        }
    }
    if let Some(readings) = ngsild::parse_readings(data) {
        assert_eq!(readings.len(), items.len());
        for (reading, item) in readings.iter().zip(items) {
            assert_eq!(item.get("id").and_then(Value::as_text), Some(reading.id));
        }
    }
}

/// A name that is made short under a context means the same when it is read under it.
pub fn context(data: &[u8]) {
    let Ok(value) = ngsild::parse_json(data) else { return };
    let source = value.get("@context").unwrap_or(&value);
    let known = |url: &str| {
        let terms = vec![("k".to_owned(), Value::from("urn:known:k"))];
        (url == "urn:known").then(|| Value::Map(vec![("@context".into(), Value::Map(terms))]))
    };
    let Ok(context) = Context::parse(source, &known) else { return };
    for term in ["a", "b", "c", "k", "x", "level", "urn:a", "a:b"] {
        let name = context.expand(term);
        let short = context.compact(&name).into_owned();
        // An IRI whose scheme the context gives a meaning cannot be written under it at all.
        let scheme = short.split_once(':').map_or("", |(scheme, _)| scheme);
        if context.expand(scheme) != Name::new(scheme) {
            continue;
        }
        assert_eq!(context.expand(&short), name, "{term} by way of {short}");
    }
}

/// Whatever is asked for is refused or answered.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let context = Context::core();
    if let Ok(q) = ngsild::parse_q(text, &context) {
        q.matches(&SAMPLE);
        let filter = Filter { q: Some(q), ..Filter::default() };
        filter.matches(&SAMPLE);
    }
    for line in text.lines() {
        if let Ok(types) = ngsild::TypeSelection::parse(line, &context) {
            types.matches(&SAMPLE.types);
        }
        if let Ok(scopes) = ngsild::ScopeSelection::parse(line) {
            scopes.matches(&["/a/b/c".to_owned()]);
        }
        if let Ok(key) = OrderKey::parse(line, &context) {
            key.value(&SAMPLE);
        }
        for given in [(Some(line), None, None), (None, Some(line), None), (None, None, Some(line))]
        {
            if let Ok(members) = Members::parse(given, &[], &context) {
                members.leaves(&SAMPLE);
            }
        }
        if let Ok(pattern) = Filter::parse_id_pattern(line) {
            pattern.is_match(&SAMPLE.id);
        }
        drop(Aggregation::parse(line, Some(line)));
        if let Some(period) = ngsild::parse_duration(line) {
            let start = model::Time::from_seconds(0);
            let time = model::Time::from_seconds(1_700_000_000);
            let (from, until) = period.holding(start, 0, time);
            assert!(from <= until, "{from} {until}");
        }
        drop(ngsild::TemporalQuery::parse(Some("after"), Some(line), None, Some(line)));
    }
}

/// Whatever place is asked for is refused or answered.
pub fn geo(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(georel), Some(shape), Some(coordinates)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    if let Ok(query) = GeoQuery::parse(georel, shape, coordinates, Name::new("location")) {
        query.matches(&SAMPLE);
        query.takes_point(107.6, -6.9);
        query.bounds();
    }
}

/// Packets are taken, waited for or refused, and the buffer only gets shorter.
pub fn mqtt(data: &[u8]) {
    use server::mqtt_codec::{Version, take};
    for version in [Version::V311, Version::V5] {
        let mut buffer = data.into();
        let mut left = data.len() + 1;
        while let Ok(Some(_)) = take(&mut buffer, version, 1 << 16) {
            assert!(buffer.len() < left);
            left = buffer.len();
        }
    }
}

/// A map and a file, parted by a zero.
pub fn map(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == 0) else { return };
    let Ok(text) = std::str::from_utf8(&data[..at]) else { return };
    let Ok(map) = reading::Map::parse(text) else { return };
    let mut report = reading::Report::default();
    if let Ok(entities) = map.read(&data[at + 1..], &mut report) {
        for entity in entities {
            assert!(entity.is_object());
        }
    }
}

/// Nothing opens that the key did not sign.
pub fn checkpoint(data: &[u8]) {
    static KEY: LazyLock<(VerifyingKey, String)> = LazyLock::new(|| {
        let key = SigningKey::from_seed("test/log", &[7; 32]).unwrap_or_else(|e| panic!("{e}"));
        (key.verifying_key(), key.sign(3, &[1; 32]))
    });
    let (key, signed) = &*KEY;
    journal::read_entries_bundle(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text != signed {
        assert!(journal::open_checkpoint(text, key).is_err(), "{text}");
    }
    if let Ok(receipt) = Receipt::parse(text) {
        assert!(receipt.verify(key).is_err(), "{text}");
    }
    if let Ok(key) = VerifyingKey::parse(text) {
        drop(VerifyingKey::parse(&key.to_string()).unwrap_or_else(|error| panic!("{error}")));
    }
    for line in text.lines() {
        if let Some(path) = TilePath::parse(line) {
            assert_eq!(TilePath::parse(&path.to_string()), Some(path), "{line}");
        }
    }
}

/// A hub that knows one app, its token, and what it stands on.
struct Opened {
    hub: Arc<hub::Hub>,
    token: String,
    _directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn opened() -> anyhow::Result<Opened> {
    let directory = tempfile::tempdir()?;
    let files = hub::store::Files::new(&directory.path().join("data"), None);
    files.create()?;
    let options = hub::HubOptions {
        origin: "test.example/log".into(),
        now: || model::Time::from_seconds(1_700_000_000),
        contexts: std::collections::HashMap::new(),
        store: hub::store::Options { min_free_bytes: 0, ..Default::default() },
        seal: hub::store::SealPlan::default(),
        tidying: hub::Tidying::default(),
        patience: std::time::Duration::ZERO,
        limits: hub::Limits::default(),
        notice: None,
    };
    let hub = hub::Hub::start(files, options)?;
    let app = model::Principal {
        kind: model::Kind::App,
        login: "app".into(),
        department: "apps".into(),
        roles: vec![model::Role::App],
        ..model::Principal::public()
    };
    let newcomer = hub::NewPrincipal { principal: app, purpose: None, expires: model::Time::MAX };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let token = runtime.block_on(hub.bootstrap_principals(vec![newcomer]))?.remove(0);
    Ok(Opened { hub, token, _directory: directory, _runtime: runtime })
}

/// Nothing opens the hub but the token that was given out: not what is sent, and not that token with
/// what is sent laid over it.
pub fn token(data: &[u8]) {
    static OPENED: LazyLock<Opened> =
        LazyLock::new(|| opened().unwrap_or_else(|error| panic!("{error}")));
    let text = String::from_utf8_lossy(data).into_owned();
    let (purpose, sent) = text.split_once('\n').unwrap_or(("", &text));
    let mut near = OPENED.token.clone().into_bytes();
    near.iter_mut().zip(data).for_each(|(own, over)| *own ^= over);
    near.extend(data.get(near.len()..).unwrap_or_default());
    let source = hub::Source { zone: model::Zone::City, block: hub::Block::Own, browser: None };
    let purpose = (!purpose.is_empty()).then_some(purpose);
    for tried in [sent.to_owned(), String::from_utf8_lossy(&near).into_owned()] {
        let is_it = tried == OPENED.token;
        let opened = OPENED.hub.open(&model::Credential::Bearer(tried), &source, purpose);
        assert_eq!(opened.is_ok(), is_it, "{text:?}");
    }
}
