//! Notifications: ten thousand subscriptions, changes that match one each, one receiver in a
//! hundred dead: every other of those refuses, the rest take the connection and never answer.

use crate::Figures;
use crate::client::request;
use crate::load::quantile_ms;
use crate::process::Hub;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SUBSCRIPTIONS: usize = 10_000;
const WRITES_PER_S: usize = 500;
const RUN_S: usize = 40;
/// Gauges that change, each ten times: of one change alone there is no order to keep.
const CHANGING: usize = 2_000;
/// Connections that write, one change a request.
const WRITERS: usize = 20;

/// When each value arrived, by subscription.
type Arrived = Arc<Mutex<HashMap<String, Vec<(i64, Instant)>>>>;

async fn receive(listener: TcpListener, arrived: Arrived) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            loop {
                let end = loop {
                    if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                        break at + 4;
                    }
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                };
                let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
                let length = head
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
                let length: usize = length.unwrap_or(0);
                while buffer.len() < end + length {
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let body: serde_json::Value =
                    serde_json::from_slice(&buffer[end..end + length]).unwrap_or_default();
                buffer.drain(..end + length);
                let id = body["subscriptionId"].as_str().unwrap_or_default().to_owned();
                let value = body["data"][0]["level"]["value"].as_i64().unwrap_or(-1);
                if let Ok(mut arrived) = arrived.lock() {
                    arrived.entry(id).or_default().push((value, Instant::now()));
                }
                if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
                    return;
                }
            }
        });
    }
}

pub async fn measure(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let arrived = Arrived::default();
    let receiving = tokio::spawn(receive(listener, arrived.clone()));
    let is_dead = |n: usize| n.is_multiple_of(100);
    // Nobody takes what is sent here from the kernel.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let mute = silent.local_addr()?.port();
    let port_of = move |n: usize| match is_dead(n) {
        true if n.is_multiple_of(200) => mute,
        true => 9,
        false => port,
    };
    let mut connections = Vec::new();
    for _ in 0..32 {
        connections.push(hub.connect().await?);
    }
    let (before, since) = (hub.process.cpu_s(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for (at, mut connection) in connections.into_iter().enumerate() {
        let requests: Vec<Vec<u8>> = (at..SUBSCRIPTIONS)
            .step_by(32)
            .map(|n| {
                let uri = format!("http://127.0.0.1:{}/{n}", port_of(n));
                let body = json!({"id": format!("urn:ngsi-ld:Subscription:{n}"), "type": "Subscription",
                    "entities": [{"type": "Gauge", "id": format!("urn:ngsi-ld:Gauge:{n}")}],
                    "notification": {"endpoint": {"uri": uri}}});
                hub.request("POST", "/ngsi-ld/v1/subscriptions", &body)
            })
            .collect();
        tasks.spawn(async move {
            for request in requests {
                connection.done(&request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    figures.rate(
        "subscribing",
        "1/s",
        SUBSCRIPTIONS as f64,
        since.elapsed().as_secs_f64(),
        hub.process.cpu_s() - before,
    );

    let (before, begun) = (hub.process.cpu_s(), Instant::now());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (mut connection, token) = (hub.connect().await?, hub.token("app").to_owned());
        writers.spawn(async move {
            let mut sent = Vec::new();
            for n in (writer..RUN_S * WRITES_PER_S).step_by(WRITERS) {
                let due = begun + Duration::from_secs_f64(n as f64 / WRITES_PER_S as f64);
                tokio::time::sleep_until(due.into()).await;
                let gauge = n % CHANGING * (SUBSCRIPTIONS / CHANGING);
                let list = json!([{"id": format!("urn:ngsi-ld:Gauge:{gauge}"), "type": "Gauge",
                    "level": {"type": "Property", "value": n}}]);
                let path = "/ngsi-ld/v1/entityOperations/upsert?options=update";
                if !is_dead(gauge) {
                    let id = format!("urn:ngsi-ld:Subscription:{gauge}");
                    sent.push(((id, i64::try_from(n)?), Instant::now()));
                }
                let body = list.to_string();
                connection.done(&request("POST", path, &token, body.as_bytes())).await?;
            }
            anyhow::Ok(sent)
        });
    }
    let mut sent: HashMap<(String, i64), Instant> = HashMap::new();
    while let Some(ended) = writers.join_next().await {
        sent.extend(ended??);
    }
    let cpu = hub.process.cpu_s() - before;
    let behind = begun.elapsed().as_secs_f64() / RUN_S as f64;
    tokio::time::sleep(Duration::from_secs(3)).await;
    receiving.abort();
    drop(silent);
    let arrived = arrived.lock().map_err(|_| anyhow::anyhow!("a receiver failed"))?;
    let mut times = Vec::new();
    let mut out_of_order = 0;
    for (id, came) in arrived.iter() {
        let mut seen = std::collections::HashSet::new();
        // What comes again is neither new nor out of order.
        let first: Vec<_> = came.iter().filter(|(value, _)| seen.insert(*value)).collect();
        out_of_order += first.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        times.extend(
            first.iter().filter_map(|(value, at)| {
                Some(at.duration_since(*sent.get(&(id.clone(), *value))?))
            }),
        );
    }
    let name = "notifications, 10,000 subscriptions, 500 writes/s";
    figures.add(
        format!("{name}: lost to living receivers"),
        sent.len() as f64 - times.len() as f64,
        "notifications",
    );
    figures.add(
        format!("{name}: out of order"),
        f64::from(u32::try_from(out_of_order).unwrap_or(u32::MAX)),
        "notifications",
    );
    figures.add(format!("{name}: time taken of time given"), behind, "ratio");
    figures.add(
        format!("{name}: CPU of the server for a write and its notification"),
        cpu / (RUN_S * WRITES_PER_S) as f64 * 1e6,
        "us",
    );
    figures.add(format!("{name}: p99"), quantile_ms(&mut times, 0.99), "ms");
    Ok(())
}
