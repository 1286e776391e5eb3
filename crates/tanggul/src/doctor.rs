//! What an operator asks first: limits, and what would keep a hub from working here.

use crate::config::Config;
use crate::{Ended, Output};
use serde_json::json;
use std::path::Path;

/// Prints every limit.
///
/// # Errors
/// When the configuration cannot be used.
pub fn limits(config: Option<&Path>, output: Output) -> anyhow::Result<()> {
    let config = config.map(Config::read).transpose()?.unwrap_or_default();
    let (doors, own) = config.limits()?;
    let all = doors.all().into_iter().chain(own.all()).chain(hub::FIXED_LIMITS.iter().copied());
    if output == Output::Json {
        let list: Vec<_> = all
            .map(|l| json!({"name": l.name, "value": l.value, "unit": l.unit, "answer": l.answer}))
            .collect();
        println!("{}", json!(list));
        return Ok(());
    }
    println!("{:<24} {:>12}  {:<28} answer when hit", "limit", "value", "unit");
    for limit in all {
        println!("{:<24} {:>12}  {:<28} {}", limit.name, limit.value, limit.unit, limit.answer);
    }
    Ok(())
}

/// Looks at the machine and a configuration.
///
/// # Errors
/// When the configuration cannot be read.
pub fn run(config: Option<&Path>, output: Output) -> anyhow::Result<Ended> {
    let config = match config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let mut checks: Vec<(&str, Result<String, String>)> = Vec::new();
    checks.push((
        "contexts",
        config.context_documents().map(|c| format!("{} known", c.len())).map_err(|e| e.to_string()),
    ));
    for (name, address) in [("https", config.listen.https), ("mqtt", config.listen.mqtt)] {
        let bound = std::net::TcpListener::bind(address);
        checks.push((
            name,
            bound.map(|_| format!("{address} is free")).map_err(|e| {
                format!("{address}: {e}; stop what listens there, or change `listen`")
            }),
        ));
    }
    if let Some(data) = &config.data {
        let files = store::Files::new(data, config.keys.as_deref());
        checks.push((
            "data",
            if files.exist() { Ok("there".into()) } else { Ok("new: made at first start".into()) },
        ));
        checks.push(("keys", modes(&files.keys)));
    }
    let limit = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let handles = limit
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    checks.push((
        "file handles",
        match handles {
            Some(count) if count < 16_384 => {
                Err(format!("{count}; many devices need more: raise `LimitNOFILE`"))
            }
            Some(count) => Ok(count.to_string()),
            None => Ok("no limit known".into()),
        },
    ));
    let healthy = checks.iter().all(|(_, result)| result.is_ok());
    if output == Output::Json {
        let list: Vec<_> = checks.iter().map(|(name, result)| json!({"check": name, "fine": result.is_ok(), "what": match result { Ok(w) | Err(w) => w }})).collect();
        println!("{}", json!(list));
    } else {
        for (name, result) in &checks {
            match result {
                Ok(what) => println!("fine     {name}: {what}"),
                Err(what) => println!("trouble  {name}: {what}"),
            }
        }
    }
    Ok(if healthy { Ended::Done } else { Ended::Refused })
}

/// Whether nobody else can read the keys.
fn modes(keys: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(keys) {
        Err(_) => Ok("new: made at first start".into()),
        Ok(found) if found.permissions().mode() & 0o077 == 0 => {
            Ok("readable by the hub alone".into())
        }
        Ok(_) => Err(format!("others can read `{}`: chmod 700 it", keys.display())),
    }
}
