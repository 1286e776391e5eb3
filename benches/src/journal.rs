//! The journal: records that are written one each, and how soon a receipt has its proof.

use crate::process::{Hub, body_of};
use crate::{Figures, doors, load};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
/// Receipts that are waited for, and how long at most.
const RECEIPTS: usize = 500;
const MOST: Duration = Duration::from_secs(20);
/// What is confidential, as reading and changing it are asked for.
const SECRET: &str = "/ngsi-ld/v1/entities/urn:ngsi-ld:Secret:1";
/// People whose data change, and why they are kept.
const PEOPLE: u64 = 256;
const PURPOSE: &str = "water-management";

pub async fn measure(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let request = hub.request_as("admin", "GET", "/api/v1/datasets/test", &Value::Null);
    let mut dataset = body_of(&hub.connect().await?.done(&request).await?)?;
    dataset["undeclared"] = json!("confidential");
    let put = hub.act("dataset.put", json!({"dataset": dataset})).await?;
    doors::agree(hub, &put).await?;
    let entity = json!({"id": "urn:ngsi-ld:Secret:1", "type": "Secret", "a": 1});
    let create = hub.request("POST", "/ngsi-ld/v1/entities", &entity);
    hub.connect().await?.done(&create).await?;
    let get = hub.request("GET", SECRET, &Value::Null);
    let name = "confidential reads, one record each";
    let read = get.clone();
    recorded(hub, figures, name, move |_| get.clone()).await?;
    let write = people(hub).await?;
    let (change, look) = (write.clone(), read.clone());
    let name = "writes of personal data and confidential reads in turns, one record each";
    recorded(
        hub,
        figures,
        name,
        move |n| {
            if n.is_multiple_of(2) { change(n / 2) } else { look.clone() }
        },
    )
    .await?;
    recorded(hub, figures, "writes of personal data, one record each", write).await?;
    let steward = hub.token("steward").to_owned();
    let enrol = move |login: String| {
        let body = json!({"login": login, "dataset": "rivers", "streams": ["urn:x:1"]});
        let act = json!({"act": "device.enrol", "body": body}).to_string();
        crate::client::request("POST", "/api/v1/acts", &steward, act.as_bytes())
    };
    let act = enrol.clone();
    let name = "acts and confidential reads, one record each, every sixteenth an act";
    recorded(hub, figures, name, move |n| {
        if n.is_multiple_of(16) { act(format!("among-{n}")) } else { read.clone() }
    })
    .await?;
    let name = "acts (a device is enrolled), one record each";
    recorded(hub, figures, name, move |n| enrol(format!("enrolled-{n}"))).await?;
    receipts(hub, figures).await
}

/// Keeps a list of people; gives how the `n`th change of it is asked for, one person's after the other.
async fn people(
    hub: &Hub,
) -> anyhow::Result<impl Fn(u64) -> Vec<u8> + Clone + Send + Sync + use<>> {
    let dataset = json!({
        "id": "subscribers", "title": "Whom to tell of a cut", "department": "water", "steward": "steward",
        "claims": [{"type": "Subscriber"}], "about_people": true, "undeclared": "personal",
        "attributes": [{"name": "telephone", "kind": "text", "sensitivity": "personal", "history": false}],
        "purposes": [PURPOSE], "legal_basis": "Water utility by-law (example)",
    });
    let put = hub.act("dataset.put", json!({"dataset": dataset})).await?;
    doors::agree(hub, &put).await?;
    let token = hub.token("steward").to_owned();
    let ask = move |method: &str, path: &str, body: &Value| {
        let body = body.to_string();
        crate::client::request_for(PURPOSE, method, path, &token, body.as_bytes())
    };
    let mut connection = hub.connect().await?;
    for person in 0..PEOPLE {
        let id = format!("urn:ngsi-ld:Subscriber:{person}");
        let entity = json!({"id": id, "type": "Subscriber", "telephone": "none"});
        connection.done(&ask("POST", "/ngsi-ld/v1/entities", &entity)).await?;
    }
    Ok(move |n: u64| {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Subscriber:{}/attrs", n % PEOPLE);
        ask("PATCH", &path, &json!({"telephone": format!("+62 22 {n}")}))
    })
}

/// A load whose every answer has a record of its own, until the last record is durable.
async fn recorded(
    hub: &Hub,
    figures: &mut Figures,
    name: &str,
    make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (before, since) = (hub.newest_record().await?, Instant::now());
    let answered = load::run(hub, figures, name, CLIENTS, make).await?;
    // The record of this very look at them comes later than it.
    while hub.newest_record().await? < before + answered {
        ensure!(since.elapsed() < MOST, "{answered} were answered, and have fewer records");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = answered as f64 / since.elapsed().as_secs_f64();
    figures.add(format!("{name}: durable records"), rate, "1/s");
    Ok(())
}

/// How soon a change has its receipt with proof, while others read what is recorded.
async fn receipts(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let get = hub.request("GET", SECRET, &Value::Null);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (mut connection, get, stop) = (hub.connect().await?, get.clone(), stop.clone());
        readers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                connection.done(&get).await?;
            }
            anyhow::Ok(())
        });
    }
    let begin = Instant::now();
    for n in 0..RECEIPTS {
        let mut connection = hub.connect().await?;
        let entity = json!({"id": format!("urn:ngsi-ld:Receipt:{n}"), "type": "Secret", "a": n});
        let create = hub.request("POST", "/ngsi-ld/v1/entities", &entity);
        let token = hub.token("app").to_owned();
        tasks.spawn(async move {
            // A prime number of milliseconds: at all phases of the checkpoints' second.
            let due = begin + Duration::from_millis(37) * u32::try_from(n)?;
            tokio::time::sleep_until(due.into()).await;
            let since = Instant::now();
            let answer = connection.done(&create).await?;
            let head = String::from_utf8_lossy(&answer).to_lowercase();
            let line = head.lines().find_map(|line| line.strip_prefix("tanggul-receipt:"));
            let index =
                line.and_then(|line| line.trim().split(';').next()).context("no receipt")?;
            let path = format!("/api/v1/receipts/{index}");
            let get = crate::client::request("GET", &path, &token, &[]);
            while connection.call(&get).await?.0 != 200 {
                ensure!(since.elapsed() < MOST, "no proof of {index}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(since.elapsed())
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.push(ended??);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    let name = format!("receipt with its proof, beside {CLIENTS} recorded readers");
    figures.add(format!("{name}: p50"), load::quantile_ms(&mut times, 0.5), "ms");
    figures.add(format!("{name}: p99"), load::quantile_ms(&mut times, 0.99), "ms");
    Ok(())
}
