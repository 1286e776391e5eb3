//! Import: files through the same door as everything else. A map says what columns mean; what does
//! not fit is reported with its line, and nothing is silently changed.

mod reading;

use self::reading::{Map, Report};
use crate::offline::client;
use crate::{Ended, Output, Remote};
use anyhow::Context;
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Entities in one request.
const BATCH: usize = 1_000;
/// What `tanggul import` was asked for.
pub struct ImportOptions {
    pub file: PathBuf,
    pub map: PathBuf,
    pub dry_run: bool,
    pub purpose: Option<String>,
    pub remote: Remote,
}

/// Runs an import.
///
/// # Errors
/// When the file or map cannot be read, or the hub cannot be reached or refuses all of it.
pub async fn run(options: &ImportOptions, output: Output) -> anyhow::Result<Ended> {
    let text = std::fs::read_to_string(&options.map)
        .with_context(|| format!("the map `{}` cannot be read", options.map.display()))?;
    let map = Map::parse(&text)
        .with_context(|| format!("the map `{}` does not fit", options.map.display()))?;
    let file = File::open(&options.file)
        .with_context(|| format!("`{}` cannot be read", options.file.display()))?;
    let bar = ProgressBar::new(file.metadata()?.len());
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg} {eta}")?);
    let counted = bar.wrap_read(file);
    let gzip = options.file.extension().is_some_and(|extension| extension == "gz");
    let input: Box<dyn Read> =
        if gzip { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
    let mut report = Report::default();
    let sender = if options.dry_run { None } else { Some(Sender::new(options)?) };
    let entities = map.read(input, &mut report)?;
    if let Some(sender) = &sender {
        for batch in entities.chunks(BATCH) {
            sender.send(batch, &mut report).await?;
            bar.set_message(format!("{} sent", report.sent));
        }
    }
    bar.finish_and_clear();
    print(&report, options.dry_run, output);
    // Whoever asks by script hears that something is not there.
    Ok(if report.refused.is_empty() { Ended::Done } else { Ended::Refused })
}

struct Sender {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
    purpose: Option<String>,
}

impl Sender {
    fn new(options: &ImportOptions) -> anyhow::Result<Sender> {
        let (client, url, token) = client(&options.remote)?;
        Ok(Sender { client, url, token, purpose: options.purpose.clone() })
    }

    async fn send(&self, batch: &[Value], report: &mut Report) -> anyhow::Result<()> {
        let url = format!("{}/ngsi-ld/v1/entityOperations/upsert?options=update", self.url);
        let mut request = self.client.post(url).json(batch);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(purpose) = &self.purpose {
            request = request.header("Tanggul-Purpose", purpose);
        }
        let response = request.send().await.context("the hub cannot be reached")?;
        let status = response.status();
        let text = response.bytes().await.context("the hub's answer broke off")?;
        let body: Value = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&text).context("the hub's answer cannot be read")?,
        };
        if status == reqwest::StatusCode::MULTI_STATUS {
            let errors = body["errors"].as_array().map_or(0, Vec::len) as u64;
            report.sent += batch.len() as u64 - errors;
            for error in body["errors"].as_array().into_iter().flatten() {
                let detail = error["error"]["detail"].as_str().unwrap_or("refused").to_owned();
                if detail.contains("quarantined") {
                    report.quarantined += 1;
                }
                *report.refused.entry(detail).or_default() += 1;
            }
            return Ok(());
        }
        if !status.is_success() {
            let detail = body["detail"].as_str().unwrap_or("no reason given").to_owned();
            *report.refused.entry(detail).or_default() += batch.len() as u64;
            return Ok(());
        }
        report.sent += batch.len() as u64;
        Ok(())
    }
}

fn print(report: &Report, dry_run: bool, output: Output) {
    if output == Output::Json {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|f| json!({"line": f.line, "column": f.column, "why": f.why, "kept": f.kept}))
            .collect();
        println!(
            "{}",
            json!({
                "rows": report.rows, "values": report.values, "missing": report.missing, "sent": report.sent,
                "quarantined": report.quarantined, "refused": report.refused, "faults": faults,
                "more_faults": report.more_faults, "dry_run": dry_run,
            })
        );
        return;
    }
    for fault in &report.faults {
        let word = if fault.kept { "kept" } else { "left out" };
        println!("line {}: {}: {} ({word})", fault.line, fault.column, fault.why);
    }
    if report.more_faults > 0 {
        println!("and {} more", report.more_faults);
    }
    for (why, count) in &report.refused {
        println!("refused {count}: {why}");
    }
    let word = if dry_run { "would send" } else { "sent" };
    println!(
        "{} rows, {} values, {} not measured; {word} {}",
        report.rows,
        report.values,
        report.missing,
        if dry_run { report.values } else { report.sent },
    );
}

/// A recorded file, where it is there.
#[cfg(test)]
fn recorded(path: &str) -> Option<PathBuf> {
    let found =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    found.exists().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(map: &str, data: &'static str) -> (Vec<Value>, Report) {
        let mut report = Report::default();
        let map: Map = toml::from_str(map).unwrap();
        let entities = map.read(data.as_bytes(), &mut report).unwrap();
        (entities, report)
    }

    const MAP: &str = r#"
        delimiter = ";"
        time = { columns = ["Tanggal"], format = "DD-MM-YYYY", offset = "+07:00" }
        entity = { type = "WeatherObserved", id = "urn:ngsi-ld:WeatherObserved:{suffix}" }
        column = [
          { name = "RR", attribute = "precipitation", suffix = "bandung", unit = "MMT", decimal_comma = true,
            missing = ["-", "8888", "9999"], minimum = 0, maximum = 500, max_step = 100 },
        ]"#;

    #[test]
    fn values_codes_jumps_and_repeats() {
        let data = "Tanggal;RR\n01-01-2024;12,5\n02-01-2024;8888\n03-01-2024;-\n04-01-2024;400\n04-01-2024;1\n05-01-2024;900\n31-02-2024;1\n06/01/2024;x\n";
        let (entities, report) = read(MAP, data);
        assert_eq!(entities.len(), 2);
        assert_eq!(entities[0]["precipitation"]["value"], json!(12.5));
        assert_eq!(entities[0]["precipitation"]["observedAt"], "2023-12-31T17:00:00Z");
        assert_eq!(report.missing, 2);
        let faults: Vec<_> = report.faults.iter().map(|f| (f.line, f.kept)).collect();
        assert_eq!(faults, [(5, true), (6, false), (7, false), (8, false), (9, false)]);
    }

    #[test]
    fn what_could_mean_two_things_is_left_out_and_said() {
        let data = "Tanggal;RR\n01-01-2024;1.234,5\n02-01-2024;12.5\n03-01-2024;1.234\n\
            04-01-24;1\n05-01-2024;1;2\n06-01-2024\n07-01-2024;2;\n";
        let map =
            MAP.replace("maximum = 500", "maximum = 5000").replace("max_step = 100", "scale = 1");
        let (entities, report) = read(&map, data);
        let values: Vec<_> =
            entities.iter().map(|one| one["precipitation"]["value"].clone()).collect();
        assert_eq!(values, [json!(1234.5), json!(1234.0), json!(2.0)]);
        let faults: Vec<_> = report.faults.iter().map(|f| (f.line, f.why.as_str())).collect();
        assert_eq!(
            faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [3, 5, 6, 7],
            "{faults:?}"
        );
        let twice = MAP.replace(
            "column = [",
            "column = [{ name = \"RR\", attribute = \"precipitation\", \
            suffix = \"bandung\", decimal_comma = true },",
        );
        let (entities, report) = read(&twice, "Tanggal;RR\n01-01-2024;12,5\n");
        assert_eq!((entities.len(), report.values, report.faults.len()), (1, 1, 1));
    }

    #[test]
    fn a_naive_time_needs_an_offset() {
        let map = MAP.replace(", offset = \"+07:00\"", "");
        let map: Map = toml::from_str(&map).unwrap();
        let error = map.read("Tanggal;RR\n".as_bytes(), &mut Report::default()).unwrap_err();
        assert!(error.to_string().contains("offset"), "{error}");
        assert!(toml::from_str::<Map>("delimitr = \";\"").is_err());
    }

    #[test]
    fn recorded_air_quality_keeps_rows_with_some_values() {
        let Some(path) = recorded("city/airquality-uci/AirQuality.csv") else {
            println!("not run: the recorded data is not here");
            return;
        };
        let map = r#"
            time = { columns = ["Date", "Time"], format = "YYYY-MM-DD hh:mm:ss", offset = "+01:00" }
            entity = { type = "AirQualityObserved", id = "urn:ngsi-ld:AirQualityObserved:uci" }
            column = [
              { name = "CO(GT)", attribute = "co", unit = "GP", missing = ["-200"] },
              { name = "T", attribute = "temperature", unit = "CEL", missing = ["-200"] },
            ]"#;
        let map: Map = toml::from_str(map).unwrap();
        let mut report = Report::default();
        map.read(File::open(path).unwrap(), &mut report).unwrap();
        assert_eq!((report.rows, report.missing), (9_357, 1_683 + 366));
        assert_eq!(report.values, 2 * 9_357 - 1_683 - 366);
    }
}
