//! Who looks at many lets others come between, and answers by what is true and open at the end.

use super::{dataset, session, start};
use crate::history::HistoryQuery;
use crate::processors::Turns;
use crate::{Act, Hub, Query};
use model::{Change, Sensitivity};
use ngsild::{Context, Filter, Form, parse_entity, parse_json};
use std::sync::Arc;

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

/// All the long looks that there may be at once: who comes after waits at his first turn.
async fn all_turns(hub: &Hub) -> Vec<Turns<'_>> {
    let mut all = [hub.long_looks.turns(), hub.long_looks.turns()];
    for turns in &mut all {
        turns.next().await;
    }
    all.into()
}

/// Those above 14, which columns tell, and those of the name, which they do not.
fn filter() -> Filter {
    let q = ngsild::parse_q(r#"level>14|name~="wanted""#, &Context::core()).unwrap();
    Filter { q: Some(q), ..Filter::default() }
}

async fn asked(hub: Arc<Hub>, order: &str) -> Vec<String> {
    let order = std::iter::once(order).filter(|key| !key.is_empty());
    let order = order.map(|key| ngsild::OrderKey::parse(key, &Context::core()).unwrap()).collect();
    let query = Query { filter: filter(), order, count: true, ..Query::default() };
    let answer = hub.read(&session(&hub, ""), &query).await.unwrap();
    let ids = answer.entities.iter().map(|seen| seen.id.trim_start_matches("urn:x:").to_owned());
    ids.collect()
}

async fn close_the_name(hub: &Hub) {
    let body = serde_json::json!({"dataset": rivers(Sensitivity::Confidential)}).to_string();
    let act = Act { name: "dataset.put".into(), body: parse_json(body.as_bytes()).unwrap() };
    hub.act(&hub.own_session(), act).await.unwrap();
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
        let turns = all_turns(&hub).await;
        let looking = tokio::spawn(asked(hub.clone(), order));
        // It has asked the columns, and waits.
        tokio::task::yield_now().await;
        let own = hub.own_session();
        let changed = vec![river(2, 2, "wanted"), river(16, 3, "other")];
        hub.write(&own, changed).await.unwrap();
        hub.write(&own, vec![Change::Delete { id: "urn:x:18".into() }]).await.unwrap();
        assert!(!looking.is_finished());
        drop(turns);
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
    let turns = all_turns(&hub).await;
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
    drop(turns);
    assert_eq!(looking.await.unwrap(), ["15", "16", "17", "18", "19"]);
    let history = history.await.unwrap();
    let ids: Vec<_> = history.entities.iter().map(|(frame, _)| frame.id.as_str()).collect();
    assert_eq!(ids, ["urn:x:15", "urn:x:16", "urn:x:17", "urn:x:18", "urn:x:19"]);
    let names = history.entities.iter().flat_map(|(_, histories)| histories);
    assert!(names.map(|(name, _)| name.as_str()).all(|name| name == "level"));
    hub.stop().await;
}
