//! What an import reads: a map that says what columns mean, a file, and what of it does not fit.

use anyhow::{Context, bail};
use model::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};

/// Faults that are listed one by one; the rest are counted.
const MAX_LISTED: usize = 1_000;

/// What a file's columns mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// `csv` (unless said otherwise), `jsonl`: a line an NGSI-LD entity, or `geojson`: features.
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
    GeoJson,
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

impl Map {
    /// Reads a map.
    ///
    /// # Errors
    /// When it is no map: the error names the line.
    pub fn parse(text: &str) -> Result<Map, toml::de::Error> {
        toml::from_str(text)
    }

    /// Reads a file as the map says: entities in the order of its rows; what does not fit goes into
    /// the report.
    ///
    /// # Errors
    /// When the file cannot be read on, or the map speaks of columns that are not there.
    pub fn read(&self, input: impl Read, report: &mut Report) -> anyhow::Result<Vec<Value>> {
        match self.format {
            Format::Jsonl => lines(input, report),
            Format::Csv => table(input, self, report),
            Format::GeoJson => features(input, self, report),
        }
    }
}

/// Something in the file that does not fit.
pub struct Fault {
    pub line: u64,
    pub column: String,
    pub why: String,
    /// The value was sent all the same.
    pub kept: bool,
}

#[derive(Default)]
pub struct Report {
    pub rows: u64,
    pub values: u64,
    pub missing: u64,
    pub sent: u64,
    pub faults: Vec<Fault>,
    pub more_faults: u64,
    pub refused: BTreeMap<String, u64>,
    pub quarantined: u64,
}

impl Report {
    pub fn fault(&mut self, line: u64, column: &str, why: String, kept: bool) {
        if self.faults.len() < MAX_LISTED {
            self.faults.push(Fault { line, column: column.to_owned(), why, kept });
        } else {
            self.more_faults += 1;
        }
    }
}

fn lines(input: impl Read, report: &mut Report) -> anyhow::Result<Vec<Value>> {
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

/// Features of a collection (RFC 7946): their geometry is the entity's `location`, properties are
/// columns. They have no times.
fn features(input: impl Read, map: &Map, report: &mut Report) -> anyhow::Result<Vec<Value>> {
    let entity = map.entity.as_ref().context("a map for GeoJSON needs `[entity]`")?;
    let whole: Value = serde_json::from_reader(BufReader::new(input)).context("no JSON")?;
    let features = whole["features"].as_array().context("no collection of features")?;
    let (mut ids, mut entities) = (HashSet::new(), Vec::new());
    for (number, feature) in (1u64..).zip(features) {
        report.rows += 1;
        let cell = |name: &str| match &feature["properties"][name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut id = entity.id.clone();
        let names = feature["properties"].as_object().into_iter().flat_map(|all| all.keys());
        for name in names {
            // What stands in an id must stand in a URI.
            let plain = cell(name).replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
            id = id.replace(&format!("{{{name}}}"), &plain);
        }
        if id.contains('{') {
            report.fault(number, "", format!("the id `{id}` is not filled"), false);
            continue;
        }
        if !ids.insert(id.clone()) {
            report.fault(number, "", format!("a second `{id}`; the first is kept"), false);
            continue;
        }
        if !feature["geometry"].is_object() {
            report.fault(number, "", "the feature has no geometry".into(), false);
            continue;
        }
        let location = json!({"type": "GeoProperty", "value": feature["geometry"]});
        let mut made = json!({"id": id, "type": entity.of_type, "location": location});
        for column in &map.column {
            match read_cell(&cell(&column.name), column) {
                Ok(Some(value)) => {
                    report.values += 1;
                    made[&column.attribute] = json!({"type": "Property", "value": value});
                }
                Ok(None) => report.missing += 1,
                Err(why) => report.fault(number, &column.name, why, false),
            }
        }
        entities.push(made);
    }
    Ok(entities)
}

fn table(input: impl Read, map: &Map, report: &mut Report) -> anyhow::Result<Vec<Value>> {
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
        let more = record.iter().skip(headers.len()).any(|cell| !cell.is_empty());
        if more || record.len() < headers.len() {
            // Which cell is of which column is not known.
            let (there, named) = (record.len(), headers.len());
            report.fault(
                line,
                "",
                format!("the row has {there} cells, for {named} columns"),
                false,
            );
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
            let mut property =
                json!({"type": "Property", "value": value, "observedAt": at.to_string()});
            if let Some(unit) = &column.unit {
                property["unitCode"] = json!(unit);
            }
            let attributes = of_row.entry(id).or_default();
            if attributes.contains_key(&column.attribute) {
                let what = format!("a second value of `{}`; the first is kept", column.attribute);
                report.fault(line, &column.name, what, false);
                continue;
            }
            report.values += 1;
            attributes.insert(column.attribute.clone(), property);
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
    let text = if column.decimal_comma { with_point(cell)? } else { cell.to_owned() };
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

/// A number with a decimal comma, its points between thousands left out.
fn with_point(cell: &str) -> Result<String, String> {
    let (whole, part) =
        cell.split_once(',').map_or((cell, None), |(whole, part)| (whole, Some(part)));
    let mut groups = whole.trim_start_matches(['+', '-']).split('.');
    let first = groups.next().unwrap_or_default();
    let in_thousands = (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3);
    if whole.contains('.') && !in_thousands {
        return Err(format!("`{cell}` has a point where no thousands end, and a decimal comma"));
    }
    let part = part.map(|part| format!(".{part}")).unwrap_or_default();
    Ok(whole.replace('.', "") + &part)
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
                    // Of two digits nobody knows the century.
                    if end == 0 || (token == "YYYY" && end < token.len()) {
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
