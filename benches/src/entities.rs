//! Many entities: what each takes of memory, and how soon a hub that has them is ready again.

use crate::Figures;
use crate::doors::vehicle;
use crate::process::Hub;
use serde_json::{Value, json};

const BATCH: u64 = 1_000;

/// Entities: as many as `TANGGUL_BENCH_ENTITIES` says.
fn entities() -> u64 {
    std::env::var("TANGGUL_BENCH_ENTITIES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

pub async fn measure(mut hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let mut connection = hub.connect().await?;
    let path = "/ngsi-ld/v1/entityOperations/create";
    let all = entities();
    // The first half fills what the engine keeps in memory whatever there is.
    let mut half = 0.0;
    for start in (0..all).step_by(BATCH as usize) {
        if start == all / 2 / BATCH * BATCH {
            half = hub.process.memory_mib();
        }
        let batch: Vec<Value> = (start..start + BATCH).map(vehicle).collect();
        connection.done(&hub.request("POST", path, &json!(batch))).await?;
    }
    let more = (hub.process.memory_mib() - half) * 1_024.0 * 2.0 / all as f64;
    figures.add(format!("memory of an entity of 500 bytes, of {all}"), more, "KiB");
    hub.restart()?;
    figures.add(format!("ready after start, {all} entities"), hub.ready_in.as_secs_f64(), "s");
    Ok(())
}
