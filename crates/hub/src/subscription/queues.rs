//! Notifications that wait: in order for each subscription, and what they take in all.

use std::collections::{HashMap, VecDeque};

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Of its document.
    pub name: String,
    pub tries: u32,
    pub bytes: usize,
}

/// All that wait.
#[derive(Default)]
pub struct Queues {
    by_id: HashMap<String, VecDeque<Queued>>,
    bytes: usize,
}

impl Queues {
    pub fn push_back(&mut self, id: &str, one: Queued) {
        self.bytes += one.bytes;
        self.by_id.entry(id.to_owned()).or_default().push_back(one);
    }

    pub fn push_front(&mut self, id: &str, one: Queued) {
        self.bytes += one.bytes;
        self.by_id.entry(id.to_owned()).or_default().push_front(one);
    }

    /// Takes the oldest of a subscription.
    pub fn pop_front(&mut self, id: &str) -> Option<Queued> {
        let one = self.by_id.get_mut(id)?.pop_front()?;
        self.bytes -= one.bytes;
        self.tidy(id);
        Some(one)
    }

    pub fn front(&self, id: &str) -> Option<Queued> {
        self.by_id.get(id)?.front().cloned()
    }

    /// Takes all of a subscription.
    pub fn remove(&mut self, id: &str) -> Vec<Queued> {
        let all: Vec<Queued> = self.by_id.remove(id).into_iter().flatten().collect();
        self.bytes -= all.iter().map(|one| one.bytes).sum::<usize>();
        all
    }

    /// Takes one of a subscription.
    pub fn forget(&mut self, id: &str, name: &str) {
        if let Some(queue) = self.by_id.get_mut(id) {
            let before: usize = queue.iter().map(|one| one.bytes).sum();
            queue.retain(|one| one.name != name);
            self.bytes -= before - queue.iter().map(|one| one.bytes).sum::<usize>();
            self.tidy(id);
        }
    }

    pub fn count_try(&mut self, id: &str, name: &str) {
        let front = self.by_id.get_mut(id).and_then(VecDeque::front_mut);
        if let Some(front) = front.filter(|front| front.name == name) {
            front.tries += 1;
        }
    }

    /// How many wait for a subscription, and their bytes.
    pub fn of(&self, id: &str) -> (usize, usize) {
        let queue = self.by_id.get(id);
        queue.map_or((0, 0), |queue| (queue.len(), queue.iter().map(|one| one.bytes).sum()))
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Subscriptions that something waits for.
    pub fn ids(&self) -> Vec<String> {
        self.by_id.keys().cloned().collect()
    }

    fn tidy(&mut self, id: &str) {
        if self.by_id.get(id).is_some_and(VecDeque::is_empty) {
            self.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_to_the_byte() {
        let one = |name: &str, bytes| Queued { name: name.into(), tries: 0, bytes };
        let mut queues = Queues::default();
        (1..5).for_each(|n| queues.push_back("a", one(&n.to_string(), n)));
        queues.push_back("b", one("5", 5));
        assert_eq!((queues.of("a"), queues.bytes()), ((4, 10), 15));
        let oldest = queues.pop_front("a").unwrap();
        assert_eq!(queues.bytes(), 14);
        queues.push_front("a", oldest);
        queues.forget("a", "3");
        queues.count_try("a", "1");
        assert_eq!(queues.front("a").unwrap(), Queued { tries: 1, ..one("1", 1) });
        assert_eq!((queues.of("a"), queues.bytes()), ((3, 7), 12));
        assert_eq!(queues.remove("a").len(), 3);
        queues.forget("b", "5");
        assert_eq!((queues.bytes(), queues.ids()), (0, Vec::new()));
    }
}
