//! Places for connections: so many at once, and when all are taken the one goes that has waited
//! longest without showing who it is, but for those who came just now. Whoever holds connections open,
//! or opens many at once, keeps no known client out.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All places of a door.
pub struct Places {
    most: usize,
    /// Of one principal: whoever has more holds them as a stranger does.
    each: usize,
    /// How long whoever comes has to show who it is.
    to_show: Duration,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    count: usize,
    /// Those who have not shown a credential, in the order they came, with how to send them away and from
    /// when on they may be.
    strangers: BTreeMap<u64, (Arc<Notify>, Instant)>,
    /// How many each principal holds as one who is known.
    known: HashMap<u64, usize>,
}

/// Ends when a stranger has to leave; never for a known client.
pub struct Leave(Arc<Notify>);

impl Leave {
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}

/// One place, taken until it is dropped.
pub struct Place {
    all: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
    /// Whose it is, once that is known.
    known: Mutex<Option<u64>>,
    /// A credential was shown since the last look.
    shown: AtomicBool,
}

impl Places {
    pub fn new(most: usize, each: usize, to_show: Duration) -> Arc<Places> {
        Arc::new(Places { most, each, to_show, taken: Mutex::default(), freed: Notify::new() })
    }

    /// How many are taken, and how many there are.
    pub fn taken(&self) -> (usize, usize) {
        (self.taken.lock().count, self.most)
    }

    /// Takes a place, with what tells when it is to be given up. Where there is none, a stranger's is
    /// taken away; where there are only known clients, it waits.
    pub async fn take(self: &Arc<Self>) -> (Arc<Place>, Leave) {
        loop {
            let freed = self.freed.notified();
            match self.try_take() {
                Ok(place) => return place,
                Err(None) => freed.await,
                Err(Some(until)) => drop(tokio::time::timeout_at(until, freed).await),
            }
        }
    }

    /// A place; or until when there is only to wait, if it is known.
    fn try_take(self: &Arc<Self>) -> Result<(Arc<Place>, Leave), Option<Instant>> {
        let mut taken = self.taken.lock();
        if taken.count >= self.most {
            let oldest = taken.strangers.first_entry();
            let Some(oldest) = oldest else { return Err(None) };
            let from = oldest.get().1;
            if from > Instant::now() {
                return Err(Some(from));
            }
            // Its place is free once its connection has ended.
            oldest.remove().0.notify_one();
            return Err(None);
        }
        let leave = Arc::new(Notify::new());
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        taken.strangers.insert(number, (leave.clone(), Instant::now() + self.to_show));
        let place = Place {
            all: self.clone(),
            number,
            leave: leave.clone(),
            known: Mutex::new(None),
            shown: AtomicBool::new(false),
        };
        Ok((Arc::new(place), Leave(leave)))
    }
}

impl Place {
    /// Its holder has shown a credential of a principal that holds.
    pub fn make_known(&self, principal: u64) {
        self.shown.store(true, Ordering::Relaxed);
        let mut known = self.known.lock();
        if known.is_some() {
            return;
        }
        let mut taken = self.all.taken.lock();
        let held = taken.known.entry(principal).or_default();
        if *held < self.all.each {
            *held += 1;
            *known = Some(principal);
            taken.strangers.remove(&self.number);
        }
    }

    /// Looked at now and then: who has shown no credential since the last look is a stranger again. One
    /// that was revoked would otherwise hold its place for as long as it likes.
    pub fn look(&self) {
        if self.shown.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut known = self.known.lock();
        if let Some(principal) = known.take() {
            let mut taken = self.all.taken.lock();
            taken.let_go(principal);
            taken.strangers.insert(self.number, (self.leave.clone(), Instant::now()));
        }
    }
}

impl Taken {
    fn let_go(&mut self, principal: u64) {
        if let Some(held) = self.known.get_mut(&principal) {
            *held -= 1;
            if *held == 0 {
                self.known.remove(&principal);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let known = self.known.lock().take();
        let mut taken = self.all.taken.lock();
        taken.count -= 1;
        taken.strangers.remove(&self.number);
        if let Some(principal) = known {
            taken.let_go(principal);
        }
        drop(taken);
        self.all.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_SHOW: Duration = Duration::from_millis(250);

    #[tokio::test]
    async fn strangers_make_room_and_known_clients_stay() {
        let places = Places::new(3, 3, TO_SHOW);
        let (known, silent) = places.take().await;
        known.make_known(1);
        let mut strangers = Vec::new();
        for _ in 0..2 {
            strangers.push(places.take().await);
        }
        // The one that waited longest is asked to leave, and the newcomer gets its place.
        let newcomer = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        let (place, asked) = strangers.remove(0);
        asked.asked().await;
        drop(place);
        let (newcomer, _) = newcomer.await.unwrap();
        newcomer.make_known(2);
        let (other, _) = strangers.remove(0);
        other.make_known(3);
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, places.take()).await.is_err(), "all are known");
        assert!(tokio::time::timeout(wait, silent.asked()).await.is_err(), "nobody asked it");
        drop(other);
        let last = tokio::time::timeout(wait, places.take()).await.unwrap();
        last.0.make_known(4);
        // Whoever was known and shows nothing for two looks makes room like any stranger.
        known.look();
        assert!(tokio::time::timeout(wait, places.take()).await.is_err(), "it was just seen");
        known.look();
        assert!(
            tokio::time::timeout(wait, places.take()).await.is_err(),
            "its place is still held"
        );
        tokio::time::timeout(wait, silent.asked()).await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_among_many_has_time_to_show_who_it_is() {
        let places = Places::new(3, 3, TO_SHOW);
        let (place, leave) = places.take().await;
        let crowd = tokio::spawn({
            let places = places.clone();
            async move {
                loop {
                    let (place, leave) = places.take().await;
                    tokio::spawn(async move {
                        leave.asked().await;
                        drop(place);
                    });
                }
            }
        });
        let asked = leave.asked();
        tokio::pin!(asked);
        assert!(tokio::time::timeout(TO_SHOW / 2, &mut asked).await.is_err(), "it just came");
        place.make_known(1);
        assert!(tokio::time::timeout(TO_SHOW * 2, &mut asked).await.is_err(), "it is known");
        crowd.abort();
        // Whoever shows nothing goes after that time, for whoever comes then.
        let (_held, stranger) = places.take().await;
        let since = Instant::now();
        let newcomer = tokio::spawn({
            let places = places.clone();
            async move {
                let held = [places.take().await, places.take().await];
                held.map(|(place, leave)| (place, leave, Instant::now()))
            }
        });
        stranger.asked().await;
        assert!(since.elapsed() >= TO_SHOW, "{:?}", since.elapsed());
        newcomer.abort();
    }

    #[tokio::test]
    async fn nobody_takes_all_places_with_one_token() {
        let places = Places::new(4, 2, TO_SHOW);
        let mut held = Vec::new();
        for _ in 0..4 {
            let (place, leave) = places.take().await;
            place.make_known(7);
            held.push((place, leave));
        }
        let newcomer = tokio::spawn({
            let places = places.clone();
            async move { places.take().await.0.make_known(8) }
        });
        // The third of them is asked, as a stranger would be.
        held[2].1.asked().await;
        held.remove(2);
        newcomer.await.unwrap();
        held.pop();
        held.pop();
        let (place, _) = places.take().await;
        place.make_known(7);
        assert_eq!(places.taken.lock().known[&7], 2);
        drop((held, place));
        assert!(places.taken.lock().known.is_empty());
    }
}
