//! Somebody at the disk with the engine's own tools: records and leaves taken away, put in another
//! order, doubled, or brought from another log; checkpoints forged; the tree put back. Each is named.

use super::{city, copy_all, reading, session};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::collections::BTreeMap;
use std::path::Path;
use store::{Files, Store};
use tempfile::TempDir;

/// The engine's tables, open to be changed.
struct Tables(Database);

impl Tables {
    fn open(root: &Path) -> Tables {
        Tables(Database::builder(root.join("data/store")).open().unwrap())
    }

    fn table(&self, name: &str) -> Keyspace {
        self.0.keyspace(name, KeyspaceCreateOptions::default).unwrap()
    }

    fn take(&self, table: &str, key: &[u8]) -> Vec<u8> {
        self.table(table).get(key).unwrap().unwrap().to_vec()
    }

    fn put(&self, table: &str, key: &[u8], value: &[u8]) {
        self.table(table).insert(key, value).unwrap();
    }

    fn swap(&self, table: &str, one: &[u8], other: &[u8]) {
        let (first, second) = (self.take(table, one), self.take(table, other));
        self.put(table, one, &second);
        self.put(table, other, &first);
    }
}

fn leaf(index: u64) -> [u8; 9] {
    let mut key = [u8::MAX; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// A hub that did some work and stopped; gives its log's key, and an earlier checkpoint.
async fn worked(directory: &TempDir, readings: u32) -> (String, String) {
    let (hub, token) = city(directory).await;
    let gauge = session(&hub, &token);
    hub.write(&gauge, vec![reading("River", 0.0, 0)]).await.unwrap();
    let (size, root) = hub.store.log_root();
    let kept = hub.signing.sign(size, &root);
    for minute in 1..readings {
        let changes = vec![reading("River", f64::from(minute), minute)];
        hub.write(&gauge, changes).await.unwrap();
    }
    let (size, root) = hub.store.log_root();
    let checkpoint = Some(hub.signing.sign(size, &root));
    hub.store.commit(store::Batch { checkpoint, ..store::Batch::default() }).unwrap();
    let vkey = hub.vkey();
    hub.stop().await;
    (vkey, kept)
}

/// What verification says of a data directory.
fn findings(root: &Path, vkey: &str, kept: &str) -> Vec<String> {
    let files = Files::new(&root.join("data"), None);
    let store =
        match Store::open(files, store::Options { min_free_bytes: 0, ..store::Options::default() })
        {
            Ok(store) => store,
            Err(error) => return vec![error.to_string()],
        };
    let key = journal::VerifyingKey::parse(vkey).unwrap();
    let mut found = crate::verify(&store, &key).unwrap().findings;
    found.extend(crate::verify_since(&store, &key, kept).unwrap());
    found.into_iter().map(|finding| format!("{}: {}", finding.what, finding.why)).collect()
}

/// Stops a hub in order and finds nothing wrong; what an outsider kept of it.
async fn stopped(
    hub: std::sync::Arc<crate::Hub>,
    directory: &tempfile::TempDir,
) -> (String, String) {
    let vkey = hub.vkey();
    let (size, root) = hub.store.log_root();
    let kept = hub.signing.sign(size, &root);
    hub.stop().await;
    drop(hub);
    assert_eq!(findings(directory.path(), &vkey, &kept), Vec::<String>::new());
    (vkey, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_tampered_with_is_named() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (vkey, kept) = worked(&own, 20).await;
    let (_, kept_there) = worked(&other, 30).await;
    assert_eq!(findings(own.path(), &vkey, &kept), Vec::<String>::new());
    assert!(!findings(own.path(), &vkey, &kept_there).is_empty(), "another log's checkpoint");
    let at = |index: u64| index.to_be_bytes();
    // Another hub has the same name, and a key of its own.
    let there = Tables::open(other.path());
    let (strange_record, strange_leaf) =
        (there.take("record", &at(7)), there.take("log", &leaf(7)));
    let strange_checkpoint = there.take("meta", b"checkpoint");
    let attacks: Vec<(&str, &str, Box<dyn Fn(&Tables)>)> = vec![
        ("a record dropped", "record 7", Box::new(|t| t.table("record").remove(at(7)).unwrap())),
        ("two records swapped", "record 7", Box::new(|t| t.swap("record", &at(7), &at(9)))),
        (
            "a record doubled",
            "record 9",
            Box::new(|t| t.put("record", &at(9), &t.take("record", &at(7)))),
        ),
        (
            "another log's record",
            "record 7",
            Box::new(|t| t.put("record", &at(7), &strange_record)),
        ),
        ("a leaf dropped", "leaf", Box::new(|t| t.table("log").remove(leaf(7)).unwrap())),
        ("two leaves swapped", "record 7", Box::new(|t| t.swap("log", &leaf(7), &leaf(9)))),
        (
            "a leaf doubled",
            "record 9",
            Box::new(|t| t.put("log", &leaf(9), &t.take("log", &leaf(7)))),
        ),
        ("another log's leaf", "record 7", Box::new(|t| t.put("log", &leaf(7), &strange_leaf))),
        (
            "record and leaf swapped",
            "record 7",
            Box::new(|t| {
                t.swap("record", &at(7), &at(9));
                t.swap("log", &leaf(7), &leaf(9));
            }),
        ),
        (
            "another log's checkpoint",
            "the checkpoint",
            Box::new(|t| t.put("meta", b"checkpoint", &strange_checkpoint)),
        ),
        (
            "a checkpoint that says more",
            "the checkpoint",
            Box::new(|t| {
                let note = String::from_utf8(t.take("meta", b"checkpoint")).unwrap();
                let size = note.lines().nth(1).unwrap();
                let more = (size.parse::<u64>().unwrap() + 1).to_string();
                t.put("meta", b"checkpoint", note.replacen(size, &more, 1).as_bytes());
            }),
        ),
        (
            "no checkpoint",
            "the checkpoint",
            Box::new(|t| t.table("meta").remove("checkpoint").unwrap()),
        ),
    ];
    for (name, named, attack) in attacks {
        let copy = tempfile::tempdir().unwrap();
        copy_all(own.path(), copy.path());
        attack(&Tables::open(copy.path()));
        let found = findings(copy.path(), &vkey, &kept);
        assert!(found.iter().any(|line| line.contains(named)), "{name}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let before = tempfile::tempdir().unwrap();
    let _ = worked(&directory, 5).await;
    copy_all(directory.path(), before.path());
    let hub = super::start(&directory, 0).await;
    hub.write(&hub.own_session(), vec![reading("River", 99.0, 50)]).await.unwrap();
    let (vkey, kept) = stopped(hub, &directory).await;
    // The whole of it, keys too: it fits in itself, and not with what others kept.
    let found = findings(before.path(), &vkey, &kept);
    assert_eq!(found, ["the checkpoint that was kept: it covers more records than there are"]);
    // The data alone: the position beside the keys says how far it was.
    std::fs::remove_dir_all(directory.path().join("data")).unwrap();
    copy_all(&before.path().join("data"), &directory.path().join("data"));
    let found = findings(directory.path(), &vkey, &kept);
    assert!(found[0].contains("opens shorter than what was acknowledged"), "{found:?}");
}

impl Tables {
    fn all(&self, table: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let rows = self.table(table).iter().map(|row| row.into_inner().unwrap());
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

/// Puts the one document back that went since.
fn put_back(directory: &tempfile::TempDir, before: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let tables = Tables::open(directory.path());
    let there = tables.all("document");
    let gone: Vec<_> = before.iter().filter(|(key, _)| !there.contains_key(*key)).collect();
    assert_eq!(gone.len(), 1);
    gone.iter().for_each(|(key, value)| tables.put("document", key, value));
}

/// A river that says more than a number: its state is a document.
fn said(id: &str, text: &str) -> model::Change {
    let json = format!(
        r#"{{"id":"{id}","type":"River","level":{{"value":1}},"note":{{"value":"{text}"}}}}"#
    );
    let json = ngsild::parse_json(json.as_bytes()).unwrap();
    let core = ngsild::Context::core();
    model::Change::Upsert(ngsild::parse_entity(&json, &core, ngsild::Form::Full).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_back_taken_away_or_added_alone() {
    let (directory, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![said("urn:x:1", "dry"), said("urn:x:2", "dry")]).await.unwrap();
    hub.stop().await;
    drop(hub);
    copy_all(directory.path(), before.path());
    let hub = super::start(&directory, 0).await;
    let own = hub.own_session();
    hub.write(&own, vec![said("urn:x:1", "flooded"), said("urn:x:3", "dry")]).await.unwrap();
    let body = serde_json::json!({"login": "gauge"});
    let act = crate::Act {
        name: "principal.revoke".into(),
        body: ngsild::parse_json(body.to_string().as_bytes()).unwrap(),
    };
    hub.act(&own, act).await.unwrap();
    let (vkey, kept) = stopped(hub, &directory).await;

    let old = Tables::open(before.path());
    let (entities, documents) = (old.all("entity"), old.all("document"));
    let states: Vec<_> =
        old.all("meta").into_iter().filter(|(k, _)| k.starts_with(b"states/")).collect();
    assert_eq!((entities.len(), states.len()), (2, 2), "rivers, and what governs");
    drop(old);
    let first =
        entities.first_key_value().map(|(key, value)| (key.clone(), value.clone())).unwrap();
    type Attack = Box<dyn Fn(&Tables)>;
    let (of_rivers, governs) = ("the entities of dataset `rivers`", "principals, credentials");
    let attacks: Vec<(&str, &str, Attack)> = vec![
        ("a state put back", of_rivers, {
            let (key, value) = first.clone();
            Box::new(move |t| t.put("entity", &key, &value))
        }),
        ("an entity taken away", of_rivers, {
            let key = first.0.clone();
            Box::new(move |t| t.table("entity").remove(key.clone()).unwrap())
        }),
        ("entities and their digest put back", of_rivers, {
            let (entities, states) = (entities.clone(), states.clone());
            Box::new(move |t| {
                t.all("entity")
                    .keys()
                    .for_each(|key| t.table("entity").remove(key.clone()).unwrap());
                entities.iter().for_each(|(key, value)| t.put("entity", key, value));
                states.iter().for_each(|(key, value)| t.put("meta", key, value));
            })
        }),
        ("who was revoked put back", governs, {
            let documents = documents.clone();
            Box::new(move |t| {
                let there = t.all("document");
                let gone = documents.iter().filter(|(key, _)| !there.contains_key(*key));
                let gone: Vec<_> = gone.collect();
                assert!(!gone.is_empty(), "a credential was deleted");
                gone.iter().for_each(|(key, value)| t.put("document", key, value));
            })
        }),
        ("the digest taken away", of_rivers, {
            let key = states.iter().map(|(key, _)| key.clone()).max().unwrap();
            Box::new(move |t| t.table("meta").remove(key.clone()).unwrap())
        }),
    ];
    for (name, named, attack) in attacks {
        let copy = tempfile::tempdir().unwrap();
        copy_all(directory.path(), copy.path());
        attack(&Tables::open(copy.path()));
        let found = findings(copy.path(), &vkey, &kept);
        assert!(found.iter().any(|line| line.starts_with(named)), "{name}: {found:?}");
        // A hub that goes on does not make it good, whatever is written next.
        let hub = super::start(&copy, 0).await;
        hub.write(&hub.own_session(), vec![said("urn:x:4", "dry")]).await.unwrap();
        hub.renew_tokens(vec!["gauge".into()], model::Time::MAX).await.ok();
        hub.stop().await;
        drop(hub);
        let found = findings(copy.path(), &vkey, &kept);
        assert!(found.iter().any(|line| line.starts_with(named)), "{name}, later: {found:?}");
    }
}

/// What was ended and is put back would send to whom it may not, or read names as they were.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_ended_is_put_back() {
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    for of_subscription in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let (hub, _) = city(&directory).await;
        let own = hub.own_session();
        let id = if of_subscription {
            let body = serde_json::json!({"type": "Subscription", "entities": [{"type": "River"}],
                "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
            let body = ngsild::parse_json(body.to_string().as_bytes()).unwrap();
            hub.subscribe(&own, body, model::Value::Null, &courier).await.unwrap()
        } else {
            let body = br#"{"@context": {"River": "urn:x:River"}}"#;
            hub.host_context(&own, ngsild::parse_json(body).unwrap()).await.unwrap()
        };
        hub.stop().await;
        drop(hub);
        let before = Tables::open(directory.path()).all("document");
        let hub = super::start(&directory, 0).await;
        if of_subscription {
            hub.unsubscribe(&own, &id).await.unwrap();
        } else {
            hub.drop_context(&own, &id).await.unwrap();
        }
        let (vkey, kept) = stopped(hub, &directory).await;
        put_back(&directory, &before);
        let found = findings(directory.path(), &vkey, &kept);
        assert!(found.iter().any(|line| line.contains("subscriptions and contexts")), "{found:?}");
    }
}

async fn with_people(directory: &tempfile::TempDir) -> std::sync::Arc<crate::Hub> {
    let hub = super::start(directory, 0).await;
    let mut people = super::dataset("people", "Person", false);
    people.about_people = true;
    hub.bootstrap_datasets(vec![people]).await.unwrap();
    hub
}

fn person(id: &str, text: &str) -> model::Change {
    let json = format!(r#"{{"id":"{id}","type":"Person","note":{{"value":"{text}"}}}}"#);
    let json = ngsild::parse_json(json.as_bytes()).unwrap();
    let core = ngsild::Context::core();
    model::Change::Upsert(ngsild::parse_entity(&json, &core, ngsild::Form::Full).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_could_not_be_deleted_at_once_leave_nothing_that_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let hub = with_people(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![person("urn:x:1", "a"), person("urn:x:2", "a")]).await.unwrap();
    let body = serde_json::json!({"dataset": "people", "entity": "urn:x:1"});
    let act = crate::Act {
        name: "subject.erase".into(),
        body: ngsild::parse_json(body.to_string().as_bytes()).unwrap(),
    };
    // The keyring cannot be replaced: the act is recorded, and the key is still there.
    let (keys, away) = (directory.path().join("data.keys"), directory.path().join("away"));
    std::fs::rename(&keys, &away).unwrap();
    assert!(hub.act(&own, act).await.is_err());
    std::fs::rename(&away, &keys).unwrap();
    // Nothing comes under a key that is to go; somebody else is written to.
    let written =
        hub.write(&own, vec![person("urn:x:1", "b"), person("urn:x:2", "b")]).await.unwrap();
    assert!(
        matches!(
            written.results.as_slice(),
            [
                crate::ItemResult::Refused(crate::HubError::Refusal(model::Refusal::Leaving(_))),
                crate::ItemResult::Done(_)
            ]
        ),
        "{written:?}"
    );
    let (vkey, kept) = stopped(hub, &directory).await;
    let hub = super::start(&directory, 0).await;
    hub.write(&hub.own_session(), vec![person("urn:x:2", "c")]).await.unwrap();
    assert!(hub.store.entity("urn:x:1").is_none(), "done at the start");
    hub.write(&hub.own_session(), vec![person("urn:x:1", "known again")]).await.unwrap();
    hub.stop().await;
    drop(hub);
    assert_eq!(findings(directory.path(), &vkey, &kept), Vec::<String>::new());
}

/// A note that was left behind, or put back, deletes nothing that came after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_deleted_keys_deletes_no_later_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![said("urn:x:1", "dry")]).await.unwrap();
    let number = hub.state.snapshot().dataset("rivers").unwrap().0;
    let mut shred = crate::job::Shred::of(store::Under::Dataset(number), "rivers");
    let note = shred.note(&hub.store, hub.now());
    let body = serde_json::json!({"dataset": "rivers"});
    let act = crate::Act {
        name: "dataset.shred".into(),
        body: ngsild::parse_json(body.to_string().as_bytes()).unwrap(),
    };
    hub.act(&own, act).await.unwrap();
    assert!(hub.store.entity("urn:x:1").is_none());
    hub.write(&own, vec![said("urn:x:2", "flooded")]).await.unwrap();
    hub.store
        .commit(store::Batch { documents: vec![note], time: hub.now(), ..store::Batch::default() })
        .unwrap();
    let (vkey, kept) = stopped(hub, &directory).await;
    let hub = super::start(&directory, 0).await;
    hub.write(&hub.own_session(), vec![said("urn:x:3", "flooded")]).await.unwrap();
    assert!(hub.store.entity("urn:x:2").is_some(), "it came after what was deleted");
    hub.stop().await;
    drop(hub);
    assert_eq!(findings(directory.path(), &vkey, &kept), Vec::<String>::new());
}

/// A key that could not be made durable is not used: what lay under it would open nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_not_be_written_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let hub = with_people(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![person("urn:x:3", "a")]).await.unwrap();
    let (keys, away) = (directory.path().join("data.keys"), directory.path().join("away"));
    std::fs::rename(&keys, &away).unwrap();
    let refused = hub.write(&own, vec![person("urn:x:1", "a")]).await;
    assert!(refused.is_err(), "a person has a key of his own: {refused:?}");
    // As an append leaves it that broke off.
    let keyring = away.join("keyring");
    let torn = [std::fs::read(&keyring).unwrap(), vec![0, 0, 0, 60, 1, 2, 3]].concat();
    std::fs::write(&keyring, torn).unwrap();
    std::fs::rename(&away, &keys).unwrap();
    hub.write(&own, vec![person("urn:x:1", "b"), person("urn:x:2", "b")]).await.unwrap();
    stopped(hub, &directory).await;
    let hub = super::start(&directory, 0).await;
    assert!(hub.store.entity("urn:x:1").is_some());
    hub.stop().await;
}

/// A change that waited and was done would be done again.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_that_was_done_waits_again() {
    let directory = tempfile::tempdir().unwrap();
    let hub = with_people(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![person("urn:x:1", "a")]).await.unwrap();
    hub.stop().await;
    drop(hub);
    let (key, away) =
        (directory.path().join("data.keys/sensitive.key"), directory.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let hub = super::start(&directory, 0).await;
    let waits = hub.write(&hub.own_session(), vec![person("urn:x:1", "b")]).await.unwrap();
    assert!(matches!(waits.results[0], crate::ItemResult::Sealed), "{waits:?}");
    hub.stop().await;
    drop(hub);
    let waiting = Tables::open(directory.path()).all("document");
    std::fs::rename(&away, &key).unwrap();
    let hub = super::start(&directory, 0).await;
    hub.write(&hub.own_session(), vec![person("urn:x:1", "c")]).await.unwrap();
    let (vkey, kept) = stopped(hub, &directory).await;
    put_back(&directory, &waiting);
    for closed in [false, true] {
        if closed {
            std::fs::rename(&key, &away).unwrap();
        }
        let found = findings(directory.path(), &vkey, &kept);
        assert!(found.iter().any(|line| line.starts_with("changes that wait")), "{found:?}");
    }
}
