//! What records take beside the observations of 5,000 devices, each of which sends one a second.

use crate::Figures;
use crate::client::{Connection, publish};
use crate::load::quantile_ms;
use crate::process::Hub;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DEVICES: usize = 5_000;
/// Devices enrolled by one act.
pub const ENROLLED: usize = 1_000;
/// What a record takes beside its text: salt, leaf, keys, nonce, tag.
const BESIDE: f64 = 32.0 + 32.0 + 16.0 + 24.0 + 16.0;

/// Enrols as many devices as one act does; gives login and code of each.
pub async fn enrol(hub: &Hub, first: usize) -> anyhow::Result<Vec<(Value, Value)>> {
    let one = |n: usize| (format!("share-{n}"), format!("urn:ngsi-ld:Share:{n}"));
    hub.enrol((first..first + ENROLLED).map(one).collect()).await
}

async fn tokens(hub: &Hub) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for first in (0..DEVICES).step_by(ENROLLED) {
        found.extend(hub.redeem(enrol(hub, first).await?).await?);
    }
    Ok(found)
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
    let before = hub.newest_record().await?;
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
    let made = hub.newest_record().await? - before;
    let latest = hub.newest_records(1_000).await?;
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
