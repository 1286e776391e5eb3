//! The figures of the hub: load through the doors of the release binary, with TLS, decisions,
//! records and encryption on. Prints CPU time of the server for each operation, which a busy
//! machine leaves alone, and the rate on the wall, which it does not; beside them what peers do in
//! the same run. Where something is asked of a figure, it says whether it is met.
//!
//! usage: bench PROGRAM [json] [SECTION...]; sections: doors entities ingest mqtt journal notify share
//! consoles peers, and, only where named, for they are long: city growth devices cold

mod asked;
mod city;
mod client;
mod cold;
mod consoles;
mod doors;
mod entities;
mod growth;
mod history;
mod journal;
mod load;
mod mqtt;
mod notify;
mod peers;
mod process;
mod share;

use anyhow::Context;
use process::Hub;
use serde_json::json;
use std::io::Write;
use std::time::Instant;

/// What was measured.
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

/// The figures of a run, printed as they come.
pub struct Figures {
    all: Vec<Figure>,
    quiet: bool,
}

impl Figures {
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let figure = Figure { name: name.into(), value, unit };
        if !self.quiet {
            let asked = asked::of(&figure.name).map_or_else(String::new, |asked| {
                let met = if asked.is_met(value) { "met" } else { "NOT MET" };
                format!("   asked: {asked}: {met}")
            });
            println!("{:<64} {:>14.3} {}{asked}", figure.name, figure.value, figure.unit);
        }
        self.all.push(figure);
    }

    /// A rate, what it cost the server, and how many a CPU-second makes.
    pub fn rate(&mut self, name: &str, what: &'static str, done: f64, wall_s: f64, cpu_s: f64) {
        self.add(format!("{name}: rate"), done / wall_s, what);
        self.add(format!("{name}: per CPU-second of the server"), done / cpu_s.max(0.01), what);
        self.add(format!("{name}: CPU each"), cpu_s / done * 1e6, "us");
    }

    /// What was measured under a name that begins and ends so.
    pub fn value(&self, begin: &str, end: &str) -> Option<f64> {
        let is_it = |figure: &&Figure| figure.name.starts_with(begin) && figure.name.ends_with(end);
        self.all.iter().find(is_it).map(|figure| figure.value)
    }
}

/// Runs when no section is named.
const SHORT: [&str; 9] =
    ["doors", "entities", "ingest", "mqtt", "journal", "notify", "share", "consoles", "peers"];
/// Run only where they are named, for they are long.
const LONG: [&str; 4] = ["city", "growth", "devices", "cold"];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("usage: bench PROGRAM [json] [SECTION...]")?;
    let (format, named): (Vec<String>, Vec<String>) = arguments.partition(|word| word == "json");
    for word in &named {
        let known = SHORT.iter().chain(&LONG).any(|section| section == word);
        anyhow::ensure!(known, "there is no section `{word}`, but {SHORT:?} and {LONG:?}");
    }
    let sections = if named.is_empty() { SHORT.map(str::to_owned).to_vec() } else { named };
    let mut figures = Figures { all: Vec::new(), quiet: !format.is_empty() };
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(async {
        disk(&mut figures)?;
        for section in &sections {
            measure(section, &program, &mut figures).await.with_context(|| section.clone())?;
        }
        anyhow::Ok(())
    });
    if figures.quiet {
        let list: Vec<_> = figures
            .all
            .iter()
            .map(|f| {
                let asked = asked::of(&f.name);
                json!({
                    "name": f.name, "value": f.value, "unit": f.unit,
                    "asked": asked.map(|asked| asked.to_string()),
                    "met": asked.map(|asked| asked.is_met(f.value)),
                })
            })
            .collect();
        println!("{}", json!(list));
    }
    ended
}

async fn measure(section: &str, program: &str, figures: &mut Figures) -> anyhow::Result<()> {
    match section {
        "doors" => doors::measure(&Hub::start(program)?, program, figures).await,
        "entities" => entities::measure(Hub::start(program)?, figures).await,
        "ingest" => history::measure(Hub::start(program)?, figures).await,
        "mqtt" => mqtt::measure(&Hub::start(program)?, figures).await,
        "journal" => journal::measure(&Hub::start(program)?, figures).await,
        "notify" => notify::measure(&Hub::start(program)?, figures).await,
        "share" => share::measure(Hub::start(program)?, figures).await,
        "consoles" => consoles::measure(Hub::start(program)?, figures).await,
        "city" => city::measure(Hub::start(program)?, figures).await,
        "growth" => growth::measure(program, figures).await,
        "devices" => growth::devices(program, figures).await,
        "cold" => cold::measure(figures),
        _ => peers::measure(figures).await,
    }
}

/// How long the disk takes to make a little durable: what every durable write waits for at least.
fn disk(figures: &mut Figures) -> anyhow::Result<()> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let since = Instant::now();
        file.write_all(&[1; 4_096])?;
        file.sync_data()?;
        times.push(since.elapsed());
    }
    figures.add("the disk: 4 KiB made durable, p50", load::quantile_ms(&mut times, 0.5), "ms");
    Ok(())
}
