//! Who looks at many lets others come between, and answers by what is true and open at the end.

use super::hostile::assembled;
use super::{dataset, session, start};
use crate::committer;
use crate::history::HistoryQuery;
use crate::job::Job;
use crate::processors::LongLook;
use crate::{Act, Hub, HubError, NewPrincipal, Query};
use model::{Change, Kind, Principal, Sensitivity, Session, Time, Value};
use ngsild::{Context, Filter, Form, parse_entity, parse_json};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

fn rivers(name: Sensitivity) -> model::Dataset {
    let mut rivers = dataset("rivers", "River", false);
    rivers.attributes.push(rivers.attributes[0].clone());
    rivers.attributes[1].name = model::Name::new("name");
    rivers.attributes[1].sensitivity = name;
    rivers.attributes.iter_mut().for_each(|one| one.kind = model::ValueKind::Any);
    rivers
}

fn river(number: u32, level: u32, name: &str) -> Change {
    let json = format!(
        r#"{{"id":"urn:x:{number}","type":"River","name":{{"value":"{name}"}},
        "level":{{"value":{level},"observedAt":"2026-01-01T10:00:00Z"}}}}"#
    );
    let value = parse_json(json.as_bytes()).unwrap();
    Change::Upsert(parse_entity(&value, &Context::core(), Form::Full).unwrap())
}

/// Of rivers 0 to 19, each as high as its number, the odd ones have the name.
async fn twenty(directory: &tempfile::TempDir) -> Arc<Hub> {
    let hub = start(directory, 0).await;
    hub.bootstrap_datasets(vec![rivers(Sensitivity::Open)]).await.unwrap();
    let name = |number| if number % 2 == 1 { "wanted" } else { "other" };
    let all = (0..20).map(|number| river(number, number, name(number)));
    hub.write(&hub.own_session(), all.collect()).await.unwrap();
    hub
}

/// All the long looks that there may be at once, of others: who comes after waits.
async fn all_places(hub: &Hub) -> Vec<LongLook<'_>> {
    let mut all = Vec::new();
    let stranger = Principal::public();
    let known = |number| Principal { kind: Kind::Official, number, ..Principal::public() };
    for number in 0..hub.options.limits.long_looks as u64 {
        all.push(hub.long_looks.begin(&known(1_000 + number)).await.unwrap());
    }
    all.push(hub.long_looks.begin(&stranger).await.unwrap());
    all
}

/// Those above 14, which columns tell, and those of the name, which they do not.
fn filter() -> Filter {
    let q = ngsild::parse_q(r#"level>14|name~="wanted""#, &Context::core()).unwrap();
    Filter { q: Some(q), ..Filter::default() }
}

fn question(order: &str) -> Query {
    let order = std::iter::once(order).filter(|key| !key.is_empty());
    let order = order.map(|key| ngsild::OrderKey::parse(key, &Context::core()).unwrap()).collect();
    Query { filter: filter(), order, count: true, ..Query::default() }
}

async fn ask(hub: &Hub, session: &Session, order: &str) -> Result<Vec<String>, HubError> {
    let answer = hub.read(session, &question(order)).await?;
    let number = |id: &str| id.trim_start_matches("urn:x:").to_owned();
    Ok(answer.entities.iter().map(|seen| number(&seen.id)).collect())
}

async fn asked(hub: Arc<Hub>, order: &'static str) -> Vec<String> {
    ask(&hub, &session(&hub, ""), order).await.unwrap()
}

/// Lets a look go on for so many turns, after each of which others come.
async fn for_turns(turns: usize, mut look: Pin<&mut impl Future>) {
    for _ in 0..turns {
        std::future::poll_fn(|context| {
            assert!(look.as_mut().poll(context).is_pending(), "it lets nobody come");
            Poll::Ready(())
        })
        .await;
    }
}

async fn done(hub: &Hub, name: &str, body: serde_json::Value) {
    let body = parse_json(body.to_string().as_bytes()).unwrap();
    hub.act(&hub.own_session(), Act { name: name.into(), body }).await.unwrap();
}

async fn close_the_name(hub: &Hub) {
    done(hub, "dataset.put", serde_json::json!({"dataset": rivers(Sensitivity::Confidential)}))
        .await;
}

#[tokio::test]
async fn a_long_look_answers_by_what_is_true_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let hub = twenty(&directory).await;
    let before = ["1", "3", "5", "7", "9", "11", "13", "15", "16", "17", "18", "19"];
    let mut found = asked(hub.clone(), "").await;
    found.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert_eq!(found, before);
    for order in ["", "!level", "name"] {
        let places = all_places(&hub).await;
        let looking = tokio::spawn(asked(hub.clone(), order));
        // It has asked the columns, and waits.
        tokio::task::yield_now().await;
        let own = hub.own_session();
        let changed = vec![river(2, 2, "wanted"), river(16, 3, "other")];
        hub.write(&own, changed).await.unwrap();
        hub.write(&own, vec![Change::Delete { id: "urn:x:18".into() }]).await.unwrap();
        assert!(!looking.is_finished());
        drop(places);
        let mut found = looking.await.unwrap();
        found.sort_by_key(|id| id.parse::<u32>().unwrap());
        let now = ["1", "2", "3", "5", "7", "9", "11", "13", "15", "17", "19"];
        assert_eq!(found, now, "ordered by `{order}`");
        let again = vec![river(2, 2, "other"), river(16, 16, "other")];
        hub.write(&own, again).await.unwrap();
        hub.write(&own, vec![river(18, 18, "other")]).await.unwrap();
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_long_look_tells_nothing_of_what_was_closed_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let hub = twenty(&directory).await;
    let places = all_places(&hub).await;
    let looking = tokio::spawn(asked(hub.clone(), ""));
    let history = tokio::spawn({
        let hub = hub.clone();
        async move {
            let query = HistoryQuery { filter: filter(), ..HistoryQuery::default() };
            hub.read_history(&session(&hub, ""), &query, false).await.unwrap()
        }
    });
    tokio::task::yield_now().await;
    close_the_name(&hub).await;
    hub.write(&hub.own_session(), vec![river(4, 4, "wanted")]).await.unwrap();
    assert!(!looking.is_finished() && !history.is_finished());
    drop(places);
    assert_eq!(looking.await.unwrap(), ["15", "16", "17", "18", "19"]);
    let history = history.await.unwrap();
    let ids: Vec<_> = history.entities.iter().map(|(frame, _)| frame.id.as_str()).collect();
    assert_eq!(ids, ["urn:x:15", "urn:x:16", "urn:x:17", "urn:x:18", "urn:x:19"]);
    let names = history.entities.iter().flat_map(|(_, histories)| histories);
    assert!(names.map(|(name, _)| name.as_str()).all(|name| name == "level"));
    hub.stop().await;
}

#[tokio::test]
async fn what_became_personal_while_it_was_looked_for_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    hub.bootstrap_datasets(vec![rivers(Sensitivity::Personal)]).await.unwrap();
    let own = hub.own_session();
    // Of those with a name, which only they themselves tell, none matches. They take three turns.
    let unnamed = |number: u32| {
        let Change::Upsert(mut entity) = river(number, number, "") else { unreachable!() };
        entity.attributes.retain(|attribute| attribute.name.as_str() == "level");
        Change::Upsert(entity)
    };
    let of = |number| if number < 9 { river(number, number, "other") } else { unnamed(number) };
    hub.write(&own, (0..20).map(of).collect()).await.unwrap();
    let open = hub.read(&own, &question("")).await.unwrap();
    assert_eq!((open.entities.len(), open.record), (5, None), "nothing personal is there yet");
    let question = question("");
    let mut looking = std::pin::pin!(hub.read(&own, &question));
    for_turns(1, looking.as_mut()).await;
    hub.write(&own, vec![river(16, 16, "kept to few")]).await.unwrap();
    let answer = looking.await.unwrap();
    assert!(answer.entities.iter().any(|seen| seen.attribute("name").is_some()));
    assert!(answer.record.is_some(), "it was seen, and no record says so");
    hub.stop().await;
}

#[tokio::test]
async fn a_history_that_was_erased_while_others_were_looked_for_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let mut people = rivers(Sensitivity::Open);
    people.about_people = true;
    people.publication = model::Publication::Withheld;
    hub.bootstrap_datasets(vec![people]).await.unwrap();
    let own = hub.own_session();
    let all = (0..20).map(|number| river(number, number, "wanted"));
    hub.write(&own, all.collect()).await.unwrap();
    let places = all_places(&hub).await;
    let looking = tokio::spawn({
        let hub = hub.clone();
        async move {
            let methods = vec![ngsild::Aggregate::Average];
            let aggregation = Some(ngsild::Aggregation { methods, period: None });
            let query = HistoryQuery { filter: filter(), aggregation, ..HistoryQuery::default() };
            hub.read_history(&hub.own_session(), &query, false).await.unwrap()
        }
    });
    tokio::task::yield_now().await;
    assert!(!looking.is_finished(), "the first are found, and it waits");
    let erased = serde_json::json!({"dataset": "rivers", "entity": "urn:x:1"});
    done(&hub, "subject.erase", erased).await;
    drop(places);
    let history = looking.await.unwrap();
    let ids: Vec<_> = history.entities.iter().map(|(frame, _)| frame.id.as_str()).collect();
    assert!(ids.contains(&"urn:x:0") && !ids.contains(&"urn:x:1"), "{ids:?}");
    hub.stop().await;
}

/// `long_looks`, `long_looks_waiting` and `long_looks_strangers`.
#[tokio::test]
async fn few_long_looks_go_on_at_once_and_few_of_one_principal_wait() {
    let directory = tempfile::tempdir().unwrap();
    let hub = twenty(&directory).await;
    let limits = hub.options.limits.clone();
    let everybody = [
        (hub.own_session(), "long_looks_waiting", limits.long_looks_waiting),
        // One of them has the place that strangers have.
        (session(&hub, ""), "long_looks_strangers", limits.long_looks_strangers - 1),
    ];
    for (session, limit, most) in everybody {
        let places = all_places(&hub).await;
        let look = || {
            let (hub, session) = (hub.clone(), session.clone());
            tokio::spawn(async move { ask(&hub, &session, "").await })
        };
        let mut waiting: Vec<_> = (0..most).map(|_| look()).collect();
        tokio::task::yield_now().await;
        let refused = look().await.unwrap();
        assert!(
            matches!(&refused, Err(HubError::Limit { name, .. }) if *name == limit),
            "{refused:?}"
        );
        // What is short waits for nobody; and who goes away leaves his place.
        let types = ngsild::TypeSelection(vec![vec![model::Name::new("Lake")]]);
        let short = Query { filter: Filter { types: Some(types), ..filter() }, ..Query::default() };
        assert!(hub.read(&session, &short).await.unwrap().entities.is_empty());
        waiting.remove(0).abort();
        tokio::task::yield_now().await;
        waiting.push(look());
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|looking| !looking.is_finished()));
        drop(places);
        for looking in waiting {
            assert_eq!(looking.await.unwrap().unwrap().len(), 12);
        }
        assert_eq!(ask(&hub, &session, "").await.unwrap().len(), 12);
    }
    hub.stop().await;
}

/// Before a seal every state that moved is written: some at a time, and no more before those are there,
/// so that nobody who writes meanwhile waits for all of them.
#[tokio::test]
async fn a_seal_lets_others_come_between_its_documents() {
    const RIVERS: u32 = 600;
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    hub.bootstrap_datasets(vec![rivers(Sensitivity::Open)]).await.unwrap();
    let own = hub.own_session();
    let all = (0..RIVERS).map(|number| river(number, 1, "some"));
    hub.write(&own, all.collect()).await.unwrap();
    for minute in 1..5 {
        let moved = |number| {
            let json = format!(
                r#"{{"id":"urn:x:{number}","type":"River",
                "level":{{"value":{minute},"observedAt":"2026-01-01T10:{minute:02}:00Z"}}}}"#
            );
            let value = parse_json(json.as_bytes()).unwrap();
            Change::Upsert(parse_entity(&value, &Context::core(), Form::Full).unwrap())
        };
        hub.write(&own, (0..RIVERS).map(moved).collect()).await.unwrap();
    }
    hub.stop().await;
    drop(hub);
    let (hub, mut queue) = assembled(&directory);
    let upkeep = hub.clone();
    let upkeep = std::thread::spawn(move || crate::upkeep::seal_all(&upkeep));
    let mut written = Vec::new();
    loop {
        let job = queue.recv().await.unwrap();
        let sealed = matches!(&job, Job::Seal(..));
        if let Job::Documents { numbers, .. } = &job {
            written.push(numbers.len());
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(queue.is_empty(), "more come before these are there");
        }
        assert!(committer::step(&hub, job, &mut queue));
        if sealed {
            break;
        }
    }
    upkeep.join().unwrap();
    assert_eq!(written, [250, 250, 100]);
    assert_eq!(hub.store.usage().open_points, 0);
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

#[tokio::test]
async fn an_interval_tells_nothing_that_is_true_no_more() {
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    // In the first of its two searches, and in the second.
    for turns in [10, 400] {
        for meanwhile in ["nothing", "changed", "closed", "ended"] {
            let directory = tempfile::tempdir().unwrap();
            let hub = start(&directory, 0).await;
            hub.bootstrap_datasets(vec![rivers(Sensitivity::Open)]).await.unwrap();
            let own = hub.own_session();
            // More than are walked through for a page.
            let all =
                (0..1_100).map(|number| river(number, u32::from(number >= 1_096) * 20, "other"));
            hub.write(&own, all.collect()).await.unwrap();
            let owner =
                Principal { kind: Kind::Official, login: "crisis".into(), ..Principal::public() };
            let owner = NewPrincipal { principal: owner, purpose: None, expires: Time::MAX };
            let token = hub.bootstrap_principals(vec![owner]).await.unwrap().remove(0);
            let owner = session(&hub, &token);
            let river_type = serde_json::json!({"type": "River"});
            let body = serde_json::json!({"type": "Subscription", "timeInterval": 10,
                "entities": [river_type, river_type], "q": "level>14|name~=\"wanted\"",
                "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
            let body = parse_json(body.to_string().as_bytes()).unwrap();
            let id = hub.subscribe(&owner, body, Value::Null, &courier).await.unwrap();
            let mut telling = std::pin::pin!(hub.told_at_interval(&id));
            for_turns(turns, telling.as_mut()).await;
            match meanwhile {
                "changed" => {
                    hub.write(&own, vec![river(1_097, 3, "other")]).await.unwrap();
                    hub.write(&own, vec![Change::Delete { id: "urn:x:1098".into() }])
                        .await
                        .unwrap();
                }
                "closed" => close_the_name(&hub).await,
                "ended" => hub.unsubscribe(&owner, &id).await.unwrap(),
                _ => {}
            }
            let told = telling.await.map(|bodies| bodies.concat());
            let has = |n: u32| told.as_ref().map(|told| told.contains(&format!("urn:x:{n}")));
            let expected: [Option<bool>; 4] = match meanwhile {
                "nothing" => [Some(true); 4],
                "changed" => [Some(true), Some(false), Some(false), Some(true)],
                // What was begun before is begun again; what was told of by then is not told.
                "closed" if turns < 100 => [Some(true); 4],
                _ => [None; 4],
            };
            assert_eq!([1_096, 1_097, 1_098, 1_099].map(has), expected, "{meanwhile} at {turns}");
            hub.stop().await;
        }
    }
}
