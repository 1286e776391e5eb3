//! Recorded data, replayed in compressed time: an hour of a river in a second. Values that the
//! files mark as missing are left out; what looks wrong is sent as it is, for the hub to judge.

use flate2::read::GzDecoder;
use model::Time;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Why recorded data cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("`{0}` cannot be read; give the folder that holds `flood/` and `city/`")]
    File(String, #[source] std::io::Error),
    #[error("`{0}` is not the table it should be")]
    Table(String, #[source] csv::Error),
    #[error("`{0}` has no column `{1}`")]
    Column(String, String),
}

/// One recorded device.
pub struct Recorded {
    pub slug: String,
    pub name: String,
    pub dataset: &'static str,
    pub of_type: &'static str,
    pub entity: String,
    pub lon: f64,
    pub lat: f64,
    /// Attribute, unit, factor on the recorded number.
    attributes: Vec<(&'static str, &'static str, f64)>,
    pub rows: Vec<(Time, Vec<Option<f64>>)>,
    /// Between two readings.
    pub pause: Duration,
}

impl Recorded {
    /// The values of a row that are there.
    pub fn values(
        &self,
        row: &(Time, Vec<Option<f64>>),
    ) -> Vec<(&'static str, &'static str, Value)> {
        let present =
            |((name, unit, factor), value): (&(&'static str, &'static str, f64), &Option<f64>)| {
                let number = (value.as_ref()? * factor * 1e6).round() / 1e6;
                Some((*name, *unit, json!(number)))
            };
        self.attributes.iter().zip(&row.1).filter_map(present).collect()
    }
}

/// How a file's times are written.
#[derive(Clone, Copy)]
enum Clock {
    /// RFC 3339 in one column.
    Stated,
    /// `YYYY-MM-DD HH:MM:SS` without a zone: these seconds east of UTC.
    Naive(i64),
    /// `DD-MM-YYYY` or `DD/MM/YYYY`, local midnight.
    DayFirst(i64),
    /// A date and a time in two columns, without a zone.
    TwoColumns(i64),
}

struct Source<'a> {
    file: &'a str,
    slug: &'a str,
    name: &'a str,
    dataset: &'static str,
    of_type: &'static str,
    place: (f64, f64),
    time: &'a [&'a str],
    clock: Clock,
    /// Column, attribute, unit, factor.
    columns: &'a [(&'a str, &'static str, &'static str, f64)],
    pause_ms: u64,
    skip: usize,
}

const WIB_S: i64 = 7 * 3600;

/// Every device that the recorded data gives.
///
/// # Errors
/// When a file is missing or has another form.
pub fn load(root: &Path) -> Result<Vec<Recorded>, ReplayError> {
    let rivers = "flood/ciliwung/ciliwung_hourly_2021_2025.csv.gz";
    let river = |column, slug, name, place| Source {
        file: rivers,
        slug,
        name,
        dataset: "rivers",
        of_type: "FloodMonitoring",
        place,
        time: &["t_wib"],
        clock: Clock::Stated,
        columns: column,
        pause_ms: 1_000,
        // The rainy season of 2022, before the flood of early October.
        skip: 7_200,
    };
    let weather = |file, slug, name, place| Source {
        file,
        slug,
        name,
        dataset: "weather",
        of_type: "WeatherObserved",
        place,
        time: &["TANGGAL"],
        clock: Clock::DayFirst(WIB_S),
        columns: &[
            ("TAVG", "temperature", "CEL", 1.0),
            ("RH_AVG", "relativeHumidity", "C62", 0.01),
            ("RR", "precipitation", "MMT", 1.0),
            ("FF_AVG", "windSpeed", "MTS", 1.0),
        ],
        pause_ms: 3_000,
        skip: 0,
    };
    let traffic = |file, slug, name, columns| Source {
        file,
        slug,
        name,
        dataset: "traffic",
        of_type: "TrafficFlowObserved",
        place: (0.0, 0.0),
        time: &["timestamp"],
        clock: Clock::Naive(-5 * 3600),
        columns,
        pause_ms: 1_000,
        skip: 0,
    };
    let sources = [
        river(
            &[("katulampa_cm", "currentLevel", "CMT", 1.0)],
            "katulampa",
            "Katulampa (recorded)",
            (106.837_141, -6.633_498),
        ),
        river(
            &[("depok_cm", "currentLevel", "CMT", 1.0)],
            "depok",
            "Depok (recorded)",
            (106.831_571, -6.400_541),
        ),
        river(
            &[("manggarai_cm", "currentLevel", "CMT", 1.0)],
            "manggarai",
            "Manggarai (recorded)",
            (106.848_399, -6.207_838),
        ),
        weather(
            "city/weather-bmkg-jabar/Kota_Bandung.csv",
            "bandung",
            "Geofisika Bandung (recorded)",
            (107.597_33, -6.883_56),
        ),
        weather(
            "city/weather-bmkg-jabar/Kota_Bogor.csv",
            "kota-bogor",
            "Klimatologi Jawa Barat (recorded)",
            (106.75, -6.5),
        ),
        weather(
            "city/weather-bmkg-jabar/Kab._Bogor.csv",
            "citeko",
            "Citeko (recorded)",
            (106.85, -6.7),
        ),
        weather(
            "city/weather-bmkg-jabar/Kab._Majalengka.csv",
            "kertajati",
            "Kertajati (recorded)",
            (108.263, -6.7344),
        ),
        traffic(
            "city/traffic-nab/speed_7578.csv",
            "speed-7578",
            "Road 7578 (recorded)",
            &[("value", "averageVehicleSpeed", "KMH", 1.609_344)],
        ),
        traffic(
            "city/traffic-nab/speed_6005.csv",
            "speed-6005",
            "Road 6005 (recorded)",
            &[("value", "averageVehicleSpeed", "KMH", 1.609_344)],
        ),
        traffic(
            "city/traffic-nab/occupancy_t4013.csv",
            "occupancy-4013",
            "Road 4013 (recorded)",
            &[("value", "occupancy", "C62", 0.01)],
        ),
        Source {
            file: "city/airquality-uci/AirQuality.csv",
            slug: "air-uci",
            name: "Air station (recorded)",
            dataset: "air",
            of_type: "AirQualityObserved",
            place: (0.0, 0.0),
            time: &["Date", "Time"],
            clock: Clock::TwoColumns(3600),
            columns: &[
                ("CO(GT)", "co", "GP", 1.0),
                ("NO2(GT)", "no2", "GQ", 1.0),
                ("NOx(GT)", "nox", "61", 1.0),
                ("T", "temperature", "CEL", 1.0),
                ("RH", "relativeHumidity", "C62", 0.01),
            ],
            pause_ms: 1_000,
            skip: 0,
        },
        Source {
            file: "city/water-flow/water-flow.csv",
            slug: "pipe",
            name: "Water main (recorded)",
            dataset: "pipes",
            of_type: "WaterObserved",
            place: (0.0, 0.0),
            time: &["Time"],
            clock: Clock::Stated,
            columns: &[("Water flow [l/s]", "flow", "G51", 1.0)],
            pause_ms: 1_000,
            skip: 0,
        },
    ];
    sources.iter().map(|source| read(root, source)).collect()
}

fn read(root: &Path, source: &Source<'_>) -> Result<Recorded, ReplayError> {
    let path = root.join(source.file);
    let shown = path.display().to_string();
    let file = File::open(&path).map_err(|error| ReplayError::File(shown.clone(), error))?;
    let input: Box<dyn Read> =
        if source.file.ends_with(".gz") { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let mut table =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(input);
    let headers =
        table.headers().map_err(|error| ReplayError::Table(shown.clone(), error))?.clone();
    let place = |name: &str| {
        let found = headers.iter().position(|header| header == name);
        found.ok_or_else(|| ReplayError::Column(shown.clone(), name.to_owned()))
    };
    let time: Vec<usize> = source.time.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
    let columns: Vec<usize> =
        source.columns.iter().map(|(name, ..)| place(name)).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for record in table.records().skip(source.skip) {
        let record = record.map_err(|error| ReplayError::Table(shown.clone(), error))?;
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let stamps: Vec<&str> = time.iter().map(|at| cell(*at)).collect();
        let Some(at) = instant(source.clock, &stamps) else { continue };
        let values: Vec<Option<f64>> = columns.iter().map(|at| value(cell(*at))).collect();
        if values.iter().any(Option::is_some) {
            rows.push((at, values));
        }
    }
    Ok(Recorded {
        slug: source.slug.to_owned(),
        name: source.name.to_owned(),
        dataset: source.dataset,
        of_type: source.of_type,
        entity: format!("urn:ngsi-ld:{}:{}", source.of_type, source.slug),
        lon: source.place.0,
        lat: source.place.1,
        attributes: source
            .columns
            .iter()
            .map(|(_, name, unit, factor)| (*name, *unit, *factor))
            .collect(),
        rows,
        pause: Duration::from_millis(source.pause_ms),
    })
}

/// A number, with a decimal point or comma; none for blanks and the codes that mean "not measured".
fn value(cell: &str) -> Option<f64> {
    let number: f64 = cell.replace(',', ".").parse().ok()?;
    let missing = [8888.0, 9999.0, -200.0];
    (number.is_finite() && !missing.contains(&number)).then_some(number)
}

fn instant(clock: Clock, cells: &[&str]) -> Option<Time> {
    match (clock, cells) {
        (Clock::Stated, [text]) => Time::parse(text).ok(),
        (Clock::Naive(east_s), [text]) => {
            Some(Time::parse(&format!("{}Z", text.replace(' ', "T"))).ok()?.plus_seconds(-east_s))
        }
        (Clock::DayFirst(east_s), [text]) => {
            let parts: Vec<&str> = text.split(['-', '/']).collect();
            let [day, month, year] = parts.as_slice() else { return None };
            let date =
                Time::from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, 0)?;
            Some(date.plus_seconds(-east_s))
        }
        (Clock::TwoColumns(east_s), [date, time]) => {
            Some(Time::parse(&format!("{date}T{time}Z")).ok()?.plus_seconds(-east_s))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        assert_eq!(value("23,6"), Some(23.6));
        for missing in ["", "-", "8888", "-200.0", "-200", "NaN"] {
            assert_eq!(value(missing), None, "{missing}");
        }
        let show = |clock, cells: &[&str]| instant(clock, cells).map(|at| at.to_string());
        assert_eq!(show(Clock::DayFirst(WIB_S), &["01/08/2024"]).unwrap(), "2024-07-31T17:00:00Z");
        assert_eq!(
            show(Clock::Naive(-18_000), &["2015-09-01 11:25:00"]).unwrap(),
            "2015-09-01T16:25:00Z"
        );
        assert_eq!(
            show(Clock::TwoColumns(3600), &["2004-03-10", "18:00:00"]).unwrap(),
            "2004-03-10T17:00:00Z"
        );
        assert_eq!(
            show(Clock::Stated, &["2022-03-27T03:00:00+02:00"]).unwrap(),
            "2022-03-27T01:00:00Z"
        );
        assert_eq!(show(Clock::DayFirst(0), &["KETERANGAN :"]), None);
    }
}
