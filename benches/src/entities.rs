//! Many entities: what each takes of memory, how soon a hub that has them is ready again, and how
//! long a question over all of them takes.

use crate::Figures;
use crate::load::quantile_ms;
use crate::process::Hub;
use serde_json::{Value, json};
use std::time::Instant;

const BATCH: u64 = 1_000;
const QUESTIONS: usize = 200;
/// Who asks what takes long, at once (`long_looks_waiting`), and how often each.
const ASKING: usize = 4;
const LONG_LOOKS: usize = 5;

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A vehicle of about 500 bytes somewhere in the city.
fn vehicle(n: u64) -> Value {
    let place = [107.5 + (n % 200) as f64 / 1_000.0, -7.0 + (n / 200 % 200) as f64 / 1_000.0];
    json!({"id": format!("urn:ngsi-ld:Vehicle:{n}"), "type": "Vehicle",
        "brand": {"type": "Property", "value": "Mercedes"},
        "speed": {"type": "Property", "value": n % 120, "observedAt": "2026-08-20T10:00:00Z"},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": place}},
        "isParked": {"type": "Relationship", "object": format!("urn:ngsi-ld:OffStreetParking:{n}")},
        "description": {"type": "Property", "value": "-".repeat(200)}})
}

fn reading(n: u64, round: u64) -> Value {
    let at = format!("2026-08-20T{:02}:{:02}:00Z", 11 + round / 60, round % 60);
    json!({"id": format!("urn:ngsi-ld:Vehicle:{n}"), "type": "Vehicle",
        "speed": {"type": "Property", "value": (n + round) % 120, "observedAt": at}})
}

pub async fn measure(hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let all = setting("TANGGUL_BENCH_ENTITIES", 100_000) / BATCH * BATCH;
    measure_many(hub, figures, all, setting("TANGGUL_BENCH_READINGS", 20)).await
}

/// With so many entities and readings of each.
pub async fn measure_many(
    mut hub: Hub,
    figures: &mut Figures,
    all: u64,
    rounds: u64,
) -> anyhow::Result<()> {
    let mut connection = hub.connect().await?;
    let write = |path: &str, batch: Vec<Value>| {
        let path = format!("/ngsi-ld/v1/entityOperations/{path}");
        hub.request("POST", &path, &json!(batch))
    };
    let idle = hub.process.memory_mib();
    let (wall, cpu) = (Instant::now(), hub.process.cpu_s());
    for start in (0..all).step_by(BATCH as usize) {
        connection.done(&write("create", (start..start + BATCH).map(vehicle).collect())).await?;
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), hub.process.cpu_s() - cpu);
    let name = format!("creating {all} entities, {BATCH} a request");
    figures.rate(&name, "entities", all as f64, wall, cpu);
    for round in 0..rounds {
        for start in (0..all).step_by(BATCH as usize) {
            let batch = (start..start + BATCH).map(|n| reading(n, round)).collect();
            connection.done(&write("upsert?options=update", batch)).await?;
        }
    }
    let name = format!("memory of {all} entities of 500 bytes with {} observations", all * rounds);
    memory(&hub, figures, &name, all, idle);
    figures.add(format!("{name}: the most meanwhile"), hub.process.most_memory_mib(), "MiB");
    drop(connection);
    hub.restart()?;
    figures.add(format!("ready after start, {all} entities"), hub.ready_in.as_secs_f64(), "s");
    memory(&hub, figures, &format!("{name}, after a restart"), all, idle);
    let most = hub.process.most_memory_mib();
    figures.add(format!("{name}: the most at opening"), most, "MiB");
    questions(&hub, figures, all).await?;
    long_looks(&hub, figures, all).await
}

/// What the whole program takes, and what an entity adds to what it takes when idle.
fn memory(hub: &Hub, figures: &mut Figures, name: &str, all: u64, idle: f64) {
    let used = hub.process.memory_mib();
    figures.add(name, used, "MiB");
    figures.add(format!("{name}: an entity"), (used - idle) * 1_024.0 / all as f64, "KiB");
}

/// How long others wait while some ask what only the text of every entity tells.
async fn long_looks(hub: &Hub, figures: &mut Figures, all: u64) -> anyhow::Result<()> {
    let path = "/ngsi-ld/v1/entities?type=Vehicle&q=description~=%22x$%22&count=true";
    let question = hub.request("GET", path, &Value::Null);
    let mut asking = Vec::new();
    for _ in 0..ASKING {
        let (mut connection, question) = (hub.connect().await?, question.clone());
        asking.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let start = Instant::now();
                connection.done(&question).await?;
                times.push(start.elapsed());
                if times.len() == LONG_LOOKS {
                    return anyhow::Ok(times);
                }
            }
        }));
    }
    let mut connection = hub.connect().await?;
    let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
    let id = |n: u64| format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:{}", n * 7_919 % all);
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for n in 0.. {
        if asking.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
        let start = Instant::now();
        connection.done(&hub.request("POST", upsert, &json!([reading(n % all, 700)]))).await?;
        writes.push(start.elapsed());
        let start = Instant::now();
        connection.done(&hub.request("GET", &id(n), &Value::Null)).await?;
        reads.push(start.elapsed());
    }
    let mut times = Vec::new();
    for one in asking {
        times.append(&mut one.await??);
    }
    let name = format!("{ASKING} ask for a text in {all}");
    figures.add(format!("{name}: they wait, p99"), quantile_ms(&mut times, 0.99), "ms");
    figures.add(
        format!("{name}: a durable write waits, p99"),
        quantile_ms(&mut writes, 0.99),
        "ms",
    );
    figures.add(format!("{name}: a GET waits, p99"), quantile_ms(&mut reads, 0.99), "ms");
    Ok(())
}

async fn questions(hub: &Hub, figures: &mut Figures, all: u64) -> anyhow::Result<()> {
    let mut connection = hub.connect().await?;
    // One in two is as fast, one in five is there.
    let square = "%5B%5B%5B107.499,-7.001%5D,%5B107.5395,-7.001%5D,%5B107.5395,-6.8%5D,\
        %5B107.499,-6.8%5D,%5B107.499,-7.001%5D%5D%5D";
    let near = "georel=near;maxDistance==8900&geometry=Point&coordinates=%5B107.6,-6.9%5D";
    let within = format!("georel=within&geometry=Polygon&coordinates={square}");
    let order = "orderBy=speed;desc&limit=20";
    let asked = [
        ("q, place (polygon) and order", format!("q=speed>=60&{within}&{order}")),
        ("q, place (distance) and order", format!("q=speed>=60&{near}&{order}")),
        ("q on a number and a text, order", format!("q=speed==119;brand==%22Mercedes%22&{order}")),
    ];
    for (name, question) in asked {
        let path = format!("/ngsi-ld/v1/entities?type=Vehicle&{question}").replace('>', "%3E");
        let request = hub.request("GET", &path, &Value::Null);
        let counted = format!("{path}&count=true");
        let counted = connection.done(&hub.request("GET", &counted, &Value::Null)).await?;
        let counted = String::from_utf8_lossy(&counted).into_owned();
        let matched = counted.lines().find_map(|line| line.strip_prefix("ngsild-results-count: "));
        let (mut times, cpu) = (Vec::with_capacity(QUESTIONS), hub.process.cpu_s());
        for _ in 0..QUESTIONS {
            let start = Instant::now();
            connection.done(&request).await?;
            times.push(start.elapsed());
        }
        let cpu_ms = (hub.process.cpu_s() - cpu) * 1_000.0 / QUESTIONS as f64;
        let name = format!("{name}, {} of {all}", matched.unwrap_or("?"));
        figures.add(format!("{name}, CPU"), cpu_ms, "ms");
        figures.add(format!("{name}, p99"), quantile_ms(&mut times, 0.99), "ms");
    }
    Ok(())
}
