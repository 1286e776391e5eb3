//! What a group's record commits to.

use super::Group;
use crate::recorder::{hex, record};
use journal::{GroupEntry, Hash, group_paths, leaf_hash};
use model::{Record, Value, Verb};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::{Batch, Evidence, Packed, Rows, Under};

/// The small tree of a group and what it says of each entity.
#[derive(Default)]
pub struct Entries {
    pub leaves: Vec<Hash>,
    pub evidence: HashMap<u64, Arc<Evidence>>,
    pub per_subject: HashMap<u64, bool>,
    /// Entities that get a document, encoded.
    pub packed: HashMap<u64, Packed>,
    pub digests: HashMap<u64, Hash>,
    pub of_job: HashMap<usize, (u32, Hash)>,
    /// By leaf: its path to the root.
    pub paths: Vec<Vec<Hash>>,
    pub root: Hash,
}

/// A count that cannot exceed what a group may hold.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Group<'_> {
    /// The small tree: a leaf for each write and dataset, over the digests of what it wrote.
    pub fn entries(&self) -> Entries {
        let mut entries = Entries::default();
        let mut items: BTreeMap<(usize, u32), Vec<(Option<u64>, Hash)>> = BTreeMap::new();
        for ((job, dataset), rows) in &self.rows {
            let about_people = self.about_people.contains(dataset);
            let digests = self.hub.store.rows_digests(*dataset, about_people, rows);
            let digests = digests.into_iter().map(|digest| (None, digest));
            items.entry((*job, *dataset)).or_default().extend(digests);
        }
        for work in self.works.values() {
            let about_people = if work.job == super::UPKEEP {
                self.hub.store.entity_by_number(work.number).is_some_and(|held| held.per_subject)
            } else {
                work.model.about_people
            };
            entries.per_subject.insert(work.number, about_people);
            if work.durable {
                let under = Under::of(work.dataset, about_people, work.number);
                let packed = Packed::of(&work.entity, &work.series);
                let digest = self.hub.store.state_digest(under, work.number, &packed, work.deleted);
                entries.packed.insert(work.number, packed);
                entries.digests.insert(work.number, digest);
                items
                    .entry((work.job, work.dataset))
                    .or_default()
                    .push((Some(work.number), digest));
            }
        }
        let record = self.hub.store.log_size();
        for ((job, dataset), items) in items {
            let hashes: Vec<Hash> = items.iter().map(|(_, digest)| leaf_hash(digest)).collect();
            let (item_paths, digest) = group_paths(&hashes);
            let (writer, count) = match self.jobs.get(job) {
                Some((write, results)) => (write.writer, results.len()),
                None => (1, items.len()),
            };
            let entry = GroupEntry { writer, dataset, count: small(count), digest };
            let position = small(entries.leaves.len());
            entries.of_job.entry(job).or_insert((position, entry.hash()));
            entries.leaves.push(entry.hash());
            for (at, ((number, _), item_path)) in items.iter().zip(item_paths).enumerate() {
                let Some(number) = number else { continue };
                let evidence = Evidence {
                    record,
                    position,
                    writer,
                    count: entry.count,
                    item: small(at),
                    items: small(hashes.len()),
                    item_path,
                    ..Evidence::default()
                };
                entries.evidence.insert(*number, Arc::new(evidence));
            }
        }
        let (paths, root) = group_paths(&entries.leaves);
        for evidence in entries.evidence.values_mut() {
            let evidence = Arc::make_mut(evidence);
            evidence.group = small(entries.leaves.len());
            evidence.group_path.clone_from(&paths[evidence.position as usize]);
        }
        (entries.paths, entries.root) = (paths, root);
        entries
    }

    pub fn group_record(&self, entries: &Entries, batch: &Batch) -> Record {
        let mut blobs = Vec::new();
        let mut note = |commit: u64, rows: &Rows| {
            for (subject, digest) in rows.digests() {
                blobs.push(Value::List(vec![
                    Value::Integer(i64::from(rows.dataset)),
                    Value::Integer(commit.cast_signed()),
                    Value::Integer(subject.cast_signed()),
                    Value::from(hex(&digest)),
                ]));
            }
        };
        let commit = self.hub.store.next_commit();
        batch.rows.iter().for_each(|rows| note(commit, rows));
        for sealed in &batch.sealed {
            sealed.residual.iter().for_each(|part| note(sealed.upto, part));
        }
        let states = batch.states.iter().map(|states| {
            let mut said = vec![
                Value::Integer(i64::from(states.of)),
                Value::from(hex(&states.sum.to_bytes())),
            ];
            said.extend(states.before.map(|before| Value::from(hex(&before.to_bytes()))));
            Value::List(said)
        });
        let mut detail = vec![
            ("root", Value::from(hex(&entries.root))),
            ("writes", Value::Integer(entries.leaves.len() as i64)),
            ("blobs", Value::List(blobs)),
        ];
        if !batch.states.is_empty() {
            detail.push(("states", Value::List(states.collect())));
        }
        let detail = Value::Map(detail.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        record(&self.hub.own_session(), Verb::Write, "", self.now, detail)
    }
}
