//! The hub without threads, under a scheduler that a seed decides: officials, devices and readers
//! take turns between any two waits, the committer between any two groups, upkeep in between. A
//! seed that fails fails again.

use super::{Context, Form, copy_all, dataset, device, now, numbers, parse_entity, parse_json};
use crate::committer;
use crate::job::Job;
use crate::state::State;
use crate::{Act, Hub, HubError, HubOptions, ItemResult, NewPrincipal, Query, Source};
use model::{Change, Credential, Kind, Principal, Role, Session, Time, Zone};
use ngsild::Filter;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Waiting, Poll, Waker};
use store::Files;
use tokio::sync::mpsc;

/// Polls without anything done, of each actor, that mean that nothing will ever be done.
const PATIENCE: usize = 400;

type Actor = (&'static str, Pin<Box<dyn Future<Output = ()>>>);

fn wanted() -> u64 {
    std::env::var("TANGGUL_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

fn assemble(root: &Path, group_changes: usize) -> (Arc<Hub>, mpsc::Receiver<Job>) {
    let options = HubOptions {
        origin: "test.example/log".into(),
        now,
        contexts: HashMap::new(),
        store: store::Options { min_free_bytes: 0, ..store::Options::default() },
        seal: store::SealPlan { max_blobs: 2, max_part: 3, ..store::SealPlan::default() },
        tidying: crate::Tidying::default(),
        patience: std::time::Duration::ZERO,
        limits: crate::Limits { group_changes, ..crate::Limits::default() },
        notice: None,
    };
    Hub::assemble(Files::new(&root.join("data"), None), options).unwrap()
}

/// A city with everybody in it, made once and copied; gives the tokens and a code.
struct Start {
    root: tempfile::TempDir,
    tokens: Vec<String>,
}

const ADMIN: usize = 0;
const SECOND: usize = 1;
const STEWARD: usize = 2;
const GAUGE: usize = 3;

fn start() -> Start {
    let root = tempfile::tempdir().unwrap();
    Files::new(&root.path().join("data"), None).create().unwrap();
    let (hub, mut queue) = assemble(root.path(), 1_000);
    let mut people = dataset("people", "Person", false);
    people.about_people = true;
    let official = |login: &str, role| {
        let principal = Principal {
            kind: Kind::Official,
            login: login.into(),
            department: "water".into(),
            roles: vec![role],
            ..Principal::public()
        };
        NewPrincipal { principal, purpose: None, expires: Time::MAX }
    };
    let tokens = Rc::new(RefCell::new(Vec::new()));
    let set_up: Actor = ("set up", {
        let (hub, tokens) = (hub.clone(), tokens.clone());
        Box::pin(async move {
            let rivers = dataset("rivers", "River", true);
            hub.bootstrap_datasets(vec![rivers, people]).await.unwrap();
            let everybody = vec![
                official("admin", Role::Administrator),
                official("second", Role::Administrator),
                official("steward", Role::Steward),
                device(),
            ];
            *tokens.borrow_mut() = hub.bootstrap_principals(everybody).await.unwrap();
        })
    });
    run(&hub, &mut queue, vec![set_up], &mut numbers(1));
    hub.store.close();
    let tokens = tokens.take();
    Start { root, tokens }
}

/// Lets everybody take turns until all are done.
fn run(
    hub: &Arc<Hub>,
    queue: &mut mpsc::Receiver<Job>,
    mut actors: Vec<Actor>,
    random: &mut impl FnMut(u64) -> u64,
) {
    let mut idle = 0;
    while !actors.is_empty() {
        let turn = random(actors.len() as u64 * 3 + 2) as usize;
        if turn >= actors.len() * 3 {
            if let Ok(first) = queue.try_recv() {
                assert!(committer::step(hub, first, queue));
                idle = 0;
            }
            continue;
        }
        let at = turn % actors.len();
        let mut waiting = Waiting::from_waker(Waker::noop());
        if let Poll::Ready(()) = actors[at].1.as_mut().poll(&mut waiting) {
            drop(actors.swap_remove(at));
            idle = 0;
        }
        idle += 1;
        if idle > PATIENCE * actors.len() + 1 {
            let names: Vec<_> = actors.iter().map(|(name, _)| name).collect();
            panic!("nobody can go on: {names:?}");
        }
    }
    while let Ok(first) = queue.try_recv() {
        assert!(committer::step(hub, first, queue));
    }
}

/// Lets the others take a turn.
async fn turn() {
    let mut waited = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn open(hub: &Hub, token: &str) -> Result<Session, HubError> {
    let source = Source { zone: Zone::Local, block: crate::Block::Own, browser: None };
    hub.open(&Credential::Bearer(token.to_owned()), &source, None)
}

fn act(name: &str, body: &str) -> Act {
    Act { name: name.to_owned(), body: parse_json(body.as_bytes()).unwrap() }
}

fn change(of_type: &str, n: u32) -> Change {
    let json = format!(
        r#"{{"id":"urn:x:{of_type}","type":"{of_type}","level":{{"value":{n},"observedAt":"2026-01-01T10:{:02}:00Z"}},"note":{{"value":"n{n}"}}}}"#,
        n % 60
    );
    let value = parse_json(json.as_bytes()).unwrap();
    Change::Upsert(parse_entity(&value, &Context::core(), Form::Full).unwrap())
}

/// What a schedule comes to.
#[derive(Default)]
struct Outcome {
    revoked: Cell<bool>,
    hidden: Cell<bool>,
    redeemed: Cell<u32>,
    approved: Cell<u32>,
    written: Cell<u32>,
    acknowledged: Cell<u32>,
}

/// Everybody who is at work in a schedule.
fn city(hub: &Arc<Hub>, tokens: &[String], outcome: &Rc<Outcome>) -> Vec<Actor> {
    let mut actors: Vec<Actor> = Vec::new();
    let of = |n: usize| (hub.clone(), tokens[n].clone(), outcome.clone());
    // A gauge writes until it is revoked; what it begins after that is refused.
    let (h, token, o) = of(GAUGE);
    actors.push((
        "gauge",
        Box::pin(async move {
            for n in 1..30 {
                let revoked = o.revoked.get();
                let Ok(session) = open(&h, &token) else {
                    assert!(
                        h.state.principals().iter().any(|p| p.status == model::Status::Revoked)
                    );
                    return;
                };
                assert!(!revoked, "a revoked token opens a session");
                o.written.set(n);
                match &h.write(&session, vec![change("River", n)]).await.unwrap().results[0] {
                    ItemResult::Done(_) => o.acknowledged.set(n),
                    other => panic!("{other:?}"),
                }
                turn().await;
            }
        }),
    ));
    // A reader never sees the river go back, nor an attribute that has been hidden.
    let (h, token, o) = of(STEWARD);
    actors.push((
        "reader",
        Box::pin(async move {
            let mut last = 0.0;
            for _ in 0..20 {
                let (hidden, acknowledged) = (o.hidden.get(), o.acknowledged.get());
                let session = open(&h, &token).unwrap();
                let query = Query {
                    filter: Filter { ids: vec!["urn:x:River".into()], ..Filter::default() },
                    ..Query::default()
                };
                let answer = h.read(&session, &query).await.unwrap();
                let level = answer.entities.first().and_then(|seen| {
                    assert!(!hidden || seen.attribute("note").is_none(), "hidden, and shown");
                    seen.attribute("level")?.default_instance()?.value().as_number()
                });
                let level = level.unwrap_or(0.0);
                assert!(level >= last && level >= f64::from(acknowledged), "{level} after {last}");
                last = level;
                turn().await;
            }
        }),
    ));
    // One code, three who redeem it.
    let code = Rc::new(RefCell::new(None));
    let (h, token, _) = of(STEWARD);
    let told = code.clone();
    actors.push((
        "steward",
        Box::pin(async move {
            let session = open(&h, &token).unwrap();
            let body = r#"{"login":"new","dataset":"rivers","streams":["urn:x:new"]}"#;
            let report = h.act(&session, act("device.enrol", body)).await.unwrap();
            let code = report.answer.get("code").unwrap().as_text().unwrap().to_owned();
            *told.borrow_mut() = Some(code);
        }),
    ));
    for _ in 0..3 {
        let (h, _, o) = of(STEWARD);
        let code = code.clone();
        actors.push((
            "redeemer",
            Box::pin(async move {
                while code.borrow().is_none() {
                    turn().await;
                }
                let code = code.borrow().clone().unwrap();
                let source = Source { zone: Zone::Local, block: crate::Block::Own, browser: None };
                if h.redeem(&code, None, &source).await.is_ok() {
                    o.redeemed.set(o.redeemed.get() + 1);
                }
            }),
        ));
    }
    // A dataset changes by two; both of two administrators agree at once.
    let (h, token, _) = of(STEWARD);
    let pending = Rc::new(RefCell::new(None));
    let told = pending.clone();
    actors.push((
        "asker",
        Box::pin(async move {
            let session = open(&h, &token).unwrap();
            let mut rivers = dataset("rivers", "River", true);
            rivers.undeclared = model::Sensitivity::Special;
            let body = format!(r#"{{"dataset":{}}}"#, serde_json::to_string(&rivers).unwrap());
            let report = h.act(&session, act("dataset.put", &body)).await.unwrap();
            *told.borrow_mut() = report.pending;
        }),
    ));
    for admin in [ADMIN, SECOND] {
        let (h, token, o) = of(admin);
        let pending = pending.clone();
        actors.push((
            "approver",
            Box::pin(async move {
                while pending.borrow().is_none() {
                    turn().await;
                }
                let id = pending.borrow().clone().unwrap();
                let session = open(&h, &token).unwrap();
                if h.approve(&session, &id).await.is_ok() {
                    o.approved.set(o.approved.get() + 1);
                    o.hidden.set(true);
                }
            }),
        ));
    }
    // Somebody is written about and erased, again and again.
    let (h, _, _) = of(ADMIN);
    actors.push((
        "registrar",
        Box::pin(async move {
            let own = h.own_session();
            for n in 1..12 {
                let report = h.write(&own, vec![change("Person", n)]).await.unwrap();
                assert!(matches!(report.results[0], ItemResult::Done(_)), "{report:?}");
                if n % 4 == 0 {
                    let body = r#"{"dataset":"people","entity":"urn:x:Person"}"#;
                    h.act(&own, act("subject.erase", body)).await.unwrap();
                    assert!(h.store.entity("urn:x:Person").is_none(), "erased, and there");
                }
                turn().await;
            }
        }),
    ));
    // Upkeep seals and retains; keys are rotated.
    let (h, _, _) = of(ADMIN);
    actors.push((
        "upkeep",
        Box::pin(async move {
            for n in 0..60 {
                let snapshot = h.state.snapshot();
                for (number, dataset) in snapshot.datasets.values() {
                    let planned = crate::upkeep::sealing(&h, *number, dataset);
                    // Planning takes its time: others go on meanwhile.
                    for _ in 0..n % 4 {
                        turn().await;
                    }
                    for (job, done) in planned {
                        assert!(h.jobs.send(job).await.is_ok());
                        if let Some(done) = done {
                            drop(done.await);
                        }
                    }
                }
                if n % 20 == 19 {
                    let rotate = act("dataset.rotate_key", r#"{"dataset":"rivers"}"#);
                    h.act(&h.own_session(), rotate).await.unwrap();
                }
                turn().await;
            }
        }),
    ));
    // In the end the gauge is revoked.
    let (h, token, o) = of(ADMIN);
    actors.push((
        "revoker",
        Box::pin(async move {
            for _ in 0..40 {
                turn().await;
            }
            let session = open(&h, &token).unwrap();
            h.act(&session, act("principal.revoke", r#"{"login":"gauge"}"#)).await.unwrap();
            o.revoked.set(true);
        }),
    ));
    actors
}

/// All that decisions rest on.
fn governing(state: &State) -> String {
    let snapshot = state.snapshot();
    let mut shown = format!("{:?} {}\n", **snapshot.datasets, snapshot.policies.text());
    shown += &format!("{:?}\n", state.purposes.read());
    for principal in state.principals() {
        let by_login = state.principal_by_login(&principal.login);
        assert_eq!(by_login.map(|found| found.number), Some(principal.number));
        let mut credentials = state.credentials_of(principal.number);
        credentials.sort_by(|(a, _), (b, _)| a.cmp(b));
        shown += &format!("{principal:?} {credentials:?}\n");
    }
    shown
}

#[test]
fn whoever_comes_first_the_rules_hold() {
    let start = start();
    let first: u64 =
        std::env::var("TANGGUL_SCHEDULE").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + wanted() {
        let copy = tempfile::tempdir().unwrap();
        copy_all(start.root.path(), copy.path());
        let mut random = numbers(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed * 2 + 1));
        let group_changes = 1 + random(6) as usize;
        println!("schedule {seed}, groups of {group_changes}");
        let (hub, mut queue) = assemble(copy.path(), group_changes);
        let outcome = Rc::new(Outcome::default());
        let actors = city(&hub, &start.tokens, &outcome);
        run(&hub, &mut queue, actors, &mut random);
        assert_eq!((outcome.redeemed.get(), outcome.approved.get()), (1, 1));
        let level = |store: &store::Store| {
            let held = store.entity("urn:x:River")?;
            held.entity.attribute("level")?.default_instance()?.value().as_number()
        };
        let (written, acknowledged) = (outcome.written.get(), outcome.acknowledged.get());
        let found = level(&hub.store);
        let fits = |n: f64| (f64::from(acknowledged)..=f64::from(written)).contains(&n);
        assert!(found.is_none_or(fits), "{found:?}");
        let again = State::load(&hub.store, 10).unwrap();
        assert_eq!(governing(&hub.state), governing(&again), "what was taken in as it came");
        let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
        hub.store.close();
        drop((hub, queue));
        let files = Files::new(&copy.path().join("data"), None);
        let store = store::Store::open(
            files,
            store::Options { min_free_bytes: 0, ..store::Options::default() },
        )
        .unwrap();
        assert_eq!(level(&store), found, "after a restart");
        assert_eq!(crate::verify(&store, &vkey).unwrap().findings, []);
    }
}
