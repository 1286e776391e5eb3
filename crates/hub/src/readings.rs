//! The short way for most of what a city sends: numbers that only move the state of series that are
//! there already. Everything is decided and checked as for any other write; what needs more than
//! that is left to [`Hub::write`], whole.

use crate::job::{Job, WriteJob, WriterStep};
use crate::write::Deciding;
use crate::{Hub, HubError, ItemResult, ReceiptRef, WriteReport};
use model::{
    Action, Attribute, Content, Entity, Instance, Kind, Sensitivity, Session, Status, Time, Value,
};
use ngsild::{Measured, Reading};
use std::sync::Arc;
use store::{Glance, Held, Step, Under};

/// Whether a step still only moves the state: the entity is as it was when the step was made.
pub fn still_fits(entity: &Glance<'_>, step: &Step, late: bool) -> bool {
    let Some(current) = entity.number_of(step.series) else { return false };
    let older = step.at.is_some_and(|at| current.observed_at.is_some_and(|before| before > at));
    late || !older
}

/// The change that a step stands for, for when it is more than a step after all.
pub fn as_entity(held: &Held, step: &Step) -> Option<Entity> {
    let series = held.series.iter().find(|series| series.number == step.series)?;
    let instance = Instance {
        instance_id: series.instance_id.clone(),
        unit: series.unit.clone(),
        observed_at: step.at,
        ..Instance::of(Content::Property(Value::from_number(step.value)))
    };
    Some(Entity {
        id: held.entity.id.clone(),
        types: Vec::new(),
        scopes: Vec::new(),
        created: Time::default(),
        modified: Time::default(),
        attributes: vec![Attribute { name: series.name.clone(), instances: vec![instance] }],
    })
}

impl Hub {
    /// Writes readings, if every one of them is a number for a series that is there, permitted and
    /// fit; none when any is not: then nothing was done, and the changes have to be written.
    ///
    /// # Errors
    /// When nothing could be committed.
    pub async fn write_readings(
        &self,
        session: &Session,
        into: Option<&str>,
        readings: &[Reading<'_>],
    ) -> Result<Option<WriteReport>, HubError> {
        if readings.len() > self.options.limits.batch
            || session.principal.status == Status::Quarantined
        {
            return Ok(None);
        }
        let subscriptions = self.subscriptions.version();
        let Some(steps) = self.steps_of(session, into, readings) else { return Ok(None) };
        let late = session.principal.kind == Kind::Device;
        let writer = session.principal.number;
        self.state.note_seen(writer, self.now());
        let committed = self
            .submit(|reply| {
                Job::Write(WriteJob {
                    late,
                    steps,
                    subscriptions,
                    readings: readings.len(),
                    ..WriteJob::new(writer, reply)
                })
            })
            .await??;
        let receipt = ReceiptRef::of(&committed);
        let of = |result| match result {
            Ok(outcome) => ItemResult::Done(outcome),
            Err(refusal) => ItemResult::Refused(HubError::Refusal(refusal)),
        };
        Ok(Some(WriteReport { results: committed.results.into_iter().map(of).collect(), receipt }))
    }

    fn steps_of(
        &self,
        session: &Session,
        into: Option<&str>,
        readings: &[Reading<'_>],
    ) -> Option<Vec<WriterStep>> {
        let mut deciding = Deciding::new(self, session);
        let mut fine: Vec<(u32, Arc<model::Dataset>)> = Vec::new();
        let latest = self.now().plus_seconds(self.options.limits.ahead as i64);
        let device = session.principal.kind == Kind::Device;
        let mut steps = Vec::with_capacity(readings.len());
        let now = self.store.now();
        for (reading, place) in readings.iter().zip(0u32..) {
            let entity = now.glance(reading.id)?;
            let (types, of) = (&entity.table().types, entity.table().dataset);
            let typed = |wanted: &&str| types.iter().any(|name| name.as_str() == *wanted);
            if reading.of_type.as_ref().is_some_and(|wanted| !typed(wanted)) {
                return None;
            }
            if !fine.iter().any(|(number, _)| *number == of) {
                let dataset = deciding.snapshot.by_number(of)?.clone();
                if !self.takes_steps(&mut deciding, into, of, &dataset) {
                    return None;
                }
                fine.push((of, dataset));
            }
            let (_, dataset) = fine.iter().find(|(number, _)| *number == of)?;
            let streams = !device || session.principal.may_stream(reading.id);
            if !streams || self.subscriptions.concern(reading.id, types) {
                return None;
            }
            for measured in &reading.measured {
                let step = step_of(&entity, measured, dataset)?;
                if step.at.is_some_and(|at| at > latest) || !still_fits(&entity, &step, device) {
                    return None;
                }
                steps.push(WriterStep { step, reading: place, typed: reading.of_type.is_some() });
            }
        }
        Some(steps)
    }

    /// Whether steps into a dataset may go the short way at all.
    fn takes_steps(
        &self,
        deciding: &mut Deciding<'_>,
        into: Option<&str>,
        number: u32,
        dataset: &Arc<model::Dataset>,
    ) -> bool {
        let personal = dataset.each_sensitivity().any(|level| level >= Sensitivity::Personal);
        into.is_none_or(|into| into == dataset.id)
            && deciding.on(Action::Write, number, dataset).allowed
            && !dataset.about_people
            && (!personal || dataset.catch_all)
            && self.store.has_key(Under::Dataset(number))
    }
}

/// The step that a number makes, if its attribute has a series for it and takes it.
fn step_of(entity: &Glance<'_>, measured: &Measured<'_>, dataset: &model::Dataset) -> Option<Step> {
    let observed = measured.observed_at.is_some();
    let current = entity.number_called(measured.name, measured.unit, observed)?;
    let before = current.value;
    let fits = dataset.fits_number(measured.name, measured.unit, measured.value, before);
    let step = Step {
        entity: entity.number(),
        series: current.series,
        at: measured.observed_at,
        value: measured.value,
    };
    fits.then_some(step)
}
