//! Files through the same door as everything else: a dry run, the real run, the same again; and a
//! city that replays recorded data, where that is there.

use crate::harness::{City, recorded, stdout, tanggul};
use serde_json::{Value, json};

const MAP: &str = r#"
delimiter = ";"
time = { columns = ["waktu"], format = "DD-MM-YYYY hh:mm", offset = "+07:00" }
entity = { type = "FloodMonitoring", id = "urn:ngsi-ld:FloodMonitoring:{suffix}" }
column = [
  { name = "tinggi", attribute = "currentLevel", suffix = "import", unit = "CMT", decimal_comma = true,
    missing = ["-", "8888"], minimum = 0, maximum = 1000, max_step = 100 },
]
"#;
const FILE: &str = "waktu;tinggi\n01-01-2026 00:00;80,5\n01-01-2026 01:00;8888\n01-01-2026 02:00;95\n\
01-01-2026 03:00;9000\n01-01-2026 04:00;300\n01-01-2026 04:00;301\n";

fn import(city: &City, more: &[&str]) -> Value {
    let path = |name: &str| city.directory.path().join(name).display().to_string();
    std::fs::write(path("map.toml"), MAP).unwrap();
    std::fs::write(path("levels.csv"), FILE).unwrap();
    std::fs::write(path("token"), city.token("steward")).unwrap();
    let (map, file, token) = (path("map.toml"), path("levels.csv"), path("token"));
    let mut arguments =
        vec!["--output", "json", "import", &file, "--map", &map, "--hub", city.url()];
    arguments.extend(["--ca", city.ca(), "--token-file", &token, "--purpose", "water-management"]);
    arguments.extend(more);
    let output = tanggul(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{errors}", stdout(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn boundaries_come_from_geojson() {
    let city = City::start();
    let path = |name: &str| city.directory.path().join(name).display().to_string();
    let map = r#"
format = "geojson"
entity = { type = "AdministrativeArea", id = "urn:ngsi-ld:AdministrativeArea:{kode}" }
column = [{ name = "name", attribute = "name", text = true }]
"#;
    let square = json!({"type": "Polygon", "coordinates": [[[107.6, -6.9], [107.7, -6.9], [107.7, -6.8], [107.6, -6.9]]]});
    let feature = |kode: Value, geometry: &Value| json!({"type": "Feature", "properties": {"kode": kode, "name": "Coblong"}, "geometry": geometry});
    let features = [feature(json!("32.73 02"), &square), feature(json!("none"), &Value::Null)];
    let file = json!({"type": "FeatureCollection", "features": features});
    std::fs::write(path("map.toml"), map).unwrap();
    std::fs::write(path("areas.geojson"), file.to_string()).unwrap();
    let official = city.enrol_official("works.two", "public-works", &["department"]);
    std::fs::write(path("token"), official).unwrap();
    let output = tanggul(&[
        "--output",
        "json",
        "import",
        &path("areas.geojson"),
        "--map",
        &path("map.toml"),
        "--hub",
        city.url(),
        "--ca",
        city.ca(),
        "--token-file",
        &path("token"),
        "--purpose",
        "public-works",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["rows"], &report["sent"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!(report["faults"][0]["line"], 2, "{report}");
    let id = "urn:ngsi-ld:AdministrativeArea:32.73-02";
    let area = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "").json();
    assert_eq!((&area["name"], &area["location"]), (&json!("Coblong"), &square));
    // What lies in it is found by it.
    let near = "georel=within&geometry=Polygon&coordinates=[[[107.5,-7],[107.8,-7],[107.8,-6.7],[107.5,-7]]]";
    assert!(
        city.get(&format!("/ngsi-ld/v1/entities?type=AdministrativeArea&{near}"), "").status == 200
    );
}

#[test]
fn imported_twice_is_there_once() {
    let city = City::start();
    let path =
        "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:FloodMonitoring:import?options=temporalValues";
    let dry = import(&city, &["--dry-run"]);
    assert_eq!((&dry["values"], &dry["sent"]), (&json!(3), &json!(0)));
    assert_eq!(city.get(path, "").status, 404);
    for _ in 0..2 {
        let report = import(&city, &[]);
        assert_eq!((&report["sent"], &report["missing"]), (&json!(3), &json!(1)), "{report}");
        let faults: Vec<_> = report["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| (f["line"].as_u64().unwrap(), f["kept"] == json!(true)))
            .collect();
        assert_eq!(faults, [(5, false), (6, true), (7, false)], "{report}");
        let values = city.get(path, "").json()["currentLevel"]["values"].clone();
        let expected = json!([
            [80.5, "2025-12-31T17:00:00Z"],
            [95, "2025-12-31T19:00:00Z"],
            [300, "2025-12-31T21:00:00Z"],
        ]);
        assert_eq!(values, expected);
    }
}

#[test]
fn what_the_hub_refuses_is_in_the_report() {
    let city = City::start();
    let map = city.directory.path().join("jsonl.toml");
    std::fs::write(&map, "format = \"jsonl\"\n").unwrap();
    let file = city.directory.path().join("lines.jsonl");
    let lines = concat!(
        r#"{"id":"urn:ngsi-ld:FloodMonitoring:l1","type":"FloodMonitoring","currentLevel":{"value":5}}"#,
        "\n",
        "{broken\n",
        r#"{"id":"urn:ngsi-ld:FloodMonitoring:l2","type":"FloodMonitoring","currentLevel":{"value":99999}}"#,
        "\n",
    );
    std::fs::write(&file, lines).unwrap();
    let token = city.directory.path().join("token");
    std::fs::write(&token, city.token("steward")).unwrap();
    let shown = |path: &std::path::Path| path.display().to_string();
    let output = tanggul(&[
        "--output",
        "json",
        "import",
        &shown(&file),
        "--map",
        &shown(&map),
        "--hub",
        city.url(),
        "--ca",
        city.ca(),
        "--token-file",
        &shown(&token),
        "--purpose",
        "water-management",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sent"], json!(1), "{report}");
    assert_eq!(report["faults"][0]["line"], json!(2), "{report}");
    assert!(report["refused"].to_string().contains("outside -50 to 1500"), "{report}");
}

#[test]
fn recorded_data_is_replayed() {
    let Some(data) = recorded() else {
        println!("not run: the recorded data is not here");
        return;
    };
    let city = City::start_with(&["--devices", "20", "--replay", data.to_str().unwrap()]);
    let seen = |id: &str, attribute: &str, who: &str| {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:{id}?options=keyValues");
        city.wait_for(|| city.get(&path, who).json().get(attribute)?.as_f64())
    };
    assert!(seen("FloodMonitoring:katulampa", "currentLevel", "") >= 9.0);
    assert!(seen("WeatherObserved:bandung", "relativeHumidity", "") <= 1.0);
    assert!(seen("WaterObserved:pipe", "flow", "steward:water-management") > 20.0);
    assert!(
        seen("TrafficFlowObserved:speed-7578", "averageVehicleSpeed", "crisis:flood-response")
            > 0.0
    );
    let level = city.get("/ngsi-ld/v1/entities/urn:ngsi-ld:FloodMonitoring:katulampa", "").json();
    let at = level["currentLevel"]["observedAt"].as_str().unwrap();
    assert!(at.starts_with("2022-"), "recorded times are kept: {at}");
}
