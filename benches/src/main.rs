//! The figures of the hub: load through the doors of the release binary, with TLS, decisions,
//! records and encryption on. Prints CPU time of the server for each operation, which a busy
//! machine leaves alone, and the rate on the wall, which it does not; beside them what peers do in
//! the same run.
//!
//! usage: bench PROGRAM [json] [SECTION...]; sections: doors entities ingest mqtt journal notify share
//! consoles peers, and, only where named, for they are long: city growth devices cold

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
            println!("{:<64} {:>14.3} {}", figure.name, figure.value, figure.unit);
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

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let program = arguments.first().context("usage: bench PROGRAM [json] [SECTION...]")?;
    let quiet = arguments.iter().any(|argument| argument == "json");
    let sections: Vec<&str> =
        arguments[1..].iter().map(String::as_str).filter(|word| *word != "json").collect();
    let wanted = |section: &str| sections.is_empty() || sections.contains(&section);
    let mut figures = Figures { all: Vec::new(), quiet };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if wanted("doors") {
            let hub = Hub::start(program)?;
            figures.add("ready after start", hub.ready_in.as_secs_f64(), "s");
            figures.add("memory, idle", hub.process.memory_mib(), "MiB");
            let binary = std::fs::metadata(program)?.len() as f64;
            figures.add("binary", binary / f64::from(1 << 20), "MiB");
            doors::measure(&hub, &mut figures).await?;
        }
        if wanted("entities") {
            entities::measure(Hub::start(program)?, &mut figures).await?;
        }
        if wanted("ingest") {
            history::measure(Hub::start(program)?, &mut figures).await?;
        }
        if wanted("mqtt") {
            mqtt::measure(&Hub::start(program)?, &mut figures).await?;
        }
        if wanted("journal") {
            journal::measure(&Hub::start(program)?, &mut figures).await?;
        }
        if wanted("notify") {
            notify::measure(&Hub::start(program)?, &mut figures).await?;
        }
        if wanted("share") {
            share::measure(Hub::start(program)?, &mut figures).await?;
        }
        if wanted("consoles") {
            consoles::measure(Hub::start(program)?, &mut figures).await?;
        }
        if sections.contains(&"city") {
            city::measure(Hub::start(program)?, &mut figures).await?;
        }
        if sections.contains(&"growth") {
            growth::measure(program, &mut figures).await?;
        }
        if sections.contains(&"devices") {
            growth::devices(program, &mut figures).await?;
        }
        if sections.contains(&"cold") {
            cold::measure(&mut figures)?;
        }
        if wanted("peers") {
            peers::measure(&mut figures).await?;
        }
        anyhow::Ok(())
    })?;
    if quiet {
        let list: Vec<_> = figures
            .all
            .iter()
            .map(|f| json!({"name": f.name, "value": f.value, "unit": f.unit}))
            .collect();
        println!("{}", json!(list));
    }
    Ok(())
}
