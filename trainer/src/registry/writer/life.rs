//! Promotion, rejection, rollout and rollback. Nothing here touches the disk but to verify a bundle.

use std::collections::BTreeMap;

use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion};

use super::super::state::{LINEAGE_KEPT, ModelState, Step};
use super::super::{RegistryError, folder_of, load};
use super::Registry;
use crate::gate::Decision;
use crate::rollout::{Rollout, SHARES};

impl Registry {
    /// A person promotes: the bundle must be sound, and the rollout under way ends.
    pub(super) fn crown_by_hand(
        &mut self,
        name: &str,
        reason: &str,
        now_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        let entry = self.state.find(name)?;
        let version = entry.version.clone();
        if self.state.champion() == Some(&version) {
            return Err(RegistryError::Refused(format!(
                "{version} is the champion already"
            )));
        }
        load(&self.store, entry)?;
        let numbers = self.state.find(&version.0)?.metrics.clone();
        self.crown(&version, reason, numbers, now_ms)
    }

    /// Ends the rollout under way, or removes the champion from the end of the lineage.
    pub(super) fn return_to_previous(
        &mut self,
        reason: &str,
        now_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        if self.state.rollout.is_some() {
            return self.abandon_rollout(reason, BTreeMap::new(), now_ms);
        }
        let previous =
            self.state.previous().cloned().ok_or_else(|| {
                RegistryError::Refused("there is no previous champion to return to".to_owned())
            })?;
        load(&self.store, self.state.find(&previous.0)?)?;
        let old = self.state.lineage.pop();
        if let Some(old) = &old {
            let replaced = format!("rolled back to {previous}: {reason}");
            self.step(old, None, ModelState::Archived, &replaced, now_ms);
        }
        let event = ModelEvent {
            previous: old,
            ..self.event(&previous, ModelEventKind::RolledBack, reason, now_ms)?
        };
        let kind = Some(ModelEventKind::RolledBack);
        self.step(&previous, kind, ModelState::Production, reason, now_ms);
        self.state.outbox.push(event.clone());
        Ok(event)
    }

    /// Puts `version` at the end of the lineage; a rollout of another version ends.
    pub(super) fn crown(
        &mut self,
        version: &ModelVersion,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        self.end_rollout_but_of(version, now_ms);
        let previous = self.state.champion().cloned();
        if let Some(previous) = &previous {
            let replaced = format!("replaced by {version}");
            self.step(previous, None, ModelState::Archived, &replaced, now_ms);
        }
        let event = ModelEvent {
            numbers,
            previous,
            ..self.event(version, ModelEventKind::Promoted, reason, now_ms)?
        };
        let kind = Some(ModelEventKind::Promoted);
        self.step(version, kind, ModelState::Production, reason, now_ms);
        self.state.lineage.push(version.clone());
        let surplus = self.state.lineage.len().saturating_sub(LINEAGE_KEPT);
        self.state.lineage.drain(..surplus);
        self.state.outbox.push(event.clone());
        Ok(event)
    }

    pub(super) fn reject(
        &mut self,
        version: &ModelVersion,
        decision: &Decision,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        let event = ModelEvent {
            numbers: decision.numbers.clone(),
            ..self.event(version, ModelEventKind::Rejected, &decision.reason, now_ms)?
        };
        self.state.outbox.push(event);
        let kind = Some(ModelEventKind::Rejected);
        self.step(version, kind, ModelState::Archived, &decision.reason, now_ms);
        Ok(())
    }

    /// Begins the rollout of a challenger that passed the gate; it replaces one that is under way.
    pub(super) fn stage(
        &mut self,
        version: &ModelVersion,
        decision: &Decision,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        self.end_rollout_but_of(version, now_ms);
        let Some(champion) = self.state.champion().cloned() else {
            return Err(RegistryError::Refused(
                "there is no champion to roll out against".to_owned(),
            ));
        };
        self.state.rollout = Some(Rollout::begin(version.clone(), champion, now_ms));
        self.enter_stage(version, &decision.reason, decision.numbers.clone(), now_ms)
    }

    /// The rollout's next step; behind the last share comes the promotion.
    pub(crate) fn advance_rollout(
        &mut self,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        self.change(|registry| registry.advance(reason, numbers, now_ms))
    }

    /// Ends the rollout: the champion serves everybody.
    pub(crate) fn abort_rollout(
        &mut self,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        self.change(|registry| registry.abandon_rollout(reason, numbers, now_ms).map(drop))
    }

    pub(super) fn advance(
        &mut self,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        let Some(rollout) = &mut self.state.rollout else {
            return Err(RegistryError::Refused("no rollout is under way".to_owned()));
        };
        let version = rollout.version.clone();
        if rollout.next_stage(now_ms) {
            self.enter_stage(&version, reason, numbers, now_ms)
        } else {
            self.crown(&version, reason, numbers, now_ms).map(drop)
        }
    }

    fn enter_stage(
        &mut self,
        version: &ModelVersion,
        reason: &str,
        mut numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<(), RegistryError> {
        let stage = self.state.rollout.as_ref().map_or(0, |rollout| rollout.stage);
        let share = SHARES.get(stage).copied().unwrap_or(0.0);
        numbers.insert(ModelEvent::SHARE.to_owned(), share);
        let event = ModelEvent {
            numbers,
            ..self.event(version, ModelEventKind::RolloutStep, reason, now_ms)?
        };
        let kind = Some(ModelEventKind::RolloutStep);
        let entered = format!("serves {:.0}% of the users: {reason}", share * 100.0);
        self.step(version, kind, ModelState::Staging, &entered, now_ms);
        self.state.outbox.push(event);
        Ok(())
    }

    fn abandon_rollout(
        &mut self,
        reason: &str,
        numbers: BTreeMap<String, f64>,
        now_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        let Some(rollout) = self.state.rollout.take() else {
            return Err(RegistryError::Refused("no rollout is under way".to_owned()));
        };
        let champion = self
            .state
            .champion()
            .cloned()
            .ok_or_else(|| RegistryError::Refused("there is no champion to return to".to_owned()))?;
        let event = ModelEvent {
            numbers,
            previous: Some(rollout.version.clone()),
            ..self.event(&champion, ModelEventKind::RolledBack, reason, now_ms)?
        };
        let ended = format!("rollout ended: {reason}");
        self.step(&rollout.version, None, ModelState::Archived, &ended, now_ms);
        let kind = Some(ModelEventKind::RolledBack);
        self.step(&champion, kind, ModelState::Production, &ended, now_ms);
        self.state.outbox.push(event.clone());
        Ok(event)
    }

    fn end_rollout_but_of(&mut self, version: &ModelVersion, now_ms: i64) {
        if let Some(rollout) = self
            .state
            .rollout
            .take()
            .filter(|rollout| rollout.version != *version)
        {
            let superseded = format!("superseded by {version} while it was being rolled out");
            self.step(&rollout.version, None, ModelState::Archived, &superseded, now_ms);
        }
    }

    pub(super) fn step(
        &mut self,
        version: &ModelVersion,
        kind: Option<ModelEventKind>,
        state: ModelState,
        reason: &str,
        at_ms: i64,
    ) {
        if let Some(entry) = self.state.find_mut(version) {
            entry.state = state;
            entry.steps.push(Step {
                kind,
                state,
                at_ms,
                reason: reason.to_owned(),
            });
        }
    }

    /// An event about a stored version. Its id counts how often this step was taken before.
    pub(super) fn event(
        &self,
        version: &ModelVersion,
        kind: ModelEventKind,
        reason: &str,
        at_ms: i64,
    ) -> Result<ModelEvent, RegistryError> {
        let entry = self.state.find(&version.0)?;
        let before = entry.steps.iter().filter(|step| step.kind == Some(kind)).count();
        let name = serde_json::to_value(kind)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        let event_id = if before == 0 {
            format!("{version}/{name}")
        } else {
            format!("{version}/{name}/{}", before + 1)
        };
        Ok(ModelEvent {
            event_id,
            bundle_uri: Some(self.store.describe(&folder_of(version)).display().to_string()),
            bundle_sha256: Some(entry.bundle_sha256.clone()),
            offsets: entry.offsets.clone(),
            ..self.bare_event(version.clone(), kind, reason, at_ms)
        })
    }
}
