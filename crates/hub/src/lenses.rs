//! What one session sees, dataset by dataset.

use crate::{Hub, Seen};
use guard::Verdict;
use model::{Action, Session};
use std::collections::HashMap;
use std::sync::Arc;
use store::Held;

/// The lenses of one session, decided once each.
pub struct Lenses<'a> {
    hub: &'a Hub,
    session: &'a Session,
    snapshot: Arc<guard::Snapshot>,
    decided: HashMap<u32, Option<Arc<Verdict>>>,
}

impl<'a> Lenses<'a> {
    pub fn new(hub: &'a Hub, session: &'a Session) -> Lenses<'a> {
        Lenses { hub, session, snapshot: hub.state.snapshot(), decided: HashMap::new() }
    }

    /// Whose they are.
    pub fn principal(&self) -> &'a model::Principal {
        &self.session.principal
    }

    /// The same, decided as things are now.
    pub fn anew(&self) -> Lenses<'a> {
        Lenses::new(self.hub, self.session)
    }

    /// Whether all would be decided the same now. Asked after a look that others came between: what was
    /// seen since a dataset was closed may not be shown.
    pub fn hold(&self) -> bool {
        let mut anew = self.anew();
        let same =
            |of: u32, old: &Option<Arc<Verdict>>, anew: &mut Lenses<'_>| match (old, anew.of(of)) {
                (Some(old), Some(new)) => old.lens.is_like(&new.lens),
                (old, new) => old.is_none() && new.is_none(),
            };
        Arc::ptr_eq(&self.snapshot, &anew.snapshot)
            || self.decided.iter().all(|(of, old)| same(*of, old, &mut anew))
    }

    /// The verdict on reading a dataset; none when nothing may be seen.
    pub fn of(&mut self, number: u32) -> Option<Arc<Verdict>> {
        self.decided
            .entry(number)
            .or_insert_with(|| {
                let dataset = self.snapshot.by_number(number)?;
                let verdict = self.hub.state.verdict(self.session, Action::Read, number, dataset);
                verdict.allowed.then_some(verdict)
            })
            .clone()
    }

    /// The entity as the session sees it; none when it does not exist for the session.
    pub fn see(&mut self, held: &Held) -> Option<Arc<Seen>> {
        let verdict = self.of(held.dataset)?;
        let shown = held.deleted.is_none() && !verdict.lens.aggregate_only;
        shown
            .then(|| held.derived.get(verdict.id))?
            .or_else(|| Some(Arc::new(Seen::new(held, &verdict))))
    }
}
