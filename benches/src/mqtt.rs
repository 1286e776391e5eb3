//! Observations over MQTT: one reading a message, and many a message.

use crate::Figures;
use crate::client::{Connection, publish};
use crate::history::{SERIES, reading};
use crate::load::{RUN_S, quantile_ms};
use crate::process::Hub;
use anyhow::ensure;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 100;
/// Messages a client has under way.
const WINDOW: usize = 50;
/// Windows that each has; when all were sent it is another day.
const ROUNDS: usize = 20;
/// The day that `reading` gives.
const DAY: &[u8] = b"2026-02-01";
/// Messages of a thousand observations.
const BATCHES: usize = 1_000;

/// A window's messages, and where in them the day stands: no reading is sent twice.
struct Window {
    packets: Vec<u8>,
    days: Vec<usize>,
}

impl Window {
    fn new(packets: Vec<u8>) -> Window {
        let at = packets.windows(DAY.len()).enumerate();
        let days = at.filter(|(_, there)| *there == DAY).map(|(at, _)| at).collect();
        Window { packets, days }
    }

    fn on(&mut self, day: usize) -> &[u8] {
        let day = format!("2026-{:02}-{:02}", 1 + day / 28 % 10, 1 + day % 28);
        for at in &self.days {
            self.packets[*at..*at + DAY.len()].copy_from_slice(day.as_bytes());
        }
        &self.packets
    }
}

pub async fn measure(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let device = |n: usize| (format!("bench-{n}"), "urn:ngsi-ld:Gauge:*".to_owned());
    let devices = hub.redeem(hub.enrol((0..CONNECTIONS).map(device).collect()).await?).await?;
    let door = (hub.mqtts, Some(hub.tls.clone()));
    let (messages, wall, cpu, mut times) = many(&door, &devices, "in/test", &hub.process).await?;
    let name = "MQTT QoS 1, one reading a message, 100 devices, durable";
    figures.rate(name, "messages/s", messages, wall, cpu);
    figures.add(format!("{name}: p99 of a window of 50"), quantile_ms(&mut times, 0.99), "ms");
    let there = hub.observations(CONNECTIONS * WINDOW).await?;
    ensure!(there == messages, "{messages} readings were acknowledged, {there} are there");

    let before = there;
    let batches: Vec<Vec<u8>> = (0..BATCHES)
        .map(|n| {
            let list: Vec<Value> =
                (0..1_000).map(|s| reading(s + n % 10 * 1_000, 144 + n / 10, 1_440)).collect();
            publish("in/test", 1, Value::from(list).to_string().as_bytes())
        })
        .collect();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(hub.mqtts, Some(&hub.tls)).await?;
        connection.mqtt(&devices[0].0, &devices[0].1).await?;
        connections.push(connection);
    }
    let (cpu, since) = (hub.process.settled_cpu_s().await, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        let mine: Vec<Vec<u8>> = batches.iter().skip(n).step_by(4).cloned().collect();
        tasks.spawn(async move {
            for batch in mine {
                connection.publish(&batch, 1).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let wall = since.elapsed().as_secs_f64();
    let cpu = hub.process.settled_cpu_s().await - cpu;
    let there = hub.observations(SERIES).await? - before;
    let sent = (BATCHES * 1_000) as f64;
    ensure!(there == sent, "{sent} observations were acknowledged, {there} are there");
    let name = "batch ingest, MQTT, 1,000 a message, durable";
    figures.rate(name, "observations/s", sent, wall, cpu);
    Ok(())
}

/// One reading a message from many connections: messages, wall, CPU with all that is done later, times
/// of windows.
pub async fn many(
    (address, tls): &(SocketAddr, Option<TlsConnector>),
    devices: &[(String, String)],
    topic: &str,
    process: &crate::process::Process,
) -> anyhow::Result<(f64, f64, f64, Vec<Duration>)> {
    let mut connections = Vec::new();
    for n in 0..CONNECTIONS {
        let mut connection = Connection::open(*address, tls.as_ref()).await?;
        let (login, token) = &devices[n % devices.len()];
        connection.mqtt(login, token).await?;
        let windows: Vec<Window> = (0..ROUNDS)
            .map(|round| {
                let message = |at: usize| {
                    let reading = reading(n * WINDOW + at, round, 1_440);
                    let id = u16::try_from(at + 1).unwrap_or(1);
                    publish(topic, id, reading.to_string().as_bytes())
                };
                Window::new((0..WINDOW).flat_map(message).collect())
            })
            .collect();
        connections.push((connection, windows));
    }
    let (before, since) = (process.cpu_s(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for (mut connection, mut windows) in connections {
        tasks.spawn(async move {
            let mut times = Vec::new();
            for turn in 0.. {
                if since.elapsed() > Duration::from_secs(RUN_S) {
                    break;
                }
                let packets = windows[turn % ROUNDS].on(turn / ROUNDS);
                let begun = Instant::now();
                connection.publish(packets, WINDOW).await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    let wall = since.elapsed().as_secs_f64();
    let cpu = process.settled_cpu_s().await - before;
    Ok(((times.len() * WINDOW) as f64, wall, cpu, times))
}
