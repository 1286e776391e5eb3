//! What records take beside the observations of 5,000 devices, each of which sends one a second.

use crate::Figures;
use crate::client::{Connection, publish};
use crate::load::quantile_ms;
use crate::process::{Hub, body_of};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DEVICES: usize = 5_000;
/// Devices enrolled by one act.
pub const ENROLLED: usize = 1_000;
/// What a record takes beside its text: salt, leaf, keys, nonce, tag.
const BESIDE: f64 = 32.0 + 32.0 + 16.0 + 24.0 + 16.0;

/// Enrols as many devices as one act does; gives login and code of each.
pub async fn enrol(hub: &Hub, first: usize) -> anyhow::Result<Vec<(Value, Value)>> {
    let one = |n: usize| json!({"kind": "device", "login": format!("share-{n}"), "datasets": ["test"], "streams": [format!("urn:ngsi-ld:Share:{n}")]});
    let items: Vec<Value> = (first..first + ENROLLED).map(one).collect();
    let answer = hub.act("principals.enrol", json!({"items": items})).await?;
    let enrolled = answer["answer"]["enrolled"].as_array().into_iter().flatten();
    Ok(enrolled.map(|one| (one["login"].clone(), one["code"].clone())).collect())
}

async fn tokens(hub: &Hub) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for first in (0..DEVICES).step_by(ENROLLED) {
        let mut connection = hub.connect().await?;
        for (login, code) in enrol(hub, first).await? {
            let request = hub.request_as("", "POST", "/api/v1/redeem", &json!({"code": code}));
            let redeemed = body_of(&connection.done(&request).await?)?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((text(&login), text(&redeemed["token"])));
        }
    }
    Ok(found)
}

async fn newest(hub: &Hub, limit: usize) -> anyhow::Result<Vec<Value>> {
    let path = format!("/api/v1/records?limit={limit}");
    let request = hub.request_as("auditor", "GET", &path, &Value::Null);
    let all = body_of(&hub.connect().await?.done(&request).await?)?;
    Ok(all.as_array().cloned().unwrap_or_default())
}

pub async fn measure(hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let seconds: usize =
        std::env::var("TANGGUL_BENCH_SHARE_S").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let mut connections = Vec::new();
    for (login, token) in tokens(&hub).await? {
        let mut connection = Connection::open(hub.mqtts, Some(&hub.tls)).await?;
        connection.mqtt(&login, &token).await?;
        connections.push(connection);
    }
    let index = |all: &[Value]| all.first().and_then(|r| r["index"].as_u64()).unwrap_or(0);
    let before = index(&newest(&hub, 1).await?);
    let (cpu, begin) = (hub.process.cpu_s(), Instant::now() + Duration::from_secs(1));
    let mut tasks = tokio::task::JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        tasks.spawn(async move {
            let (mut times, mut sent) = (Vec::new(), 0);
            for second in 0..seconds {
                let at = Duration::from_millis((second * 1_000 + n * 1_000 / DEVICES) as u64);
                tokio::time::sleep_until((begin + at).into()).await;
                let value = 1_000 + (n * 13 + second * 7) % 500;
                let reading = json!({"id": format!("urn:ngsi-ld:Share:{n}"), "type": "Share",
                    "level": {"type": "Property", "value": f64::from(u16::try_from(value).unwrap_or(0)) / 10.0,
                        "unitCode": "CMT", "observedAt": format!("2026-03-01T00:{:02}:{:02}Z", second / 60, second % 60)}});
                let text = reading.to_string();
                sent += text.len();
                let due = Instant::now();
                connection.publish(&publish("in/test", 1, text.as_bytes()), 1).await?;
                times.push(due.elapsed());
            }
            anyhow::Ok((times, sent))
        });
    }
    let (mut times, mut sent) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (own, bytes) = ended??;
        times.extend(own);
        sent += bytes;
    }
    let cpu = hub.process.cpu_s() - cpu;
    let latest = newest(&hub, 1_000).await?;
    let made = index(&latest).saturating_sub(before);
    let text: usize = latest.iter().map(|r| r["text"].as_str().map_or(0, str::len)).sum();
    let each = text as f64 / latest.len().max(1) as f64 + BESIDE;
    let observations = times.len() as f64;
    let name = |what: &str| format!("{DEVICES} devices, one reading a second each: {what}");
    figures.add(name("records for a million observations"), made as f64 * 1e6 / observations, "");
    figures.add(name("a record"), each, "bytes");
    figures.add(name("records, of what was sent"), 100.0 * made as f64 * each / sent as f64, "%");
    figures.add(name("p50 of an acknowledgement"), quantile_ms(&mut times, 0.5), "ms");
    figures.add(name("p99 of an acknowledgement"), quantile_ms(&mut times, 0.99), "ms");
    figures.add(name("CPU of the server"), cpu * 1e6 / observations, "us an observation");
    Ok(())
}
