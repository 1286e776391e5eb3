//! What works on a stopped hub, and on files that left it.

use crate::{Data, Ended, Output, Remote};
use anyhow::Context;
use journal::{
    Hash, Receipt, TileKind, TilePath, VerifyingKey, open_checkpoint, read_entries_bundle,
};
use serde_json::json;
use std::path::Path;
use store::{Files, Store, StoreError};

fn open(data: &Data) -> Result<Store, StoreError> {
    Store::open(Files::new(&data.data, data.keys.as_deref()), store::Options::default())
}

fn key_of(store: &Store) -> anyhow::Result<VerifyingKey> {
    let checkpoint = store.checkpoint();
    let origin = checkpoint.lines().next().filter(|line| !line.is_empty());
    let origin = origin.context("the log has no checkpoint yet")?;
    let seed = store.derived_key("log signing key");
    Ok(journal::SigningKey::from_seed(origin, seed.bytes())?.verifying_key())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))
}

/// Verifies a stopped hub, and that its log has grown out of a checkpoint that was kept.
pub fn verify(data: &Data, since: Option<&Path>, output: Output) -> anyhow::Result<Ended> {
    let kept = since.map(read_text).transpose()?;
    let store = match open(data) {
        Ok(store) => store,
        Err(
            error @ (StoreError::Damaged(_)
            | StoreError::Shorter { .. }
            | StoreError::Keys(_)
            | StoreError::Engine(_)),
        ) => {
            print_findings(output, None, &[("the data directory".into(), error.to_string())]);
            return Ok(Ended::Unverified);
        }
        Err(error) => return Err(error.into()),
    };
    let key = key_of(&store)?;
    let mut report = hub::verify(&store, &key)?;
    if let Some(kept) = kept {
        report.findings.extend(hub::verify_since(&store, &key, &kept)?);
    }
    let findings: Vec<_> =
        report.findings.iter().map(|f| (f.what.clone(), f.why.clone())).collect();
    store.close();
    let counts = json!({
        "records": report.records, "entities": report.entities, "blobs": report.blobs,
        "manifests": report.manifests, "datasets": report.datasets,
    });
    print_findings(output, Some(&counts), &findings);
    Ok(if findings.is_empty() { Ended::Done } else { Ended::Unverified })
}

fn print_findings(
    output: Output,
    counts: Option<&serde_json::Value>,
    findings: &[(String, String)],
) {
    if output == Output::Json {
        let list: Vec<_> =
            findings.iter().map(|(what, why)| json!({"what": what, "why": why})).collect();
        println!("{}", json!({"clean": findings.is_empty(), "checked": counts, "findings": list}));
        return;
    }
    for (what, why) in findings {
        println!("does not fit: {what}: {why}");
    }
    if let Some(counts) = counts.and_then(|counts| counts.as_object()) {
        let text: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        println!("checked {}", text.join(", "));
    }
    println!("{}", if findings.is_empty() { "everything fits" } else { "verification failed" });
}

/// Writes the log as files.
pub fn export(data: &Data, out: &Path) -> anyhow::Result<Ended> {
    let store = open(data)?;
    let key = key_of(&store)?;
    let checkpoint = store.checkpoint();
    let size = open_checkpoint(&checkpoint, &key)?.size;
    let log = store.log();
    write_export(out, &key.to_string(), &checkpoint, size, |path| {
        log.tile(path, size).with_context(|| format!("`{path}` is missing from the log"))
    })?;
    store.close();
    Ok(Ended::Done)
}

fn write_export(
    out: &Path,
    vkey: &str,
    checkpoint: &str,
    size: u64,
    mut tile: impl FnMut(TilePath) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    for path in TilePath::all(size) {
        let file = out.join(path.to_string());
        std::fs::create_dir_all(file.parent().unwrap_or(out))?;
        std::fs::write(&file, tile(path)?)?;
    }
    std::fs::write(out.join("vkey"), format!("{}\n", vkey.trim()))?;
    std::fs::write(out.join("checkpoint"), checkpoint)?;
    println!("exported {size} records to {}", out.display());
    Ok(())
}

/// The HTTP client for a running hub.
pub fn client(remote: &Remote) -> anyhow::Result<(reqwest::Client, String, Option<String>)> {
    let url = remote.hub.clone().context("give `--hub URL`")?.trim_end_matches('/').to_owned();
    // A token goes over nothing that others can read.
    anyhow::ensure!(url.starts_with("https://"), "`--hub {url}` does not begin with `https://`");
    let mut builder = reqwest::Client::builder().no_proxy();
    if let Some(ca) = &remote.ca {
        let pem =
            std::fs::read(ca).with_context(|| format!("`{}` cannot be read", ca.display()))?;
        builder = builder.tls_certs_only([reqwest::Certificate::from_pem(&pem)?]);
    }
    let token = match &remote.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("`{}` cannot be read", path.display()))?
                .trim()
                .to_owned(),
        ),
        None => None,
    };
    Ok((builder.build()?, url, token))
}

/// Writes the log of a running hub as files.
pub async fn export_remote(remote: &Remote, out: &Path) -> anyhow::Result<Ended> {
    let (client, url, _) = client(remote)?;
    let get = |path: String| {
        let request = client.get(format!("{url}/log/{path}"));
        async move { anyhow::Ok(request.send().await?.error_for_status()?.bytes().await?.to_vec()) }
    };
    let vkey = String::from_utf8(get("vkey".into()).await?)?;
    let checkpoint = String::from_utf8(get("checkpoint".into()).await?)?;
    let size = open_checkpoint(&checkpoint, &VerifyingKey::parse(&vkey)?)?.size;
    let mut tiles = std::collections::HashMap::new();
    for path in TilePath::all(size) {
        tiles.insert(path.to_string(), get(path.to_string()).await?);
    }
    write_export(out, &vkey, &checkpoint, size, |path| {
        tiles.remove(&path.to_string()).with_context(|| format!("`{path}` is missing"))
    })?;
    Ok(Ended::Done)
}

/// Prints a record's receipt.
pub fn prove(data: &Data, index: u64) -> anyhow::Result<Ended> {
    let store = open(data)?;
    let checkpoint = store.checkpoint();
    let size = open_checkpoint(&checkpoint, &key_of(&store)?)?.size;
    let log = store.log();
    let proof = journal::inclusion_proof(&log, index, size);
    let (Some(proof), Some(commitment)) = (proof, log.leaf(index)) else {
        anyhow::bail!("the checkpoint covers {size} records, and {index} is none of them");
    };
    print!("{}", Receipt { commitment, index, proof, checkpoint });
    store.close();
    Ok(Ended::Done)
}

/// Checks a receipt offline.
pub fn check(receipt: &Path, vkey: &Path) -> anyhow::Result<Ended> {
    let key = VerifyingKey::parse(&read_text(vkey)?)?;
    let text = match std::fs::read(receipt) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context(format!("`{}` cannot be read", receipt.display())));
        }
    };
    let checked =
        Receipt::parse(&text).and_then(|receipt| receipt.verify(&key).map(|at| (receipt, at)));
    match checked {
        Ok((receipt, at)) => {
            println!(
                "record {} is in the log `{}` of {} records",
                receipt.index, at.origin, at.size
            );
            Ok(Ended::Done)
        }
        Err(error) => {
            println!("the receipt does not hold: {error}");
            Ok(Ended::Unverified)
        }
    }
}

/// Checks exported files: every byte of every file is accounted for, and the log has grown out of a
/// checkpoint that was kept.
pub fn verify_export(
    directory: &Path,
    since: Option<&Path>,
    output: Output,
) -> anyhow::Result<Ended> {
    let kept = since.map(read_text).transpose()?;
    let findings = export_findings(directory, kept.as_deref());
    print_findings(output, None, &findings);
    Ok(if findings.is_empty() { Ended::Done } else { Ended::Unverified })
}

fn export_findings(directory: &Path, kept: Option<&str>) -> Vec<(String, String)> {
    let mut findings = Vec::new();
    let mut find = |what: String, why: String| findings.push((what, why));
    let read = |name: &str| std::fs::read(directory.join(name)).map_err(|error| error.to_string());
    let text = |name: &str| {
        read(name).and_then(|bytes| String::from_utf8(bytes).map_err(|e| e.to_string()))
    };
    let key = match text("vkey").and_then(|vkey| {
        let key = VerifyingKey::parse(&vkey).map_err(|e| e.to_string())?;
        if format!("{key}\n") == vkey {
            Ok(key)
        } else {
            Err("it is not written as it should be".into())
        }
    }) {
        Ok(key) => key,
        Err(why) => {
            find("vkey".into(), why);
            return findings;
        }
    };
    let checkpoint = match text("checkpoint")
        .and_then(|note| open_checkpoint(&note, &key).map_err(|e| e.to_string()))
    {
        Ok(checkpoint) => checkpoint,
        Err(why) => {
            find("checkpoint".into(), why);
            return findings;
        }
    };
    let mut leaves: Vec<Hash> = Vec::new();
    for path in
        TilePath::all(checkpoint.size).into_iter().filter(|path| path.kind == TileKind::Entries)
    {
        let bundle = read(&path.to_string()).and_then(|bytes| {
            let leaves =
                read_entries_bundle(&bytes).filter(|leaves| leaves.len() as u64 == path.width);
            leaves.ok_or_else(|| "it is no bundle of as many leaves as it should hold".into())
        });
        match bundle {
            Ok(found) => leaves.extend(found),
            Err(why) => {
                find(path.to_string(), why);
                return findings;
            }
        }
    }
    let mut level: Vec<Hash> = leaves.iter().map(|leaf| journal::leaf_hash(leaf)).collect();
    for number in 0u8..8 {
        for (index, chunk) in level.chunks(256).enumerate() {
            let path = TilePath {
                kind: TileKind::Hashes(number),
                index: index as u64,
                width: chunk.len() as u64,
            };
            match read(&path.to_string()) {
                Ok(bytes) if bytes == chunk.concat() => {}
                Ok(_) => find(path.to_string(), "it is not the tile of its leaves".into()),
                Err(why) => find(path.to_string(), why),
            }
        }
        level = level.chunks_exact(256).map(journal::group_root).collect();
    }
    if let Some(why) = checkpoint.disagrees(&leaves) {
        find("checkpoint".into(), why.into());
    }
    if let Some(kept) = kept {
        let why = match open_checkpoint(kept, &key) {
            Err(error) => Some(error.to_string()),
            Ok(kept) => kept.disagrees(&leaves).map(str::to_owned),
        };
        why.into_iter().for_each(|why| find("the checkpoint that was kept".into(), why));
    }
    findings
}
