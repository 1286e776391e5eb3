//! Verification: everything is derived again, and what does not fit is named.

use crate::HubError;
use crate::kept::{DatasetDoc, PoliciesDoc, from_json, to_json};
use crate::kinds;
use crate::receipt::tree_of;
use crate::recorder::hex;
use journal::{
    GroupEntry, HashReader, MultisetHash, TILE_WIDTH, VerifyingKey, group_root, leaf_hash,
    verify_group_path,
};
use model::{Record, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use store::{DiskManifest, Finding, GOVERNING, Store, Under};

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

/// By dataset and commit: record, subject and digest of each blob.
type Blobs = BTreeMap<(i64, i64), Vec<(u64, i64, String)>>;

/// What records commit to.
#[derive(Default)]
struct Committed {
    roots: HashMap<u64, String>,
    /// Unsealed observations, by dataset and commit.
    blobs: Blobs,
    /// The last record of a group.
    group: u64,
    /// Datasets with a seal of version 0.1.0, which does not say how far it went.
    unbounded: HashSet<i64>,
    /// Digests of lists of sealed points: by dataset and generation, chunks and segments.
    manifests: BTreeMap<(i64, i64), [Option<String>; 2]>,
    datasets: HashMap<String, String>,
    policies: Option<String>,
    /// Datasets whose keys were deleted by an act.
    shredded: HashSet<String>,
    /// Changes that wait for the sensitive root.
    inbox: HashSet<String>,
    /// The last record that says what the states of a dataset, or what governs, are together.
    states: HashMap<u32, (u64, String)>,
    /// Records that went on from other states than those of the record before.
    leaps: Vec<(u32, u64)>,
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
    let (sums, closed) = verify_entities(store, &mut report, &committed)?;
    verify_states(store, &mut report, &committed, sums, &closed);
    verify_keys(store, &mut report, &committed)?;
    verify_government(store, &mut report, &committed)?;
    verify_observations(store, &mut report, committed.blobs, &committed.unbounded)?;
    verify_sealed(store, &mut report, committed.manifests)?;
    Ok(report)
}

/// Every record against its leaf, and the leaves against root and checkpoint, one after the other: for a
/// hub that goes on meanwhile. The rest of [`verify`] wants a store at rest.
///
/// # Errors
/// When a leaf or record cannot be read.
pub(crate) fn verify_live_log(store: &Store, key: &VerifyingKey) -> Result<Report, HubError> {
    let checkpoint = journal::open_checkpoint(&store.checkpoint(), key);
    let (size, root) = store.log_root();
    let mut report = Report { records: size, ..Report::default() };
    let mut find = |what: String, why: &str| {
        report.findings.push(Finding { what, why: why.to_owned() });
    };
    let log = store.log();
    let mut tree = journal::Tree::default();
    let mut signed = None;
    for index in 0..size {
        match &checkpoint {
            Ok(checkpoint) if checkpoint.size == index => signed = Some(tree.root()),
            _ => {}
        }
        let what = || format!("record {index}");
        let Some(leaf) = log.leaf(index) else {
            find(what(), "its leaf is missing from the log");
            continue;
        };
        tree.push(&leaf);
        match store.record(index) {
            Ok(Some((salt, body))) if journal::commitment(&salt, &body) == leaf => {}
            Ok(Some(_)) => find(what(), "it is not what its leaf commits to"),
            Ok(None) => find(what(), "it is missing"),
            Err(error) => find(what(), &error.to_string()),
        }
    }
    if tree.root() != root {
        find("the log".into(), "its leaves do not lead to its root");
    }
    match checkpoint {
        Ok(checkpoint) => {
            let signed = if checkpoint.size == size { Some(tree.root()) } else { signed };
            if signed != Some(checkpoint.root) {
                find("the checkpoint".into(), "the log is not what was signed");
            }
        }
        Err(error) => find("the checkpoint".into(), &error.to_string()),
    }
    Ok(report)
}

/// Whether the log is what it was when somebody kept a checkpoint of it, or has grown out of that: a
/// store that was put back to an earlier state fits in itself.
///
/// # Errors
/// When a leaf cannot be read.
pub fn verify_since(
    store: &Store,
    key: &VerifyingKey,
    kept: &str,
) -> Result<Option<Finding>, HubError> {
    let log = store.log();
    let missing = |index: u64| {
        HubError::Storage(store::StoreError::Damaged(format!("the log: leaf {index} is missing")))
    };
    let leaf = |index: u64| log.leaf(index).ok_or_else(|| missing(index));
    let leaves = (0..store.log_size()).map(leaf).collect::<Result<Vec<_>, _>>()?;
    let why = match journal::open_checkpoint(kept, key) {
        Err(error) => Some(error.to_string()),
        Ok(signed) => signed.disagrees(&leaves).map(str::to_owned),
    };
    Ok(why.map(|why| Finding { what: "the checkpoint that was kept".into(), why }))
}

fn unrecorded(what: String) -> Finding {
    Finding { what, why: "no record commits to it as it is".into() }
}

fn missing(what: String) -> Finding {
    Finding { what, why: "it is missing, and no record says that it was done with".into() }
}

/// What cannot be opened any more is gone by an act, or it is a loss.
fn verify_keys(store: &Store, report: &mut Report, committed: &Committed) -> Result<(), HubError> {
    let datasets = store.documents(kinds::DATASET);
    for (number, values) in store.orphans()? {
        let mut ids = datasets.iter().filter_map(|(id, body)| {
            let doc: DatasetDoc = from_json(body).ok()?;
            (doc.number == number).then_some(id)
        });
        if !ids.any(|id| committed.shredded.contains(id)) {
            let what = format!("{values} values of dataset {number}");
            let why = "their key was deleted, and no act did that".into();
            report.findings.push(Finding { what, why });
        }
    }
    Ok(())
}

/// Unsealed observations, both ways: all that is there is recorded, all that is recorded is there.
fn verify_observations(
    store: &Store,
    report: &mut Report,
    mut recorded: Blobs,
    unbounded: &HashSet<i64>,
) -> Result<(), HubError> {
    let mut findings = Vec::new();
    let what =
        |dataset: i64, commit: i64| format!("observations of commit {commit} in dataset {dataset}");
    let mut strange = Vec::new();
    store.disk_blobs(&mut findings, &mut |dataset, commit, subject, digest| {
        report.blobs += 1;
        let (dataset, commit) = (i64::from(dataset), commit.cast_signed());
        let digest = digest.map(|digest| hex(&digest));
        let known = recorded.entry((dataset, commit)).or_default();
        let same = known.iter().position(|(_, of, recorded)| {
            *of == subject.cast_signed() && digest.as_ref().is_none_or(|found| found == recorded)
        });
        match same {
            Some(at) => drop(known.swap_remove(at)),
            None => strange.push(unrecorded(what(dataset, commit))),
        }
    })?;
    // What was found and does not open is named already.
    let lost = recorded
        .into_iter()
        .filter(|((dataset, _), blobs)| !blobs.is_empty() && !unbounded.contains(dataset));
    let lost = lost.map(|((dataset, commit), _)| missing(what(dataset, commit)));
    if findings.is_empty() {
        report.findings.extend(lost);
    }
    report.findings.extend(findings);
    report.findings.extend(strange);
    Ok(())
}

/// Lists of sealed points, both ways.
fn verify_sealed(
    store: &Store,
    report: &mut Report,
    mut recorded: BTreeMap<(i64, i64), [Option<String>; 2]>,
) -> Result<(), HubError> {
    let mut findings = Vec::new();
    let what =
        |dataset: i64, generation: i64| format!("manifest {generation} of dataset {dataset}");
    let mut strange = Vec::new();
    store.disk_manifests(&mut findings, &mut |found: DiskManifest| {
        report.manifests += 1;
        let key = (i64::from(found.dataset), i64::from(found.generation));
        let of_seal = recorded.get_mut(&key);
        let known = of_seal.and_then(|known| known[usize::from(found.segments)].take());
        if known.is_none() || found.digest.is_some_and(|digest| known != Some(hex(&digest))) {
            strange.push(unrecorded(what(key.0, key.1)));
        }
    })?;
    let lost = recorded.into_iter().filter(|(_, known)| known.iter().any(Option::is_some));
    let lost = lost.map(|((dataset, generation), _)| missing(what(dataset, generation)));
    if findings.is_empty() {
        report.findings.extend(lost);
    }
    report.findings.extend(findings);
    report.findings.extend(strange);
    Ok(())
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
        let why = match journal::open_checkpoint(&checkpoint, key) {
            Err(error) => Some(error.to_string()),
            Ok(signed) => signed.disagrees(&leaves).map(str::to_owned),
        };
        why.into_iter().for_each(|why| find("the checkpoint".into(), &why));
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
        committed.group = index;
        for blob in detail.get("blobs").map(Value::items).unwrap_or_default() {
            if let [
                Value::Integer(dataset),
                Value::Integer(commit),
                Value::Integer(subject),
                Value::Text(digest),
            ] = blob.items()
            {
                let of_commit = committed.blobs.entry((*dataset, *commit)).or_default();
                of_commit.push((index, *subject, digest.clone()));
            }
        }
    }
    for states in detail.get("states").map(Value::items).unwrap_or_default() {
        if let [Value::Integer(of), Value::Text(sum), from @ ..] = states.items()
            && let Ok(of) = u32::try_from(*of)
        {
            let before = committed.states.insert(of, (index, sum.clone()));
            if before.is_some_and(|(_, before)| from != [Value::Text(before)]) {
                committed.leaps.push((of, index));
            }
        }
    }
    if let (Some(dataset), Some(generation)) = (number("sealed"), number("generation")) {
        if let Some(merged) = number("merged") {
            let gone = committed.manifests.range_mut((dataset, merged)..(dataset, generation));
            gone.for_each(|(_, [_, segments])| *segments = None);
        }
        let lists = [text("digest"), text("segments")];
        committed.manifests.insert((dataset, generation), lists);
        let upto = number("upto").unwrap_or(-1);
        if upto < 0 {
            committed.unbounded.insert(dataset);
        }
        // What it wrote anew, as if it had come in the last commit it covers, is in its group.
        let group = number("rewritten").map(|_| committed.group);
        let covered = committed.blobs.range_mut((dataset, i64::MIN)..=(dataset, upto));
        covered.for_each(|(_, blobs)| blobs.retain(|(record, ..)| Some(*record) == group));
        committed.blobs.retain(|_, blobs| !blobs.is_empty());
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
        (Some("dataset.shred"), _) => {
            committed.shredded.insert(text("dataset").unwrap_or_default());
        }
        _ => {}
    }
}

fn verify_entities(
    store: &Store,
    report: &mut Report,
    committed: &Committed,
) -> Result<(HashMap<u32, MultisetHash>, HashSet<u32>), HubError> {
    let mut found = Vec::new();
    let mut findings = Vec::new();
    let mut entities = 0;
    let mut sums: HashMap<u32, MultisetHash> = HashMap::new();
    // Keys of these are to be deleted: no record counts them any more.
    let leaving: HashSet<Under> = crate::shredding::noted(store)
        .into_iter()
        .filter(|shred| !shred.keys.is_empty())
        .map(|shred| shred.under)
        .collect();
    let closed = store.disk_states(&mut findings, &leaving, &mut |state| {
        entities += 1;
        let goes = [Under::Dataset(state.dataset), Under::Subject(state.dataset, state.number)];
        if !goes.iter().any(|under| leaving.contains(under)) {
            sums.entry(state.dataset).or_default().add(&state.digest);
        }
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
    Ok((sums, closed))
}

/// All states of a dataset, and all that governs, against the last record that says what they are
/// together: a document that was put back alone is as whole as it was.
fn verify_states(
    store: &Store,
    report: &mut Report,
    committed: &Committed,
    mut sums: HashMap<u32, MultisetHash>,
    closed: &HashSet<u32>,
) {
    let datasets = store.documents(kinds::DATASET);
    let name = |of: u32| {
        let dataset = datasets.iter().find(|(_, body)| {
            from_json::<DatasetDoc>(body).is_ok_and(|dataset| dataset.number == of)
        });
        match dataset {
            _ if of == GOVERNING => {
                "principals, credentials, datasets, policies, subscriptions and contexts".to_owned()
            }
            Some((id, _)) => format!("the entities of dataset `{id}`"),
            None => format!("the entities of dataset number {of}"),
        }
    };
    sums.insert(GOVERNING, store.count_documents_of(&kinds::GOVERNING));
    let said: BTreeMap<_, _> = committed.states.iter().collect();
    for (of, (record, sum)) in said.into_iter().filter(|(of, _)| !closed.contains(of)) {
        let kept = store.states(*of).map(|sum| hex(&sum.to_bytes()));
        let there = hex(&sums.get(of).copied().unwrap_or_default().to_bytes());
        if there != *sum || kept.as_ref() != Some(sum) {
            let why = format!(
                "they are not those of record {record}: one was put back, taken away or added"
            );
            report.findings.push(Finding { what: name(*of), why });
        }
    }
    for (of, record) in &committed.leaps {
        let why = format!(
            "record {record} went on from others than the record before it left: one was put back, taken away or added in between"
        );
        report.findings.push(Finding { what: name(*of), why });
    }
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
    let mut waiting = if store.is_sealed() {
        // Their names cannot be read, but counted.
        usize::try_from(store.inbox()).unwrap_or(usize::MAX)
    } else {
        store.documents(kinds::INBOX).len()
    };
    for name in &committed.inbox {
        if store.has_document(kinds::INBOX, name)? {
            waiting = waiting.saturating_sub(1);
        } else {
            let why = "it is missing, and no record says that it was done".into();
            let what = format!("the change `{name}` that waits for the sensitive root");
            report.findings.push(Finding { what, why });
        }
    }
    if waiting > 0 {
        let what = "changes that wait for the sensitive root".into();
        let why = format!("{waiting} more than records tell of: what was done was put back");
        report.findings.push(Finding { what, why });
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
