//! Places for connections: so many at once, and when all are taken the one goes that has waited
//! longest without showing who it is. Whoever holds connections open keeps no known client out.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// All places of a door.
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    count: usize,
    /// Those who have not shown a credential, in the order they came, with how to send them away.
    strangers: BTreeMap<u64, Arc<Notify>>,
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
    known: AtomicBool,
    /// A credential was shown since the last look.
    shown: AtomicBool,
}

impl Places {
    pub fn new(most: usize) -> Arc<Places> {
        Arc::new(Places { most, taken: Mutex::default(), freed: Notify::new() })
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
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<(Arc<Place>, Leave)> {
        let mut taken = self.taken.lock();
        if taken.count >= self.most {
            // Its place is free once its connection has ended.
            if let Some((_, leave)) = taken.strangers.pop_first() {
                leave.notify_one();
            }
            return None;
        }
        let leave = Arc::new(Notify::new());
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        taken.strangers.insert(number, leave.clone());
        let place = Place {
            all: self.clone(),
            number,
            leave: leave.clone(),
            known: AtomicBool::new(false),
            shown: AtomicBool::new(false),
        };
        Some((Arc::new(place), Leave(leave)))
    }
}

impl Place {
    /// Its holder has shown a credential that holds.
    pub fn make_known(&self) {
        self.shown.store(true, Ordering::Relaxed);
        if !self.known.swap(true, Ordering::Relaxed) {
            self.all.taken.lock().strangers.remove(&self.number);
        }
    }

    /// Looked at now and then: who has shown no credential since the last look is a stranger again. One
    /// that was revoked would otherwise hold its place for as long as it likes.
    pub fn look(&self) {
        let silent = !self.shown.swap(false, Ordering::Relaxed);
        if silent && self.known.swap(false, Ordering::Relaxed) {
            self.all.taken.lock().strangers.insert(self.number, self.leave.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock();
        taken.count -= 1;
        taken.strangers.remove(&self.number);
        drop(taken);
        self.all.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn strangers_make_room_and_known_clients_stay() {
        let places = Places::new(3);
        let (known, silent) = places.take().await;
        known.make_known();
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
        newcomer.make_known();
        let (other, _) = strangers.remove(0);
        other.make_known();
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, places.take()).await.is_err(), "all are known");
        assert!(tokio::time::timeout(wait, silent.asked()).await.is_err(), "nobody asked it");
        drop(other);
        let last = tokio::time::timeout(wait, places.take()).await.unwrap();
        last.0.make_known();
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
}
