//! Import: files through the same door as everything else. A map says what columns mean; what does
//! not fit is reported with its line, and nothing is silently changed.

use crate::offline::client;
use crate::{Ended, Output, Remote};
use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use model::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Entities in one request.
const BATCH: usize = 1_000;
/// Faults that are listed one by one; the rest are counted.
const MAX_LISTED: usize = 1_000;

/// What `tanggul import` was asked for.
pub struct ImportOptions {
    pub file: PathBuf,
    pub map: PathBuf,
    pub dry_run: bool,
    pub purpose: Option<String>,
    pub remote: Remote,
}

/// What a file's columns mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    /// `csv` (unless said otherwise) or `jsonl`: a line an NGSI-LD entity.
    #[serde(default)]
    format: Format,
    #[serde(default = "comma")]
    delimiter: char,
    /// Rows before the first one that is read.
    #[serde(default)]
    skip: usize,
    time: Option<TimeMap>,
    entity: Option<EntityMap>,
    #[serde(default)]
    column: Vec<Column>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Csv,
    Jsonl,
}

fn comma() -> char {
    ','
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeMap {
    /// Joined with a space.
    columns: Vec<String>,
    /// `rfc3339`, or of `YYYY MM DD hh mm ss` with anything between, such as `DD-MM-YYYY`.
    format: String,
    /// `+07:00`: needed where the file states no offset.
    offset: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityMap {
    #[serde(rename = "type")]
    of_type: String,
    /// May hold `{suffix}`, and `{Column name}` for a cell.
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    attribute: String,
    #[serde(default)]
    suffix: String,
    unit: Option<String>,
    /// `number` unless said otherwise, or `text`.
    #[serde(default)]
    text: bool,
    #[serde(default)]
    decimal_comma: bool,
    /// Texts and numbers that mean "not measured".
    #[serde(default)]
    missing: Vec<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    /// Largest believable step from the value before; larger ones are kept and reported.
    max_step: Option<f64>,
    scale: Option<f64>,
}

/// Something in the file that does not fit.
struct Fault {
    line: u64,
    column: String,
    why: String,
    /// The value was sent all the same.
    kept: bool,
}

#[derive(Default)]
struct Report {
    rows: u64,
    values: u64,
    missing: u64,
    sent: u64,
    faults: Vec<Fault>,
    more_faults: u64,
    refused: BTreeMap<String, u64>,
    quarantined: u64,
}

impl Report {
    fn fault(&mut self, line: u64, column: &str, why: String, kept: bool) {
        if self.faults.len() < MAX_LISTED {
            self.faults.push(Fault { line, column: column.to_owned(), why, kept });
        } else {
            self.more_faults += 1;
        }
    }
}

/// Runs an import.
///
/// # Errors
/// When the file or map cannot be read, or the hub cannot be reached or refuses all of it.
pub async fn run(options: &ImportOptions, output: Output) -> anyhow::Result<Ended> {
    let text = std::fs::read_to_string(&options.map)
        .with_context(|| format!("the map `{}` cannot be read", options.map.display()))?;
    let map: Map = toml::from_str(&text)
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
    let entities = match map.format {
        Format::Jsonl => lines(input, &mut report)?,
        Format::Csv => table(input, &map, &mut report)?,
    };
    if let Some(sender) = &sender {
        for batch in entities.chunks(BATCH) {
            sender.send(batch, &mut report).await?;
            bar.set_message(format!("{} sent", report.sent));
        }
    }
    bar.finish_and_clear();
    print(&report, options.dry_run, output);
    let failed = report.sent == 0 && !report.refused.is_empty();
    Ok(if failed { Ended::Refused } else { Ended::Done })
}

fn lines(input: Box<dyn Read>, report: &mut Report) -> anyhow::Result<Vec<Value>> {
    let mut entities = Vec::new();
    for (number, line) in (1u64..).zip(BufReader::new(input).lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        report.rows += 1;
        match serde_json::from_str::<Value>(&line) {
            Ok(entity @ Value::Object(_)) => entities.push(entity),
            Ok(_) => report.fault(number, "", "the line is no JSON object".into(), false),
            Err(error) => report.fault(number, "", format!("no JSON: {error}"), false),
        }
    }
    Ok(entities)
}

fn table(input: Box<dyn Read>, map: &Map, report: &mut Report) -> anyhow::Result<Vec<Value>> {
    let (Some(time), Some(entity)) = (&map.time, &map.entity) else {
        bail!("a map for CSV needs `[time]` and `[entity]`");
    };
    let delimiter = u8::try_from(map.delimiter).context("the delimiter is one ASCII character")?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(input);
    let headers = reader.headers()?.clone();
    let place = |name: &str| {
        headers
            .iter()
            .position(|header| header.trim_start_matches('\u{feff}') == name)
            .with_context(|| {
                format!(
                    "there is no column `{name}`; there are: {}",
                    headers.iter().collect::<Vec<_>>().join(", ")
                )
            })
    };
    let time_columns: Vec<usize> =
        time.columns.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
    let columns: Vec<(usize, &Column)> =
        map.column.iter().map(|c| Ok((place(&c.name)?, c))).collect::<anyhow::Result<_>>()?;
    let in_id: Vec<(String, usize)> = headers
        .iter()
        .enumerate()
        .filter(|(_, h)| entity.id.contains(&format!("{{{h}}}")))
        .map(|(at, h)| (format!("{{{h}}}"), at))
        .collect();
    let clock = Clock::new(time)?;
    let mut seen = HashSet::new();
    let mut before: HashMap<(String, usize), f64> = HashMap::new();
    let mut entities = Vec::new();
    for record in reader.records().skip(map.skip) {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        report.rows += 1;
        if record.iter().all(str::is_empty) {
            continue;
        }
        let stamp = time_columns
            .iter()
            .map(|at| record.get(*at).unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ");
        let at = match clock.read(stamp.trim()) {
            Ok(at) => at,
            Err(why) => {
                report.fault(line, &time.columns.join(" "), why, false);
                continue;
            }
        };
        let mut of_row: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
        for (number, (place, column)) in columns.iter().enumerate() {
            let cell = record.get(*place).unwrap_or_default();
            let mut id = entity.id.replace("{suffix}", &column.suffix);
            for (token, at) in &in_id {
                id = id.replace(token, record.get(*at).unwrap_or_default());
            }
            let value = match read_cell(cell, column) {
                Ok(Some(value)) => value,
                Ok(None) => {
                    report.missing += 1;
                    continue;
                }
                Err(why) => {
                    report.fault(line, &column.name, why, false);
                    continue;
                }
            };
            if !seen.insert((id.clone(), number, at.0)) {
                report.fault(
                    line,
                    &column.name,
                    format!("a second value at {at}; the first is kept"),
                    false,
                );
                continue;
            }
            if let (Some(now), Some(max_step)) = (value.as_f64(), column.max_step)
                && let Some(before) = before.insert((id.clone(), number), now)
                && (now - before).abs() > max_step
            {
                report.fault(line, &column.name, format!("jumps from {before} to {now}"), true);
            }
            let value = match (value.as_f64(), column.scale) {
                (Some(number), Some(scale)) => json!((number * scale * 1e9).round() / 1e9),
                _ => value,
            };
            report.values += 1;
            let mut property =
                json!({"type": "Property", "value": value, "observedAt": at.to_string()});
            if let Some(unit) = &column.unit {
                property["unitCode"] = json!(unit);
            }
            of_row.entry(id).or_default().insert(column.attribute.clone(), property);
        }
        for (id, mut attributes) in of_row {
            attributes.insert("id".into(), json!(id));
            attributes.insert("type".into(), json!(entity.of_type));
            entities.push(Value::Object(attributes));
        }
    }
    Ok(entities)
}

/// A cell's value; none when it says "not measured".
fn read_cell(cell: &str, column: &Column) -> Result<Option<Value>, String> {
    if cell.is_empty() || column.missing.iter().any(|missing| missing == cell) {
        return Ok(None);
    }
    if column.text {
        return Ok(Some(json!(cell)));
    }
    let text = if column.decimal_comma {
        cell.replace('.', "").replace(',', ".")
    } else {
        cell.to_owned()
    };
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| format!("`{cell}` is no number"))?;
    // `-200.0` and `-200` are the same code.
    if column.missing.iter().any(|missing| missing.parse() == Ok(number)) {
        return Ok(None);
    }
    let (minimum, maximum) =
        (column.minimum.unwrap_or(f64::NEG_INFINITY), column.maximum.unwrap_or(f64::INFINITY));
    if !(minimum..=maximum).contains(&number) {
        return Err(format!("{number} is outside {minimum} to {maximum}"));
    }
    Ok(Some(json!(number)))
}

/// Reads times as the map says.
struct Clock {
    /// None: RFC 3339.
    format: Option<String>,
    offset: Option<String>,
}

impl Clock {
    fn new(map: &TimeMap) -> anyhow::Result<Clock> {
        if map.format == "rfc3339" {
            return Ok(Clock { format: None, offset: None });
        }
        let offset = map
            .offset
            .clone()
            .context("the file states no offset: give `offset`, such as \"+07:00\"")?;
        Time::parse(&format!("2000-01-01T00:00:00{offset}"))
            .context("`offset` is none such as `+07:00`")?;
        Ok(Clock { format: Some(map.format.clone()), offset: Some(offset) })
    }

    fn read(&self, text: &str) -> Result<Time, String> {
        let (Some(format), Some(offset)) = (&self.format, &self.offset) else {
            return Time::parse(text).map_err(|error| error.to_string());
        };
        let wrong = || format!("`{text}` is no time of the form `{format}`");
        let mut parts: HashMap<&str, String> = HashMap::new();
        let mut rest = text;
        let mut pattern = format.as_str();
        while !pattern.is_empty() {
            let token = ["YYYY", "MM", "DD", "hh", "mm", "ss"]
                .into_iter()
                .find(|token| pattern.starts_with(token));
            match token {
                Some(token) => {
                    let end = rest
                        .find(|c: char| !c.is_ascii_digit())
                        .unwrap_or(rest.len())
                        .min(token.len());
                    if end == 0 {
                        return Err(wrong());
                    }
                    parts.insert(token, rest[..end].to_owned());
                    (rest, pattern) = (&rest[end..], &pattern[token.len()..]);
                }
                None => {
                    let (mark, given) = (pattern.chars().next(), rest.chars().next());
                    if mark != given {
                        return Err(wrong());
                    }
                    let length = mark.map_or(1, char::len_utf8);
                    (rest, pattern) = (&rest[length..], &pattern[length..]);
                }
            }
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
        let part = |token: &str, default: &str| {
            parts.get(token).cloned().unwrap_or_else(|| default.to_owned())
        };
        let stamp = format!(
            "{:0>4}-{:0>2}-{:0>2}T{:0>2}:{:0>2}:{:0>2}{offset}",
            part("YYYY", "0"),
            part("MM", "0"),
            part("DD", "0"),
            part("hh", "0"),
            part("mm", "0"),
            part("ss", "0")
        );
        Time::parse(&stamp).map_err(|_| wrong())
    }
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
        let body: Value = response.json().await.unwrap_or_default();
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
        let entities = table(Box::new(data.as_bytes()), &map, &mut report).unwrap();
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
    fn a_naive_time_needs_an_offset() {
        let map = MAP.replace(", offset = \"+07:00\"", "");
        let map: Map = toml::from_str(&map).unwrap();
        let error =
            table(Box::new("Tanggal;RR\n".as_bytes()), &map, &mut Report::default()).unwrap_err();
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
        table(Box::new(File::open(path).unwrap()), &map, &mut report).unwrap();
        assert_eq!((report.rows, report.missing), (9_357, 1_683 + 366));
        assert_eq!(report.values, 2 * 9_357 - 1_683 - 366);
    }
}
