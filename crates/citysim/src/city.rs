//! Which devices the city has, and what each sends next.

use crate::replay::{self, Recorded, ReplayError};
use model::Time;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the city is made.
#[derive(Clone, Debug)]
pub struct CityOptions {
    /// The same seed gives the same city.
    pub seed: u64,
    /// How many devices in all.
    pub devices: usize,
    /// Recorded data to replay instead of simulating rivers, weather, air, traffic and pipes.
    pub replay: Option<PathBuf>,
    /// How long the city has been replaying already, in seconds.
    pub age_s: u64,
}

/// By which door a device comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Mqtt,
    Https,
}

/// One device.
pub struct Device {
    /// Client id and login.
    pub login: String,
    pub dataset: &'static str,
    pub entity: String,
    pub door: Door,
    pub feed: Feed,
}

/// Where readings come from.
pub struct Feed {
    of_type: &'static str,
    kind: Kind,
    random: Random,
    lon: f64,
    lat: f64,
    name: String,
    sent: u64,
    /// Where a replay begins.
    first: u64,
    started: Option<Time>,
}

enum Kind {
    River { base: f64, delay_s: f64 },
    Weather,
    Air,
    Traffic,
    Light,
    Meter { total: f64 },
    Replay(Arc<Recorded>),
}

/// A small, seeded generator (SplitMix64): the same city every time.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// Seconds from calm to the top of the simulated flood, and from one flood to the next.
const RISE_S: f64 = 600.0;
const FLOOD_PERIOD_S: f64 = 3_600.0;

/// The devices of the city.
///
/// # Errors
/// When recorded data was asked for and cannot be read.
pub fn city(options: &CityOptions) -> Result<Vec<Device>, ReplayError> {
    let mut random = Random(options.seed);
    let mut devices = Vec::with_capacity(options.devices);
    let recorded = options.replay.as_deref().map(replay::load).transpose()?;
    let simulated = recorded.is_none();
    for series in recorded.unwrap_or_default() {
        let pause_ms = u64::try_from(series.pause.as_millis()).unwrap_or(1).max(1);
        let first = options.age_s * 1_000 / pause_ms;
        devices.push(Device {
            login: format!("replay-{}", series.slug),
            dataset: series.dataset,
            entity: series.entity.clone(),
            door: Door::Mqtt,
            feed: Feed::new(
                series.of_type,
                series.name.clone(),
                (series.lon, series.lat),
                &mut random,
                Kind::Replay(Arc::new(series)),
            )
            .starting_at(first),
        });
    }
    let share = |part: usize| (options.devices * part).div_ceil(1_000);
    if simulated {
        add(
            &mut devices,
            share(24),
            "rivers",
            "FloodMonitoring",
            "gauge",
            &mut random,
            |random, n| Kind::River { base: random.between(40.0, 90.0), delay_s: n as f64 * 20.0 },
        );
        add(
            &mut devices,
            share(24),
            "weather",
            "WeatherObserved",
            "weather",
            &mut random,
            |_, _| Kind::Weather,
        );
        add(&mut devices, share(30), "air", "AirQualityObserved", "air", &mut random, |_, _| {
            Kind::Air
        });
        add(
            &mut devices,
            share(160),
            "traffic",
            "TrafficFlowObserved",
            "road",
            &mut random,
            |_, _| Kind::Traffic,
        );
    }
    add(
        &mut devices,
        share(262),
        "meters",
        "SmartMeteringObservation",
        "meter",
        &mut random,
        |random, _| Kind::Meter { total: random.between(100.0, 9_000.0) },
    );
    let lights = options.devices.saturating_sub(devices.len());
    add(&mut devices, lights, "streetlights", "Streetlight", "light", &mut random, |_, _| {
        Kind::Light
    });
    Ok(devices)
}

fn add(
    devices: &mut Vec<Device>,
    count: usize,
    dataset: &'static str,
    of_type: &'static str,
    word: &str,
    random: &mut Random,
    mut kind: impl FnMut(&mut Random, usize) -> Kind,
) {
    for number in 1..=count {
        // Around the centre of Bandung.
        let place = (random.between(107.55, 107.70), random.between(-6.96, -6.86));
        let kind = kind(random, number);
        devices.push(Device {
            login: format!("{word}-{number:04}"),
            dataset,
            entity: format!("urn:ngsi-ld:{of_type}:{word}-{number:04}"),
            // Half of the lamps come by the other door.
            door: if word == "light" && number % 2 == 0 { Door::Https } else { Door::Mqtt },
            feed: Feed::new(of_type, format!("{word} {number} (simulated)"), place, random, kind),
        });
    }
}

impl Feed {
    fn new(
        of_type: &'static str,
        name: String,
        (lon, lat): (f64, f64),
        random: &mut Random,
        kind: Kind,
    ) -> Feed {
        Feed {
            of_type,
            kind,
            random: Random(random.next()),
            lon,
            lat,
            name,
            sent: 0,
            first: 0,
            started: None,
        }
    }

    /// The same feed, from a later row of its recording on.
    fn starting_at(mut self, first: u64) -> Feed {
        self.first = first;
        self
    }

    /// The next reading, and how long until the one after it; none when there is no more.
    pub fn next(&mut self, entity: &str, now: Time) -> Option<(Value, Duration)> {
        let started = *self.started.get_or_insert(now);
        let elapsed_s = (now.0 - started.0) as f64 / 1e6;
        let mut reading = json!({"id": entity, "type": self.of_type});
        let at = now.to_string();
        let pause = match &self.kind {
            Kind::Replay(recorded) => {
                let recorded = recorded.clone();
                let row = recorded.rows.get(usize::try_from(self.first + self.sent).ok()?)?;
                for (name, unit, value) in recorded.values(row) {
                    reading[name] = property(value, unit, &row.0.to_string());
                }
                recorded.pause
            }
            kind => {
                for (name, unit, value) in simulate(kind, &mut self.random, elapsed_s) {
                    reading[name] = property(value, unit, &at);
                }
                let seconds = if matches!(kind, Kind::River { .. }) { 5.0 } else { 20.0 };
                Duration::from_secs_f64(seconds * self.random.between(0.8, 1.2))
            }
        };
        if let Kind::Meter { total } = &mut self.kind {
            *total += 0.02;
        }
        if self.sent == 0 {
            reading["name"] = json!({"type": "Property", "value": self.name});
            if self.lon != 0.0 {
                reading["location"] = json!({"type": "GeoProperty", "value": {"type": "Point", "coordinates": [round(self.lon, 5), round(self.lat, 5)]}});
            }
            if matches!(self.kind, Kind::River { .. }) {
                reading["alertLevel"] =
                    json!({"type": "Property", "value": 150, "unitCode": "CMT"});
                reading["dangerLevel"] =
                    json!({"type": "Property", "value": 220, "unitCode": "CMT"});
            }
        }
        self.sent += 1;
        Some((reading, pause))
    }
}

fn property(value: Value, unit: &str, at: &str) -> Value {
    let mut property = json!({"type": "Property", "value": value, "observedAt": at});
    if !unit.is_empty() {
        property["unitCode"] = json!(unit);
    }
    property
}

fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

type Reading = (&'static str, &'static str, Value);

fn simulate(kind: &Kind, random: &mut Random, elapsed_s: f64) -> Vec<Reading> {
    let number = |value: f64, digits| json!(round(value, digits));
    match kind {
        Kind::River { base, delay_s } => {
            // A flood that comes down the river: upstream gauges rise first.
            let phase = (elapsed_s - delay_s).max(0.0) % FLOOD_PERIOD_S;
            let wave = if phase < RISE_S {
                phase / RISE_S
            } else {
                (1.0 - (phase - RISE_S) / 1_800.0).max(0.0)
            };
            let level = base + 180.0 * wave * wave * (3.0 - 2.0 * wave) + random.between(-1.0, 1.0);
            vec![("currentLevel", "CMT", number(level, 1))]
        }
        Kind::Weather => vec![
            ("temperature", "CEL", number(random.between(22.0, 29.0), 1)),
            ("relativeHumidity", "C62", number(random.between(0.6, 0.98), 2)),
            ("precipitation", "MMT", number(random.between(0.0, 12.0), 1)),
            ("windSpeed", "MTS", number(random.between(0.0, 6.0), 1)),
        ],
        Kind::Air => vec![
            ("pm25", "GQ", number(random.between(8.0, 60.0), 1)),
            ("no2", "GQ", number(random.between(10.0, 70.0), 1)),
        ],
        Kind::Traffic => vec![
            ("intensity", "", json!(random.between(50.0, 1_400.0) as i64)),
            ("averageVehicleSpeed", "KMH", number(random.between(8.0, 55.0), 1)),
            ("occupancy", "C62", number(random.between(0.02, 0.6), 3)),
        ],
        Kind::Light => vec![
            ("powerState", "", json!(if random.unit() < 0.97 { "on" } else { "low" })),
            ("status", "", json!(if random.unit() < 0.99 { "ok" } else { "defectiveLamp" })),
            ("illuminanceLevel", "C62", number(random.between(0.7, 1.0), 2)),
        ],
        Kind::Meter { total } => vec![("totalConsumption", "KWH", number(*total, 2))],
        Kind::Replay(_) => Vec::new(),
    }
}
