//! A working city in one command: the hub, its officials and datasets, and its devices as clients.

use crate::config::Config;
use crate::running::{self, Running, base_url, now};
use citysim::{Addresses, CityOptions, Device, city};
use hub::NewPrincipal;
use model::{Change, Content, Dataset, Entity, Instance, Kind, Name, Principal, Role, Value};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// What `tanggul demo` was asked for.
#[derive(Debug)]
pub struct DemoOptions {
    pub data: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub mqtt: Option<SocketAddr>,
    pub replay: Option<PathBuf>,
    pub config: Option<PathBuf>,
    pub ready_file: Option<PathBuf>,
    pub devices: usize,
    pub seed: u64,
}

/// Days that the demo's tokens hold.
const TOKEN_DAYS: i64 = 30;
/// People on the simulated register.
const PEOPLE: usize = 40;
/// Officials whose tokens go into the ready file, in its order.
const TOKENS: [&str; 6] = ["admin", "steward", "crisis", "auditor", "app", "device"];

/// Runs the demo until the process is told to end.
///
/// # Errors
/// When the city cannot be set up.
pub async fn run(options: DemoOptions) -> anyhow::Result<()> {
    let mut config = match &options.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    config.listen.https = options.listen.unwrap_or(config.listen.https);
    config.listen.mqtt = options.mqtt.unwrap_or(config.listen.mqtt);
    // Never where a configuration says that a real hub lies: the demo's people have tokens.
    let (data, temporary) = match options.data.clone() {
        Some(data) => (data, false),
        None => (std::env::temp_dir().join(format!("tanggul-demo-{}", std::process::id())), true),
    };
    let notice = match &options.replay {
        Some(_) => {
            "The data shown here is recorded elsewhere and replayed; lamps, meters and the register are simulated."
        }
        None => "The data shown here is simulated.",
    };
    let seed = CityOptions {
        seed: options.seed,
        devices: options.devices,
        replay: options.replay.clone(),
        age_s: age_s(&data),
    };
    let devices = tokio::task::spawn_blocking(move || city(&seed)).await??;
    let running = running::start(&data, &config, Some(notice)).await?;
    let (tokens, devices) = settle(&running, devices, &data).await?;
    let code = running.hub.sign_in_code("admin").await?;
    let https = base_url("https", running.https);
    let signin = format!("{https}/#signin={code}");
    let ending = running::Ending::listen()?;
    if let Some(path) = &options.ready_file {
        let ready = json!({
            "https": https, "mqtts": base_url("mqtts", running.mqtts), "ca": absolute(&running.ca),
            "data": absolute(&data), "signin": signin, "tokens": tokens,
        });
        write_ready(path, &ready.to_string())?;
    }
    let mut codes = Vec::new();
    for login in ["crisis", "steward", "auditor"] {
        codes.push((login, running.hub.sign_in_code(login).await?));
    }
    announce(&running, &data, &tokens, &options, (&code, &codes));
    let (stop, stopped) = watch::channel(false);
    let addresses = Addresses { https: reachable(running.https), mqtts: reachable(running.mqtts) };
    let ca = running.ca.clone();
    let clients = tokio::spawn(async move { citysim::run(devices, addresses, &ca, stopped).await });
    ending.told().await;
    println!("stopping");
    let _ = stop.send(true);
    clients.await??;
    running.stop().await;
    if temporary {
        drop(std::fs::remove_dir_all(&data));
        drop(std::fs::remove_dir_all(store::Files::new(&data, None).keys));
    }
    Ok(())
}

/// Seconds since the city was made: a replay that starts again goes on from there.
fn age_s(data: &Path) -> u64 {
    let made = std::fs::metadata(data.join("format")).and_then(|file| file.modified());
    made.ok().and_then(|made| made.elapsed().ok()).map_or(0, |age| age.as_secs())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn write_ready(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

/// Datasets, officials and devices for a new data directory; tokens again for one that is not new.
async fn settle(
    running: &Running,
    devices: Vec<Device>,
    data: &Path,
) -> anyhow::Result<(serde_json::Map<String, serde_json::Value>, Vec<(Device, String)>)> {
    let hub = &running.hub;
    // Tokens are kept nowhere in clear: a second start of the same city gets new ones.
    let is_new = hub.is_new();
    let tokens = if is_new {
        let datasets: Vec<Dataset> = serde_json::from_str(include_str!("demo_city.json"))?;
        hub.bootstrap_datasets(datasets).await?;
        let flood_response = model::Purpose {
            id: "flood-response".into(),
            title: "Warn, evacuate and help in a flood".into(),
            kind: model::PurposeKind::Service,
            emergency: true,
        };
        hub.bootstrap_purposes(vec![flood_response]).await?;
        let newcomers = officials().into_iter().chain(devices.iter().map(device)).collect();
        hub.bootstrap_principals(newcomers).await?
    } else {
        println!(
            "the city in {} is there already; its devices and officials get new tokens",
            data.display()
        );
        let logins =
            officials().into_iter().chain(devices.iter().map(device)).map(|n| n.principal.login);
        hub.renew_tokens(logins.collect(), now().plus_seconds(TOKEN_DAYS * 86_400)).await?
    };
    let mut tokens = tokens.into_iter();
    let mut works = String::new();
    let mut by_name = serde_json::Map::new();
    let mut social = String::new();
    for newcomer in officials() {
        let Some(token) = tokens.next() else { break };
        if TOKENS.contains(&newcomer.principal.login.as_str()) {
            by_name.insert(newcomer.principal.login, json!(token));
        } else if newcomer.principal.login == "steward.social" {
            social = token;
        } else if newcomer.principal.login == "steward.works" {
            works = token;
        }
    }
    let devices = devices.into_iter().zip(tokens).collect();
    if is_new {
        put_all(running, &social, "social-care", register()).await?;
        put_all(running, &works, "public-works", boundaries()).await?;
    }
    Ok((by_name, devices))
}

fn principal(
    kind: Kind,
    login: &str,
    name: &str,
    department: &str,
    roles: &[Role],
) -> NewPrincipal {
    let principal = Principal {
        kind,
        login: login.into(),
        name: name.into(),
        department: department.into(),
        roles: roles.to_vec(),
        ..Principal::public()
    };
    NewPrincipal { principal, purpose: None, expires: now().plus_seconds(TOKEN_DAYS * 86_400) }
}

/// The demo's officials, its app and the device that newcomers try things with.
fn officials() -> Vec<NewPrincipal> {
    let official = |login, name, department, roles: &[Role]| {
        principal(Kind::Official, login, name, department, roles)
    };
    let steward = [Role::Steward, Role::Department];
    let mut all = vec![
        official("admin", "Administrator (demo)", "it", &[Role::Administrator]),
        official("steward", "Steward of water (demo)", "water", &steward),
        official("crisis", "Crisis room (demo)", "crisis", &[Role::Crisis]),
        official("auditor", "Inspectorate (demo)", "inspectorate", &[Role::Auditor]),
        official("steward.environment", "Steward of environment (demo)", "environment", &steward),
        official("steward.transport", "Steward of transport (demo)", "transport", &steward),
        official("steward.works", "Steward of public works (demo)", "public-works", &steward),
        official("steward.energy", "Steward of energy (demo)", "energy", &steward),
        official("steward.social", "Steward of social affairs (demo)", "social", &steward),
        official(
            "works.official",
            "Public works, official (demo)",
            "public-works",
            &[Role::Department],
        ),
    ];
    let mut app = principal(Kind::App, "app", "A city app (demo)", "apps", &[Role::App]);
    app.principal.datasets = vec!["test".into()];
    let mut device =
        principal(Kind::Device, "device", "A gauge to try with (demo)", "water", &[Role::Device]);
    device.principal.datasets = vec!["rivers".into()];
    device.principal.streams = vec!["urn:ngsi-ld:FloodMonitoring:demo*".into()];
    all.extend([app, device]);
    all
}

fn device(device: &Device) -> NewPrincipal {
    let mut newcomer = principal(Kind::Device, &device.login, &device.login, "", &[Role::Device]);
    newcomer.principal.datasets = vec![device.dataset.to_owned()];
    newcomer.principal.streams = vec![device.entity.clone()];
    newcomer
}

fn text(text: impl Into<String>) -> Content {
    Content::Property(Value::from(text.into()))
}

fn position((lon, lat): (f64, f64)) -> Value {
    Value::List(vec![Value::Real(lon), Value::Real(lat)])
}

fn place(kind: &str, coordinates: Value) -> Content {
    Content::GeoProperty(Value::Map(vec![
        ("type".into(), Value::from(kind)),
        ("coordinates".into(), coordinates),
    ]))
}

fn put<const N: usize>(id: String, of_type: &str, attributes: [(&str, Content); N]) -> Change {
    Change::Put(Entity {
        id,
        types: vec![Name::new(of_type)],
        scopes: Vec::new(),
        created: now(),
        modified: now(),
        attributes: attributes
            .into_iter()
            .map(|(name, content)| model::Attribute {
                name: Name::new(name),
                instances: vec![Instance::of(content)],
            })
            .collect(),
    })
}

/// The simulated register of people who need help in an evacuation.
fn register() -> Vec<Change> {
    const FIRST: [&str; 8] = ["Siti", "Budi", "Asep", "Dewi", "Rina", "Agus", "Euis", "Ujang"];
    const LAST: [&str; 5] = ["Wulandari", "Santoso", "Hidayat", "Permata", "Suryana"];
    const DISTRICT: [&str; 4] = ["Coblong", "Andir", "Regol", "Lengkong"];
    const NEED: [&str; 4] = ["wheelchair", "oxygen at home", "hard of hearing", "dialysis"];
    let person = |n: usize| {
        let home =
            (107.58 + (n * 37 % 100) as f64 / 1_000.0, -6.95 + (n * 53 % 90) as f64 / 1_000.0);
        let attributes = [
            ("district", text(DISTRICT[n % 4])),
            ("name", text(format!("{} {} (simulated)", FIRST[n % 8], LAST[n % 5]))),
            ("telephone", text(format!("+62-000-{:04}", 1_000 + n))),
            ("address", text(format!("Jalan Contoh {}, RT {:02}", n + 1, n % 9 + 1))),
            ("location", place("Point", position(home))),
            ("need", text(NEED[n % 4])),
        ];
        let id = format!("urn:ngsi-ld:EvacuationAssistance:{:03}", n + 1);
        put(id, "EvacuationAssistance", attributes)
    };
    (0..PEOPLE).map(person).collect()
}

/// Simulated districts: cells of a grid whose corners were moved, so that neighbours still meet.
fn boundaries() -> Vec<Change> {
    const COLUMNS: usize = 4;
    const ROWS: usize = 3;
    let corner = |column: usize, row: usize| {
        let shift = |seed: usize| (seed * 7_919 % 101) as f64 / 100.0 - 0.5;
        let seed = column * 31 + row * 17 + 5;
        let lon = 107.545 + 0.0400 * (column as f64 + 0.45 * shift(seed));
        let lat = -6.965 + 0.0365 * (row as f64 + 0.45 * shift(seed + 40));
        ((lon * 1e5).round() / 1e5, (lat * 1e5).round() / 1e5)
    };
    let district = |n: usize| {
        let (column, row) = (n % COLUMNS, n / COLUMNS);
        let around = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)];
        let ring = around.map(|(right, up)| position(corner(column + right, row + up)));
        let attributes = [
            ("name", text(format!("Kecamatan {} (simulated)", n + 1))),
            ("location", place("Polygon", Value::List(vec![Value::List(ring.to_vec())]))),
        ];
        put(
            format!("urn:ngsi-ld:AdministrativeArea:{:02}", n + 1),
            "AdministrativeArea",
            attributes,
        )
    };
    (0..COLUMNS * ROWS).map(district).collect()
}

async fn put_all(
    running: &Running,
    token: &str,
    purpose: &str,
    changes: Vec<Change>,
) -> anyhow::Result<()> {
    let source = hub::Source { zone: model::Zone::Local, block: hub::Block::Own, browser: None };
    let credential = model::Credential::Bearer(token.to_owned());
    let session = running.hub.open(&credential, &source, Some(purpose))?;
    let report = running.hub.write(&session, changes).await?;
    for result in report.results {
        if let hub::ItemResult::Refused(error) = result {
            anyhow::bail!("the city cannot be filled: {error}");
        }
    }
    Ok(())
}

/// Says what runs, and what to try, as commands that work when pasted.
fn announce(
    running: &Running,
    data: &Path,
    tokens: &serde_json::Map<String, serde_json::Value>,
    options: &DemoOptions,
    (code, codes): (&str, &[(&str, String)]),
) {
    let https = base_url("https", running.https);
    let token =
        |name: &str| tokens.get(name).and_then(|t| t.as_str()).unwrap_or_default().to_owned();
    let ca = absolute(&running.ca).display().to_string();
    let data = absolute(data).display().to_string();
    let program = std::env::current_exe()
        .map_or_else(|_| "tanggul".into(), |path| path.display().to_string());
    let gauge = if options.replay.is_some() {
        "urn:ngsi-ld:FloodMonitoring:katulampa"
    } else {
        "urn:ngsi-ld:FloodMonitoring:gauge-0001"
    };
    let kind = if options.replay.is_some() {
        "recorded data, replayed in compressed time; lamps, meters and the register are simulated"
    } else {
        "simulated"
    };
    let logins =
        codes.iter().map(|(login, code)| format!("  as {login}: {https}/#signin={code}\n"));
    let logins: String = logins.collect();
    let ending = if options.data.is_none() {
        format!(
            "Stop with Ctrl-C: the city is gone then. One that stays: '{program}' demo --data my-city; \
             once stopped, check all of it: '{program}' verify --data my-city"
        )
    } else {
        format!("Stop with Ctrl-C; then check all of it: '{program}' verify --data '{data}'")
    };
    println!(
        "\nTanggul: a city is running ({kind}).\n\n  HTTPS  {https}\n  MQTT   {}\n  data   {data}\n  CA     {ca}\n\n\
Open the console, and choose the administrator's password with the one-time code in this link:\n  {https}/#signin={code}\n\
(The browser asks whether to trust the hub's own CA: import {ca}, or accept it for this visit.)\n{logins}\nTry, in another terminal:\n\n\
  export CA='{ca}' H='{https}'\nexport CRISIS='{}'\nexport APP='{}'\nexport AUDITOR='{}'\n\n\
  # see a river rise (again and again)\n\
  curl -s --cacert \"$CA\" $H/ngsi-ld/v1/entities/{gauge}?options=keyValues\n\n\
  # be refused, and ask why\n\
  curl -s --cacert \"$CA\" -H \"Authorization: Bearer $CRISIS\" \"$H/ngsi-ld/v1/entities?type=EvacuationAssistance\"\n\
  curl -s --cacert \"$CA\" -H \"Authorization: Bearer $CRISIS\" \"$H/api/v1/why?dataset=evacuation\"\n\n\
  # read the register for the right purpose; the answer carries a receipt\n\
  curl -si --cacert \"$CA\" -H \"Authorization: Bearer $CRISIS\" -H 'Tanggul-Purpose: flood-response' \\\n    \"$H/ngsi-ld/v1/entities?type=EvacuationAssistance&options=keyValues&limit=2\"\n\n\
  # find that read in the journal, and check its receipt offline\n\
  curl -s --cacert \"$CA\" -H \"Authorization: Bearer $AUDITOR\" \"$H/api/v1/records?dataset=evacuation&limit=1\" | tee /tmp/tanggul-record\n\
  INDEX=$(grep -o '\"index\":[0-9]*' /tmp/tanggul-record | cut -d: -f2)\n\
  until curl -s --cacert \"$CA\" $H/api/v1/receipts/$INDEX -o /tmp/tanggul-receipt -w '%{{http_code}}' | grep -q 200; do sleep 1; done\n\
  curl -s --cacert \"$CA\" $H/log/vkey > /tmp/tanggul-vkey\n\
  '{program}' log check /tmp/tanggul-receipt --vkey /tmp/tanggul-vkey\n\n\
  # flip a byte, and catch it\n\
  sed '4s/./Z/3' /tmp/tanggul-receipt > /tmp/tanggul-forged; '{program}' log check /tmp/tanggul-forged --vkey /tmp/tanggul-vkey\n\n\
{ending}\n",
        base_url("mqtts", running.mqtts),
        token("crisis"),
        token("app"),
        token("auditor"),
    );
}
