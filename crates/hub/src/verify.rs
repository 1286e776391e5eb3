//! Verification: everything is derived again, and what does not fit is named.

use crate::HubError;
use crate::kinds;
use crate::receipt::tree_of;
use crate::recorder::hex;
use crate::state::{DatasetDoc, PoliciesDoc, from_json, to_json};
use journal::{
    GroupEntry, HashReader, TILE_WIDTH, VerifyingKey, group_root, leaf_hash, verify_group_path,
};
use model::{Record, Value};
use std::collections::{HashMap, HashSet};
use store::{Finding, Store};

/// What was looked at, and what does not fit.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub records: u64,
    pub entities: u64,
    pub blobs: u64,
    pub manifests: u64,
    pub datasets: u64,
    pub findings: Vec<Finding>,
}

/// What records commit to.
#[derive(Default)]
struct Committed {
    roots: HashMap<u64, String>,
    blobs: HashSet<(i64, i64, i64, String)>,
    manifests: HashSet<(i64, i64, String)>,
    datasets: HashMap<String, String>,
    policies: Option<String>,
    /// Changes that wait for the sensitive root.
    inbox: HashSet<String>,
}

/// Verifies an open store: records against leaves, leaves against tiles and checkpoint, entities
/// and observations against records, sealed chunks against manifests, government against acts.
///
/// # Errors
/// When the engine cannot read at all.
pub fn verify(store: &Store, key: &VerifyingKey) -> Result<Report, HubError> {
    let mut report = Report::default();
    let mut committed = Committed::default();
    verify_log(store, key, &mut report, &mut committed)?;
    verify_entities(store, &mut report, &committed)?;
    let mut findings = Vec::new();
    let mut blobs = 0;
    let mut missing = Vec::new();
    store.disk_blobs(&mut findings, &mut |dataset, commit, subject, digest| {
        blobs += 1;
        let entry = (i64::from(dataset), commit.cast_signed(), subject.cast_signed(), hex(&digest));
        if !committed.blobs.contains(&entry) {
            missing.push(format!("observations of commit {commit} in dataset {dataset}"));
        }
    })?;
    let mut manifests = 0;
    store.disk_manifests(&mut findings, &mut |dataset, generation, digest| {
        manifests += 1;
        let entry = (i64::from(dataset), i64::from(generation), hex(&digest));
        if !committed.manifests.contains(&entry) {
            missing.push(format!("manifest {generation} of dataset {dataset}"));
        }
    })?;
    (report.blobs, report.manifests) = (blobs, manifests);
    report.findings.extend(findings);
    let no_record = |what| Finding { what, why: "no record commits to it as it is".into() };
    report.findings.extend(missing.into_iter().map(no_record));
    verify_government(store, &mut report, &committed)?;
    Ok(report)
}

fn verify_log(
    store: &Store,
    key: &VerifyingKey,
    report: &mut Report,
    committed: &mut Committed,
) -> Result<(), HubError> {
    let size = store.log_size();
    let log = store.log();
    let mut find =
        |what: String, why: &str| report.findings.push(Finding { what, why: why.to_owned() });
    let mut leaves = Vec::new();
    for index in 0..size {
        let what = || format!("record {index}");
        let Some(leaf) = log.leaf(index) else {
            find(what(), "its leaf is missing from the log");
            leaves.push([0; 32]);
            continue;
        };
        leaves.push(leaf);
        match store.record(index) {
            Ok(Some((salt, body))) if journal::commitment(&salt, &body) == leaf => {
                match from_json::<Record>(&body) {
                    Ok(record) => note(committed, index, &record),
                    Err(_) => find(what(), "it cannot be read"),
                }
            }
            Ok(Some(_)) => find(what(), "it is not what its leaf commits to"),
            Ok(None) => find(what(), "it is missing"),
            Err(error) => find(what(), &error.to_string()),
        }
    }
    let hashes: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    verify_tiles(&log, &hashes, &mut find);
    let tree = tree_of(leaves.iter().copied());
    let (claimed, root) = store.log_root();
    if claimed != size || root != tree.root() {
        find("the log".into(), "its tiles do not lead to the root of its leaves");
    }
    let checkpoint = store.checkpoint();
    if checkpoint.is_empty() {
        find("the checkpoint".into(), "it is missing");
    } else {
        match journal::open_checkpoint(&checkpoint, key) {
            Err(error) => find("the checkpoint".into(), &error.to_string()),
            Ok(signed) if signed.size > size => {
                find("the checkpoint".into(), "it covers more records than there are")
            }
            Ok(signed) => {
                let count = usize::try_from(signed.size).unwrap_or(usize::MAX);
                if tree_of(leaves.iter().copied().take(count)).root() != signed.root {
                    find(
                        "the checkpoint".into(),
                        "its root is not the root of the records it covers",
                    );
                }
            }
        }
    }
    report.records = size;
    Ok(())
}

/// Every stored hash of every complete tile, against the leaves.
fn verify_tiles(
    log: &dyn HashReader,
    leaves: &[journal::Hash],
    find: &mut dyn FnMut(String, &str),
) {
    let mut level_hashes = leaves.to_vec();
    for level in 0u8..8 {
        if level_hashes.is_empty() {
            return;
        }
        for (index, hash) in level_hashes.iter().enumerate() {
            if log.hash(level, index as u64) != Some(*hash) {
                find(
                    format!("tile {level}/{}", index as u64 / TILE_WIDTH),
                    "it is not the tile of its leaves",
                );
            }
        }
        let full = level_hashes.chunks_exact(256);
        level_hashes = full.map(group_root).collect();
    }
}

fn note(committed: &mut Committed, index: u64, record: &Record) {
    let detail = &record.detail;
    let text = |key: &str| detail.get(key).and_then(Value::as_text).map(str::to_owned);
    let number = |key: &str| match detail.get(key) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    };
    if let Some(root) = text("root") {
        committed.roots.insert(index, root);
        for blob in detail.get("blobs").map(Value::items).unwrap_or_default() {
            if let [
                Value::Integer(dataset),
                Value::Integer(commit),
                Value::Integer(subject),
                Value::Text(digest),
            ] = blob.items()
            {
                committed.blobs.insert((*dataset, *commit, *subject, digest.clone()));
            }
        }
    }
    if let (Some(dataset), Some(generation), Some(digest)) =
        (number("sealed"), number("generation"), text("digest"))
    {
        committed.manifests.insert((dataset, generation, digest));
    }
    if let Some(name) = text("locked") {
        committed.inbox.insert(name);
    }
    if let Some(name) = text("unlocked") {
        committed.inbox.remove(&name);
    }
    match (text("act").as_deref(), text("digest")) {
        (Some("dataset.put"), Some(digest)) => {
            committed.datasets.insert(text("dataset").unwrap_or_default(), digest);
        }
        (Some("policies.put"), Some(digest)) => committed.policies = Some(digest),
        _ => {}
    }
}

fn verify_entities(
    store: &Store,
    report: &mut Report,
    committed: &Committed,
) -> Result<(), HubError> {
    let mut found = Vec::new();
    let mut findings = Vec::new();
    let mut entities = 0;
    store.disk_states(&mut findings, &mut |state| {
        entities += 1;
        let evidence = &state.evidence;
        let item = leaf_hash(&state.digest);
        let (at, items) = (u64::from(evidence.item), u64::from(evidence.items));
        // The write's digest is the root over its items: found by walking the path.
        let digest = climb(item, at, items, &evidence.item_path);
        let holds = digest.is_some_and(|digest| {
            let entry = GroupEntry {
                writer: evidence.writer,
                dataset: state.dataset,
                count: evidence.count,
                digest,
            };
            let root = climb(
                entry.hash(),
                u64::from(evidence.position),
                u64::from(evidence.group),
                &evidence.group_path,
            );
            root.is_some_and(|root| committed.roots.get(&evidence.record) == Some(&hex(&root)))
        });
        if !holds {
            let why = format!("its state is not what record {} commits to", evidence.record);
            found.push(Finding { what: format!("entity `{}`", state.id), why });
        }
    })?;
    report.entities = entities;
    report.findings.extend(findings);
    report.findings.extend(found);
    Ok(())
}

/// The root that a path leads to from a leaf; none when the path has the wrong length.
fn climb(
    leaf: journal::Hash,
    index: u64,
    size: u64,
    path: &[journal::Hash],
) -> Option<journal::Hash> {
    if size == 0 || index >= size {
        return None;
    }
    let (mut first, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if first & 1 == 1 || first == last {
            hash = journal::node_hash(sibling, &hash);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            hash = journal::node_hash(&hash, sibling);
        }
        first >>= 1;
        last >>= 1;
    }
    (last == 0 && verify_group_path(&leaf, index, size, path, &hash)).then_some(hash)
}

fn verify_government(
    store: &Store,
    report: &mut Report,
    committed: &Committed,
) -> Result<(), HubError> {
    for (id, body) in store.documents(kinds::DATASET) {
        report.datasets += 1;
        let doc: DatasetDoc = from_json(&body)?;
        let digest = hex(&vault::digest(&to_json(&doc.dataset)));
        if committed.datasets.get(&id) != Some(&digest) {
            let why = "it is not what its last `dataset.put` record commits to".into();
            report.findings.push(Finding { what: format!("dataset `{id}`"), why });
        }
    }
    for name in &committed.inbox {
        if !store.has_document(kinds::INBOX, name)? {
            let why = "it is missing, and no record says that it was done".into();
            let what = format!("the change `{name}` that waits for the sensitive root");
            report.findings.push(Finding { what, why });
        }
    }
    if let Some(body) = store.document(kinds::POLICIES, "") {
        let doc: PoliciesDoc = from_json(&body)?;
        if committed.policies.as_ref() != Some(&hex(&vault::digest(doc.text.as_bytes()))) {
            let why = "they are not what their last `policies.put` record commits to".into();
            report.findings.push(Finding { what: "the policies".into(), why });
        }
    }
    Ok(())
}
