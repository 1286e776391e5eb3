//! 200 consoles with live values while 5,000 observations a second arrive: how soon each sees a change,
//! and what they cost beside the ingest.

use crate::Figures;
use crate::client::request;
use crate::load::quantile_ms;
use crate::process::Hub;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CONSOLES: usize = 200;
/// Entities that move, each once a second; a console looks at those of one type.
const ENTITIES: usize = 5_000;
const TYPES: usize = 50;
/// Parts of a second, each with its share of the entities.
const PARTS: usize = 10;
const SECONDS: usize = 30;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One observation each of a share of the entities; its value says when it was sent.
fn batch(token: &str, part: usize) -> Vec<u8> {
    let mut body = String::from("[");
    for entity in (part..ENTITIES).step_by(PARTS) {
        if body.len() > 1 {
            body.push(',');
        }
        let (of, now) = (entity % TYPES, now_ms());
        // Writing into a string cannot fail.
        let _ = write!(
            body,
            r#"{{"id":"urn:ngsi-ld:Kind{of}:{entity}","type":"Kind{of}","sent":{{"type":"Property","value":{now}}}}}"#
        );
    }
    body.push(']');
    request("POST", "/ngsi-ld/v1/entityOperations/upsert?options=update", token, body.as_bytes())
}

/// Moves the entities for a while; gives the CPU time of the server that it took.
async fn drive(hub: &Hub) -> anyhow::Result<f64> {
    let token = hub.token("app").to_owned();
    let mut connection = hub.connect().await?;
    let (cpu, begin) = (hub.process.cpu_s(), Instant::now());
    for step in 0..SECONDS * PARTS {
        let at = Duration::from_millis((step * 1_000 / PARTS) as u64);
        tokio::time::sleep_until((begin + at).into()).await;
        connection.done(&batch(&token, step % PARTS)).await?;
    }
    Ok(hub.process.cpu_s() - cpu)
}

pub async fn measure(hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let alone = drive(&hub).await?;
    let (stop, missed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut consoles = tokio::task::JoinSet::new();
    for console in 0..CONSOLES {
        let of = console % TYPES;
        let path = format!("/api/v1/watch?type=Kind{of}");
        let asked = request("GET", &path, hub.token("app"), b"");
        let (mut connection, stop, missed) = (hub.connect().await?, stop.clone(), missed.clone());
        consoles.spawn(async move {
            let mut times: Vec<Duration> = Vec::new();
            // The last change seen of each entity: what comes again is no news.
            let mut last: HashMap<String, u64> = HashMap::new();
            connection.send(&asked).await?;
            while !stop.load(Ordering::Relaxed) {
                let Ok(text) =
                    tokio::time::timeout(Duration::from_secs(1), connection.line()).await
                else {
                    continue;
                };
                let text = text?;
                if text.contains("event: missed") {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
                let Some(data) = text.strip_prefix("data: [{") else { continue };
                let now = now_ms();
                for entity in data.split("{\"id\":\"").flat_map(|part| part.split_once('"')) {
                    let (id, rest) = entity;
                    let sent = rest.split_once("\"value\":").map(|(_, rest)| rest);
                    let digits = sent.map(|rest| rest.split(|c: char| !c.is_ascii_digit()));
                    let sent = digits.and_then(|mut parts| parts.next()?.parse::<u64>().ok());
                    let Some(sent) = sent else { continue };
                    if last.insert(id.to_owned(), sent).is_none_or(|before| before < sent) {
                        times.push(Duration::from_millis(now.saturating_sub(sent)));
                    }
                }
            }
            anyhow::Ok(times)
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let watched = drive(&hub).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(one) = consoles.join_next().await {
        times.extend(one??);
    }
    let name = |what: &str| format!("{CONSOLES} consoles, {ENTITIES} observations/s: {what}");
    let expected = CONSOLES * ENTITIES / TYPES * SECONDS;
    figures.add(
        name("changes seen, of those there were"),
        times.len() as f64 / expected as f64,
        "",
    );
    figures.add(name("p50 from sent to seen"), quantile_ms(&mut times, 0.5), "ms");
    figures.add(name("p99 from sent to seen"), quantile_ms(&mut times, 0.99), "ms");
    figures.add(name("longest"), quantile_ms(&mut times, 1.0), "ms");
    figures.add(name("told that they missed some"), missed.load(Ordering::Relaxed) as f64, "");
    let seconds = SECONDS as f64;
    figures.add(name("CPU of the server without them"), alone / seconds * 1_000.0, "ms a second");
    figures.add(name("CPU of the server with them"), watched / seconds * 1_000.0, "ms a second");
    Ok(())
}
