//! Single requests over HTTPS: reading, querying, changing, writing; also through a lens that masks.

use crate::process::Hub;
use crate::{Figures, load};
use anyhow::ensure;
use serde_json::{Value, json};

const VEHICLES: u64 = 1_000;
/// Values that each one's speed takes in turns.
const SPEEDS: u64 = 8;

/// An entity of some 500 bytes.
pub fn vehicle(n: u64) -> Value {
    json!({"id": format!("urn:ngsi-ld:Vehicle:{n}"), "type": "Vehicle",
        "brand": {"type": "Property", "value": "Mercedes"},
        "speed": {"type": "Property", "value": n % 120, "observedAt": "2026-08-20T10:00:00Z"},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [107.61, -6.91]}},
        "isParked": {"type": "Relationship", "object": format!("urn:ngsi-ld:OffStreetParking:{n}")},
        "description": {"type": "Property", "value": "-".repeat(200)}})
}

pub async fn measure(hub: &Hub, program: &str, figures: &mut Figures) -> anyhow::Result<()> {
    figures.add("ready after start", hub.ready_in.as_secs_f64(), "s");
    figures.add("memory, idle", hub.process.memory_mib(), "MiB");
    let binary = std::fs::metadata(program)?.len() as f64;
    figures.add("binary", binary / f64::from(1 << 20), "MiB");
    let vehicles: Vec<Value> = (0..VEHICLES).map(vehicle).collect();
    let create = hub.request("POST", "/ngsi-ld/v1/entityOperations/create", &json!(vehicles));
    hub.connect().await?.done(&create).await?;
    all(hub, figures, "", &[1, 8, 64]).await?;
    let new = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    for clients in [1, 8, 64] {
        let (token, new) = (hub.token("app").to_owned(), new.clone());
        load::run(hub, figures, "durable single write", clients, move |_| {
            let n = new.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let body = json!({"id": format!("urn:ngsi-ld:New:{n}"), "type": "New", "a": {"type": "Property", "value": n}});
            crate::client::request("POST", "/ngsi-ld/v1/entities", &token, body.to_string().as_bytes())
        })
        .await?;
    }
    masked(hub, figures).await
}

async fn all(
    hub: &Hub,
    figures: &mut Figures,
    through: &str,
    clients: &[usize],
) -> anyhow::Result<()> {
    let gets: Vec<Vec<u8>> = (0..VEHICLES)
        .map(|n| {
            hub.request(
                "GET",
                &format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:{n}"),
                &Value::Null,
            )
        })
        .collect();
    let query = hub.request("GET", "/ngsi-ld/v1/entities?type=Vehicle&limit=20", &Value::Null);
    // Another value each time that its turn comes.
    let patches: Vec<Vec<u8>> = (0..VEHICLES * SPEEDS)
        .map(|n| {
            let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:{}/attrs", n % VEHICLES);
            let speed = n / VEHICLES + n % 120;
            hub.request("PATCH", &path, &json!({"speed": {"type": "Property", "value": speed}}))
        })
        .collect();
    for count in clients {
        let gets = gets.clone();
        let get = move |n: u64| gets[(n % VEHICLES) as usize].clone();
        load::run(hub, figures, &format!("GET entity{through}"), *count, get).await?;
        let query = query.clone();
        load::run(hub, figures, &format!("query limit=20{through}"), *count, move |_| {
            query.clone()
        })
        .await?;
        let patches = patches.clone();
        let patch = move |n: u64| patches[(n % (VEHICLES * SPEEDS)) as usize].clone();
        load::run(hub, figures, &format!("durable PATCH{through}"), *count, patch).await?;
    }
    Ok(())
}

/// The same three when the app's dataset has attributes that are masked and coarsened for it.
async fn masked(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let path = "/api/v1/datasets/test";
    let request = hub.request_as("admin", "GET", path, &Value::Null);
    let answer = hub.connect().await?.done(&request).await?;
    let mut dataset = crate::process::body_of(&answer)?;
    dataset["attributes"] = json!([
        {"name": "brand", "kind": "text", "sensitivity": "confidential", "withheld": "mask"},
        {"name": "location", "kind": "place", "sensitivity": "confidential", "withheld": {"coarsen": {"step": 0.1}}},
    ]);
    let put = hub.act("dataset.put", json!({"dataset": dataset})).await?;
    agree(hub, &put).await?;
    let policies = hub.request_as("admin", "GET", "/api/v1/policies", &Value::Null);
    let answer = hub.connect().await?.done(&policies).await?;
    let text = crate::process::body_of(&answer)?["text"].as_str().unwrap_or_default().to_owned();
    let more = "\n@id(\"bench-glimpse\")\n@title(\"The app sees stand-ins of what is confidential.\")\n\
        permit (principal, action == Tanggul::Action::\"glimpse\", resource)\n\
        when { principal.kind == \"app\" && principal.datasets.contains(resource.id) };\n\
        @id(\"bench-hidden\")\n@title(\"The app sees nothing confidential as it is.\")\n\
        forbid (principal, action in [Tanggul::Action::\"read\", Tanggul::Action::\"aggregate\"], resource)\n\
        when { principal.kind == \"app\" && context.level >= 2 };\n";
    let put = hub.act("policies.put", json!({"text": text + more})).await?;
    agree(hub, &put).await?;
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:1";
    let get = hub.request("GET", path, &Value::Null);
    let seen = crate::process::body_of(&hub.connect().await?.done(&get).await?)?;
    let place = &seen["location"]["value"]["coordinates"];
    ensure!(seen["brand"]["value"] != "Mercedes" && *place != json!([107.61, -6.91]), "{seen}");
    all(hub, figures, " through a lens that masks", &[64]).await
}

/// The second person's part, where one is asked for.
pub async fn agree(hub: &Hub, asked: &Value) -> anyhow::Result<()> {
    if let Some(pending) = asked["pending"].as_str() {
        let path = format!("/api/v1/acts/{pending}/approve");
        let approve = hub.request_as("steward", "POST", &path, &json!({}));
        hub.connect().await?.done(&approve).await?;
    }
    Ok(())
}
