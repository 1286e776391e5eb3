//! The store against a model of itself: whatever order points, deletions, seals, retention, key
//! rotation and restarts come in, histories are what a plain map says they are.

use crate::{
    Batch, Document, EntityWrite, Evidence, Files, Options, Packed, Point, Rewrap, Row, RowValue,
    SealPlan, Series, Store, StoreError, Under,
};
use model::{Content, Entity, Instance, Name, Time, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

const DATASET: u32 = 1;
const SERIES: u32 = 5;
/// The one whose points are whole instances.
const RICH: u32 = 4;

fn open(directory: &TempDir) -> Result<Store, StoreError> {
    let files = Files::new(&directory.path().join("data"), None);
    if !files.exist() {
        files.create()?;
    }
    Store::open(files, Options { min_free_bytes: 0, ..Options::default() })
}

fn series(number: u32) -> Series {
    Series {
        number,
        name: Name::new(&format!("a{number}")),
        instance_id: None,
        unit: None,
        observed: true,
        rich: number == RICH,
    }
}

/// Encrypts everything anew; gives the keys that nothing lies under any more.
fn older_keys(store: &Store) -> Vec<u32> {
    let mut from = None;
    loop {
        match store.rewrap(DATASET, from, 3).unwrap() {
            Rewrap::Done(older) => return older,
            Rewrap::GoesOn(at) => from = Some(at),
        }
    }
}

/// Long texts are sealed before they fill the memory, however few they are.
#[test]
fn long_texts_are_sealed_by_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    let when = SealPlan { max_open_bytes: 1 << 16, ..SealPlan::default() };
    let text = |length: usize| Instance::of(Content::Property(Value::from("x".repeat(length))));
    let commit = |at: i64, length: usize| {
        let value = RowValue::Rich(Box::new(text(length)));
        let row = Row { entity: 1, series: RICH, at: Time(at), value };
        let rows = vec![store.encode_rows(DATASET, false, vec![row], Time(at))];
        store.commit(Batch { rows, time: Time(at), ..Batch::default() }).unwrap();
    };
    commit(1, 40_000);
    assert!(store.plan_seal(DATASET, false, when).unwrap().is_none());
    commit(2, 40_000);
    let sealed = store.plan_seal(DATASET, false, when).unwrap().unwrap();
    store.commit(Batch { sealed: vec![sealed], ..Batch::default() }).unwrap();
    assert!(store.plan_seal(DATASET, false, when).unwrap().is_none(), "nothing is open any more");
}

/// Chunks on disk, and those of them that nothing names.
fn chunks(store: &Store) -> (usize, usize) {
    let mut chunks = 0;
    let count = |_: &[u8], _: &[u8]| {
        chunks += 1;
        Ok(())
    };
    store.engine().scan(crate::engine::Table::Chunk, b"", count).unwrap();
    (chunks, store.unnamed().unwrap().chunks.len())
}

/// What is deleted while a seal of it is made is not saved by it under the next key.
#[test]
fn a_seal_writes_nothing_under_a_key_that_came_later() {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    let under = Under::Dataset(DATASET);
    let key = |store: &Store| store.keys().read().current(vault::Scope::Dataset(DATASET));
    let mut ahead = store.write_ahead(DATASET, 1, key(&store));
    let place = |part| crate::segment::Place { dataset: DATASET, generation: 1, part }.key();
    ahead.put(&place(0), b"before").unwrap();
    store.shred(under, &store.keys_of(under)).unwrap();
    assert!(ahead.put(&place(1), b"after").is_err());
    store.ensure_key(under, false).unwrap();
    assert!(ahead.put(&place(2), b"after").is_err());
    ahead.finish().unwrap();
    assert_eq!(chunks(&store), (1, 1));
    store.clean_ahead().unwrap();
    assert_eq!(chunks(&store), (0, 0));
}

/// What ends between the plan of a seal and its commit stays nowhere.
#[test]
fn what_ends_while_a_seal_is_planned_does_not_stay_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = fresh(&directory);
    let when = SealPlan { min_points: 4, max_blobs: 1, segment_points: 2, ..SealPlan::default() };
    let old = (0..9).map(|at| (1, at)).chain([(2, 1), (2, 2), (3, 50), (3, 51)]);
    store.commit(numbers(&store, &old.collect::<Vec<_>>())).unwrap();
    let plan = store.plan_seal(DATASET, false, when).unwrap().unwrap();
    assert_eq!(chunks(&store), (3, 3));
    store.commit(Batch { retained: vec![(DATASET, Time(20))], ..Batch::default() }).unwrap();
    store.commit(Batch { sealed: vec![plan], ..Batch::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!(chunks(&store), (1, 0));
        assert_eq!((seen(&store, 1), seen(&store, 2)), (Vec::new(), Vec::new()));
        assert_eq!(seen(&store, 3), vec![(50, 50), (51, 51)]);
        drop(store);
        store = open(&directory).unwrap();
    }
}

/// What a plan wrote that was never committed goes with the next, also after a restart.
#[test]
fn what_no_seal_came_to_name_is_cleaned_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = fresh(&directory);
    let when = SealPlan { min_points: 4, max_blobs: 1, segment_points: 2, ..SealPlan::default() };
    let points: Vec<(u32, i64)> = (0..9).map(|at| (1, at)).chain([(2, 1), (3, 1)]).collect();
    store.commit(numbers(&store, &points)).unwrap();
    for restart in [false, true] {
        let plan = store.plan_seal(DATASET, false, when).unwrap().unwrap();
        assert!(store.plan_seal(DATASET, false, when).unwrap().is_none(), "one is under way");
        assert_eq!(chunks(&store), (2, 2));
        drop(plan);
        if restart {
            drop(store);
            store = open(&directory).unwrap();
        }
        store.clean_ahead().unwrap();
        assert_eq!(chunks(&store), (0, 0), "restart: {restart}");
    }
    let plan = store.plan_seal(DATASET, false, when).unwrap().unwrap();
    store.clean_ahead().unwrap();
    store.commit(numbers(&store, &[(1, 4), (1, 20)])).unwrap();
    assert!(store.is_current(&plan));
    store.commit(Batch { sealed: vec![plan], ..Batch::default() }).unwrap();
    assert_eq!(chunks(&store), (2, 0));
    assert_eq!(seen(&store, 1).len(), 10);
    assert!(matches!(
        store.histories().read().open(1),
        Some(crate::history::Open::Numbers(run)) if run.len() == 2
    ));
}

#[test]
fn a_key_made_while_older_ones_are_deleted_takes_nothing_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    store.new_key(Under::Dataset(DATASET), false).unwrap();
    let older = older_keys(&store);
    // Somebody rotates again just then: what was the current key has everything under it.
    store.new_key(Under::Dataset(DATASET), false).unwrap();
    store.drop_keys(&older).unwrap();
    drop(store);
    let store = open(&directory).unwrap();
    assert!(store.entity("urn:x:1").is_some());
    assert_eq!(store.orphans().unwrap(), []);
    // A key that goes without everything being encrypted anew is noticed.
    let current = store.keys().read().superseded(vault::Scope::Dataset(DATASET));
    store.drop_keys(&current).unwrap();
    assert_eq!(store.orphans().unwrap(), [(DATASET, 1)]);
}

/// A store with one entity that has three series.
fn fresh(directory: &TempDir) -> Store {
    let store = open(directory).unwrap();
    store.ensure_key(Under::Dataset(DATASET), false).unwrap();
    with_entity(store)
}

fn with_entity(store: Store) -> Store {
    let entity = Entity {
        id: "urn:x:1".into(),
        types: vec![Name::new("T")],
        scopes: Vec::new(),
        created: Time(0),
        modified: Time(0),
        attributes: Vec::new(),
    };
    let all: Arc<Vec<Series>> = Arc::new((1..=SERIES).map(series).collect());
    let write = EntityWrite {
        number: 1,
        dataset: DATASET,
        per_subject: false,
        packed: Packed::of(&entity, &all),
        entity: Arc::new(entity),
        series: all,
        deleted: None,
        durable: true,
        digest: [0; 32],
        evidence: Arc::new(Evidence::default()),
    };
    store.commit(Batch { entities: vec![write], ..Batch::default() }).unwrap();
    store
}

#[derive(Clone, Debug)]
enum Step {
    Points(Vec<(u32, i64, i32)>),
    Forget(u32),
    Seal,
    Retain(i64),
    Rotate,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let point = (1..=SERIES, 0i64..60, any::<i32>());
    prop_oneof![
        6 => prop::collection::vec(point, 1..12).prop_map(Step::Points),
        1 => (1..=SERIES).prop_map(Step::Forget),
        3 => Just(Step::Seal),
        1 => (0i64..20).prop_map(Step::Retain),
        1 => Just(Step::Rotate),
        2 => Just(Step::Reopen),
    ]
}

fn seen(store: &Store, number: u32) -> Vec<(i64, i32)> {
    let points = store.points(&series(number), Time::MIN, Time::MAX, None).unwrap();
    let plain = |point: Point| match point {
        Point::Number(at, value) => (at.0, value as i32),
        Point::Rich(at, instance) => match instance.content {
            Content::Property(Value::Integer(value)) => (at.0, value as i32),
            other => panic!("{other:?}"),
        },
    };
    points.into_iter().map(plain).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn histories_are_what_a_map_says(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = fresh(&directory);
        let mut model: BTreeMap<u32, BTreeMap<i64, i32>> = BTreeMap::new();
        let mut floor = i64::MIN;
        let mut planned = None;
        for step in steps {
            match step {
                Step::Points(points) => {
                    let row = |(series, at, value): &(u32, i64, i32)| Row {
                        entity: 1,
                        series: *series,
                        at: Time(*at),
                        value: if *series == RICH {
                            let value = Value::Integer(i64::from(*value));
                            RowValue::Rich(Box::new(Instance::of(Content::Property(value))))
                        } else {
                            RowValue::Number(f64::from(*value))
                        },
                    };
                    let rows = points.iter().map(row).collect();
                    let rows = store.encode_rows(DATASET, false, rows, Time::default());
                    let batch = Batch { rows: vec![rows], ..Batch::default() };
                    store.commit(batch).unwrap();
                    for (series, at, value) in points {
                        if at >= floor {
                            model.entry(series).or_default().insert(at, value);
                        }
                    }
                }
                Step::Forget(series) => {
                    let batch = Batch { forgotten: vec![(DATASET, series)], ..Batch::default() };
                    store.commit(batch).unwrap();
                    model.remove(&series);
                }
                Step::Seal => {
                    let when = SealPlan {
                        min_points: 4,
                        max_blobs: 2,
                        max_open_bytes: 1 << 20,
                        max_open: 40,
                        max_part: 5,
                        segment_points: 3,
                    };
                    // Planned at one step, committed at the next: others come in between.
                    match planned.take() {
                        Some(sealed) if store.is_current(&sealed) => {
                            let batch = Batch { sealed: vec![sealed], ..Batch::default() };
                            store.commit(batch).unwrap();
                        }
                        Some(_) => {}
                        None => planned = store.plan_seal(DATASET, false, when).unwrap(),
                    }
                }
                Step::Retain(at) => {
                    floor = floor.max(at);
                    let batch = Batch { retained: vec![(DATASET, Time(floor))], ..Batch::default() };
                    store.commit(batch).unwrap();
                    model.values_mut().for_each(|points| points.retain(|at, _| *at >= floor));
                }
                Step::Rotate => {
                    store.new_key(Under::Dataset(DATASET), false).unwrap();
                    let older = older_keys(&store);
                    prop_assert_eq!(older.len(), 1);
                    store.drop_keys(&older).unwrap();
                }
                Step::Reopen => {
                    planned = None;
                    drop(store);
                    store = open(&directory).unwrap();
                }
            }
            for number in 1..=SERIES {
                let expected: Vec<(i64, i32)> =
                    model.get(&number).into_iter().flatten().map(|(at, value)| (*at, *value)).collect();
                prop_assert_eq!(seen(&store, number), expected);
            }
        }
    }
}

#[test]
fn two_cannot_open_the_same_and_foreign_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = fresh(&directory);
    assert!(matches!(open(&directory), Err(StoreError::Locked(_))));
    assert!(!directory.path().join("data/rescue").exists(), "nor is anything left behind");
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("data")).unwrap();
    std::fs::write(other.path().join("data/letter.txt"), "mine").unwrap();
    assert!(matches!(open(&other), Err(StoreError::NotOurs(..))));
    std::fs::write(directory.path().join("data/format"), "99\n").unwrap();
    assert!(matches!(
        open(&directory),
        Err(StoreError::Format { found: 99, known: crate::FORMAT })
    ));
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_reads() {
    let directory = tempfile::tempdir().unwrap();
    drop(fresh(&directory));
    let files = Files::new(&directory.path().join("data"), None);
    let store =
        Store::open(files, Options { min_free_bytes: u64::MAX, ..Options::default() }).unwrap();
    let refused = store.commit(Batch::default());
    assert!(matches!(refused, Err(StoreError::Full(_))));
    assert!(store.entity("urn:x:1").is_some());
}

#[test]
fn a_store_that_lost_its_end_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    let copy = directory.path().join("copy");
    store.close();
    drop(store);
    copy_all(&directory.path().join("data"), &copy);
    let store = open(&directory).unwrap();
    let document =
        Document { kind: 1, name: "later".into(), under: Under::Hub, body: Some(vec![1]) };
    store.commit(Batch { documents: vec![document], ..Batch::default() }).unwrap();
    store.close();
    drop(store);
    // The data directory rolled back, the keys' position not.
    std::fs::remove_dir_all(directory.path().join("data")).unwrap();
    copy_all(&copy, &directory.path().join("data"));
    assert!(matches!(open(&directory), Err(StoreError::Shorter { .. })));
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A data directory of format 1, as version 0.1.0 wrote it.
#[test]
fn the_fixture_of_format_1_opens() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-1");
    let fixture = std::path::Path::new(fixture);
    if std::env::var_os("TANGGUL_WRITE_FIXTURE").is_some() {
        return write_fixture(fixture);
    }
    let directory = tempfile::tempdir().unwrap();
    copy_all(fixture, directory.path());
    let store = open(&directory).unwrap();
    assert_eq!(store.entity("urn:x:1").unwrap().number, 1);
    assert_eq!(seen(&store, 1), (0..10).map(|n| (i64::from(n), n)).collect::<Vec<_>>());
    assert_eq!(seen(&store, 2), [(5, 50)]);
    assert_eq!(&*store.document(9, "name").unwrap(), b"body");
    assert_eq!(store.record(0).unwrap().unwrap(), ([7; 32], b"record".to_vec()));
}

/// Run with `TANGGUL_WRITE_FIXTURE=1` when a version is released whose layout is new.
fn write_fixture(fixture: &std::path::Path) {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    let row = |series, at: i64, value: f64| Row {
        entity: 1,
        series,
        at: Time(at),
        value: RowValue::Number(value),
    };
    let rows = (0..10).map(|n| row(1, n, n as f64)).collect();
    store
        .commit(Batch {
            rows: vec![store.encode_rows(DATASET, false, rows, Time::default())],
            ..Batch::default()
        })
        .unwrap();
    let sealed = store
        .plan_seal(
            DATASET,
            false,
            SealPlan { min_points: 4, max_blobs: 1, max_part: 1_000, ..SealPlan::default() },
        )
        .unwrap();
    store.commit(Batch { sealed: sealed.into_iter().collect(), ..Batch::default() }).unwrap();
    let document =
        Document { kind: 9, name: "name".into(), under: Under::Hub, body: Some(b"body".to_vec()) };
    let batch = Batch {
        rows: vec![store.encode_rows(DATASET, false, vec![row(2, 5, 50.0)], Time::default())],
        documents: vec![document],
        records: vec![([7; 32], b"record".to_vec())],
        ..Batch::default()
    };
    store.commit(batch).unwrap();
    store.close();
    drop(store);
    // Once more, so that the engine cuts its journal to what is used.
    let store = open(&directory).unwrap();
    store.close();
    drop(store);
    copy_all(directory.path(), fixture);
}

fn numbers(store: &Store, points: &[(u32, i64)]) -> Batch {
    let row = |(series, at): &(u32, i64)| Row {
        entity: 1,
        series: *series,
        at: Time(*at),
        value: RowValue::Number(*at as f64),
    };
    let rows = points.iter().map(row).collect();
    let rows = vec![store.encode_rows(DATASET, false, rows, Time::default())];
    Batch { rows, ..Batch::default() }
}

/// Who reads while a seal puts larger parts in the place of smaller ones is not told of damage.
#[test]
fn who_reads_beside_seals_is_told_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = fresh(&directory);
    let when = SealPlan { max_blobs: 1, segment_points: 3, ..SealPlan::default() };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=2)
            .map(|series| {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut longest = 0;
                    while !done.load(std::sync::atomic::Ordering::Acquire) {
                        let there = seen(store, series).len();
                        assert!(there >= longest, "{there} of {longest}");
                        longest = there;
                    }
                })
            })
            .collect();
        for at in 0..300 {
            store.commit(numbers(&store, &[(1, at), (2, at)])).unwrap();
            if let Some(sealed) = store.plan_seal(DATASET, false, when).unwrap() {
                store.commit(Batch { sealed: vec![sealed], ..Batch::default() }).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(seen(&store, 1).len(), 300);
}

/// What is past its retention goes from the disk as well, however little there is.
#[test]
fn what_is_past_its_retention_does_not_stay_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = fresh(&directory);
    let blobs = |store: &Store| {
        let mut blobs = 0;
        let count = |_: &[u8], _: &[u8]| {
            blobs += 1;
            Ok(())
        };
        store.engine().scan(crate::engine::Table::Recent, b"", count).unwrap();
        blobs
    };
    store.commit(numbers(&store, &[(1, 5), (1, 15)])).unwrap();
    store.commit(numbers(&store, &[(2, 5)])).unwrap();
    assert!(store.plan_seal(DATASET, false, SealPlan::default()).unwrap().is_none(), "too few");
    store.commit(Batch { retained: vec![(DATASET, Time(10))], ..Batch::default() }).unwrap();
    assert_eq!(blobs(&store), 2);
    for reopened in [false, true] {
        if reopened {
            drop(store);
            store = open(&directory).unwrap();
        }
        let sealed = store.plan_seal(DATASET, false, SealPlan::default()).unwrap();
        assert!(sealed.is_some(), "reopened: {reopened}");
    }
    let sealed = store.plan_seal(DATASET, false, SealPlan::default()).unwrap();
    store.commit(Batch { sealed: sealed.into_iter().collect(), ..Batch::default() }).unwrap();
    assert_eq!((blobs(&store), seen(&store, 1)), (0, vec![(15, 15)]));
    store.commit(numbers(&store, &[(1, 16)])).unwrap();
    assert!(store.plan_seal(DATASET, false, SealPlan::default()).unwrap().is_none(), "done");
}

/// A dataset that was moved under the other root is closed when that is, with what it had before.
#[test]
fn a_dataset_that_moves_between_the_roots_is_closed_as_a_whole() {
    for (before, after) in [(false, true), (true, false)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory).unwrap();
        store.ensure_key(Under::Dataset(DATASET), before).unwrap();
        let store = with_entity(store);
        store.commit(numbers(&store, &[(1, 5)])).unwrap();
        store.new_key(Under::Dataset(DATASET), after).unwrap();
        if after {
            store.drop_keys(&older_keys(&store)).unwrap();
        }
        store.close();
        drop(store);
        std::fs::remove_file(directory.path().join("data.keys/sensitive.key")).unwrap();
        let store = open(&directory).unwrap();
        assert!(store.is_closed(DATASET, after, false), "to sensitive: {after}");
        assert!(store.entity("urn:x:1").is_none());
        assert_eq!(store.closed_owner("urn:x:1"), Some(DATASET), "to sensitive: {after}");
        let when = SealPlan { max_blobs: 0, ..SealPlan::default() };
        assert!(store.plan_seal(DATASET, false, when).unwrap().is_none());
    }
}
