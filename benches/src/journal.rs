//! The journal: records that are written one each, and how soon a receipt has its proof.

use crate::process::{Hub, body_of};
use crate::{Figures, doors, load};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub async fn measure(hub: &Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let request = hub.request_as("admin", "GET", "/api/v1/datasets/test", &Value::Null);
    let mut dataset = body_of(&hub.connect().await?.done(&request).await?)?;
    dataset["undeclared"] = json!("confidential");
    let put = hub.act("dataset.put", json!({"dataset": dataset})).await?;
    doors::agree(hub, &put).await?;
    let entity = json!({"id": "urn:ngsi-ld:Secret:1", "type": "Secret", "a": 1});
    let create = hub.request("POST", "/ngsi-ld/v1/entities", &entity);
    hub.connect().await?.done(&create).await?;
    let get = hub.request("GET", "/ngsi-ld/v1/entities/urn:ngsi-ld:Secret:1", &Value::Null);
    let name = "confidential reads, one record each";
    let read = get.clone();
    load::run(hub, figures, name, 64, move |_| get.clone()).await?;
    let steward = hub.token("steward").to_owned();
    let enrol = move |login: String| {
        let body = json!({"login": login, "dataset": "rivers", "streams": ["urn:x:1"]});
        let act = json!({"act": "device.enrol", "body": body}).to_string();
        crate::client::request("POST", "/api/v1/acts", &steward, act.as_bytes())
    };
    let act = enrol.clone();
    let name = "acts and confidential reads, one record each, every sixteenth an act";
    load::run(hub, figures, name, 64, move |n| {
        if n.is_multiple_of(16) { act(format!("among-{n}")) } else { read.clone() }
    })
    .await?;
    let name = "acts (a device is enrolled), one record each";
    load::run(hub, figures, name, 64, move |n| enrol(format!("enrolled-{n}"))).await?;
    let mut times = Vec::new();
    let mut connection = hub.connect().await?;
    for n in 0..20 {
        let entity = json!({"id": format!("urn:ngsi-ld:Receipt:{n}"), "type": "Secret", "a": n});
        let create = hub.request("POST", "/ngsi-ld/v1/entities", &entity);
        let since = Instant::now();
        let answer = connection.done(&create).await?;
        let head = String::from_utf8_lossy(&answer).to_lowercase();
        let line =
            head.lines().find(|line| line.starts_with("tanggul-receipt:")).unwrap_or_default();
        let index = line
            .trim_start_matches("tanggul-receipt:")
            .trim()
            .split(';')
            .next()
            .unwrap_or_default()
            .to_owned();
        let path = format!("/api/v1/receipts/{index}");
        let get = hub.request("GET", &path, &Value::Null);
        while connection.call(&get).await?.0 != 200 {
            anyhow::ensure!(since.elapsed() < Duration::from_secs(10), "no proof of {index}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        times.push(since.elapsed());
    }
    figures.add("receipt with its proof: p99", load::quantile_ms(&mut times, 0.99), "ms");
    Ok(())
}
