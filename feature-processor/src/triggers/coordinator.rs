//! Looks at everything together, decides, and makes it durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use croner::Cron;
use marquee_runtime::bus::{Outgoing, RawRecord};
use marquee_schemas::{
    ModelEvent, ModelEventKind, Offset, PartitionOffset, QualityMetric, RetrainEvent, SchemaVersion, Topic,
    Trigger, TriggerDecision, TriggerOutcome, TriggerVerdict, decode,
};
use redb::Database;

use super::file;
use super::ledger::{Alarm, Base, Ledger, Request, Rollout, TrainingEnd, named_offsets};
use super::metrics::Metrics;
use super::quality::{QualityConfig, describe};
use super::rules::{Condition, Facts, conditions, on_grid};
use super::signals::{Positions, Signals};
use super::windows::{Closed, Gatherer, ObservationSource, reference};
use super::{PartitionTotals, TriggerConfig, publish};
use crate::drift::{Adwin, DriftConfig, Feature, GenresOf, Monitor, WindowReport, effective_observations};
use crate::{CrashPoint, Error, Faults, Refusal};

/// What the coordinator is told once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// When to ask.
    pub triggers: TriggerConfig,
    /// When a distribution has moved.
    pub drift: DriftConfig,
    /// When a window's data is anomalous.
    pub quality: QualityConfig,
}

/// What the coordinator looks at.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Totals of the partitions that this process has now.
    pub live: &'a BTreeMap<i32, PartitionTotals>,
    /// Their observations.
    pub source: &'a dyn ObservationSource,
    /// The catalogue.
    pub genres_of: GenresOf<'a>,
    /// Wall time, ms.
    pub now_ms: i64,
    /// Where to crash.
    pub faults: &'a dyn Faults,
}

/// The coordinator of retrain requests.
pub struct Triggers {
    path: PathBuf,
    settings: Settings,
    cron: Option<Cron>,
    db: Database,
    ledger: Ledger,
    monitor: Monitor,
    adwin: Adwin,
    gatherer: Gatherer,
    signals: Option<Signals>,
    waiting: BTreeMap<u64, Outgoing>,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Triggers")
            .field("path", &self.path)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

/// What changes at a look, until it is durable.
#[derive(Debug)]
struct Change {
    ledger: Ledger,
    outgoing: Vec<Outgoing>,
    /// What made the look worth a decision.
    occasion: Option<&'static str>,
    /// The histograms have changed, or positions have.
    dirty: bool,
    /// The offsets of a new champion's data.
    rebase: Option<BTreeMap<i32, i64>>,
}

impl Triggers {
    /// Opens or creates `triggers.redb` in `folder`, which must exist.
    ///
    /// # Errors
    /// [`Error::Store`] if the file cannot be opened or read, [`Error::Config`] for a schedule that is none.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, Error> {
        let path = folder.join(file::NAME);
        let cron = settings.triggers.cron()?;
        let (db, state) = file::open(&path).map_err(Error::store(&path))?;
        Ok(Self {
            path,
            settings,
            cron,
            db,
            ledger: state.ledger,
            monitor: state.monitor,
            adwin: state.adwin,
            gatherer: Gatherer::default(),
            signals: None,
            waiting: state.waiting,
        })
    }

    /// Where to go on reading [`super::SIGNAL_TOPICS`].
    #[must_use]
    pub fn positions(&self) -> Positions {
        super::SIGNAL_TOPICS
            .into_iter()
            .filter_map(|topic| Some((topic, self.ledger.positions.get(topic.name())?)))
            .flat_map(|(topic, partitions)| {
                partitions
                    .iter()
                    .map(move |(&partition, &next)| ((topic, partition), next))
            })
            .collect()
    }

    /// Hears what the other services say from now on.
    pub fn listen(&mut self, signals: Signals) {
        self.signals = Some(signals);
    }

    /// Whether there is a reason to look although no interaction has come in.
    pub fn is_due(&mut self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.ledger.decided_at_ms) >= self.settings.triggers.decide_every_ms
            || self.signals.as_mut().is_some_and(Signals::any)
    }

    /// Takes in what is new, decides, and records the decision with everything that it rests on.
    ///
    /// # Errors
    /// [`Error::Store`] if the decision cannot be recorded: it falls again at the next start.
    pub fn look(&mut self, look: Look<'_>) -> Result<(), Error> {
        let mut change = Change {
            ledger: self.ledger.clone(),
            outgoing: Vec::new(),
            occasion: None,
            dirty: false,
            rebase: None,
        };
        change.ledger.known.extend(look.live);
        for record in self.signals.as_mut().map(Signals::take).unwrap_or_default() {
            self.hear(&record, look.now_ms, &mut change);
        }
        change.dirty |= change.ledger.catch_up();
        if let Some(offsets) = change.rebase.take() {
            let seen = reference(&self.settings.drift, &offsets, look.source)?;
            self.monitor.rebase(&self.settings.drift, &seen, look.genres_of);
            tracing::info!(
                observations = seen.len(),
                "drift is measured from a new reference"
            );
        }
        for closed in self
            .gatherer
            .gather(&self.settings.drift, &change.ledger.consumed, look.source)?
        {
            self.close_window(closed, look, &mut change);
        }
        self.decide(look, &mut change)?;
        if change.dirty || !change.outgoing.is_empty() {
            self.record(&change)?;
        }
        self.ledger = change.ledger;
        Ok(())
    }

    /// One record of another service.
    fn hear(&mut self, record: &RawRecord, now_ms: i64, change: &mut Change) {
        if change
            .ledger
            .position(record.topic, record.partition)
            .is_some_and(|next| record.offset < next)
        {
            return;
        }
        change.dirty = true;
        change
            .ledger
            .positions
            .entry(record.topic.name().to_owned())
            .or_default()
            .insert(record.partition, record.next_offset());
        let bytes = record.value.as_deref().unwrap_or_default();
        let heard = match record.topic {
            Topic::RetrainEvents => decode(bytes).map(|event| hear_request(&event, &mut change.ledger)),
            Topic::ModelEvents => decode(bytes).map(|event| self.hear_model(&event, change)),
            Topic::QualityMetrics => decode(bytes).map(|metric| self.hear_metric(&metric, change)),
            _ => return,
        };
        if let Err(error) = heard {
            let letter = Refusal::from(error).dead_letter(record, now_ms);
            change.outgoing.push(Outgoing::of(&letter));
        }
    }

    fn hear_model(&mut self, event: &ModelEvent, change: &mut Change) {
        let ledger = &mut change.ledger;
        if event.kind == ModelEventKind::RolloutStep {
            let earlier = ledger
                .rollout
                .take()
                .filter(|rollout| rollout.version == event.version);
            ledger.rollout = Some(Rollout {
                version: event.version.clone(),
                at_ms: event.at_ms,
                // What is asked for between two of its steps, it does not answer.
                training: match earlier {
                    Some(earlier) => earlier.training,
                    None => Some(TrainingEnd::of(event)),
                },
            });
            change.occasion = Some("model");
        }
        if matches!(event.kind, ModelEventKind::Promoted | ModelEventKind::RolledBack) {
            let ended = ledger.rollout.take();
            if event.kind == ModelEventKind::RolledBack
                && let Some(training) = ended.and_then(|rollout| rollout.training)
            {
                // Nothing else will be heard of the training that the rollout was of.
                ledger.request.take_if(|request| training.answers(request));
            }
            ledger.champion = Some(event.version.clone());
            ledger.metrics = Metrics::default();
            ledger.drift = None;
            ledger.watchlist = None;
            self.adwin = Adwin::default();
            change.rebase = Some(named_offsets(&event.offsets));
            change.occasion = Some("model");
        }
        if !matches!(
            event.kind,
            ModelEventKind::Promoted | ModelEventKind::Rejected | ModelEventKind::Failed
        ) {
            return;
        }
        let end = TrainingEnd::of(event);
        let answered = ledger.request.take_if(|request| end.answers(request));
        if event.kind == ModelEventKind::Failed {
            // What is new since the last model is still new.
            let (interactions, users) = ledger.base.map_or((0, 0), |base| (base.interactions, base.users));
            ledger.base = Some(Base {
                interactions,
                users,
                at_ms: event.at_ms,
            });
        } else {
            ledger.trained(&end.offsets, event.at_ms, answered.as_ref());
        }
        ledger.last_training = Some(end);
        change.occasion = Some("model");
    }

    fn hear_metric(&mut self, metric: &QualityMetric, change: &mut Change) {
        let config = &self.settings.triggers;
        let ledger = &mut change.ledger;
        let of_champion = ledger.champion.is_some() && metric.model_version == ledger.champion;
        if of_champion && metric.name == config.hit_rate_metric && metric.population == "all" {
            let weight = effective_observations(metric.value, metric.lo.zip(metric.hi), metric.n);
            if let Some(moved) = self.adwin.add(metric.value, weight)
                && moved.after < moved.before
            {
                let numbers = [
                    ("before", moved.before),
                    ("after", moved.after),
                    ("bound", moved.bound),
                    ("observations_before", moved.weights.0),
                    ("observations_after", moved.weights.1),
                ];
                ledger.drift.get_or_insert(Alarm {
                    id: format!("m{}", metric.window_end_ms),
                    what: vec![format!("{} fell", metric.name)],
                    numbers: numbers
                        .map(|(name, value)| (format!("{} {name}", metric.name), value))
                        .into(),
                });
            }
        }
        if ledger.metrics.take(config, ledger.champion.as_ref(), metric) {
            change.occasion.get_or_insert("metrics");
        }
    }

    fn close_window(&mut self, closed: Closed, look: Look<'_>, change: &mut Change) {
        let Closed { window, consumed } = closed;
        let ledger = &mut change.ledger;
        ledger.windows += 1;
        ledger.consumed = consumed;
        change.dirty = true;
        change.occasion.get_or_insert("window");
        let drift = if window.is_sufficient(&self.settings.drift) {
            self.monitor
                .close(&self.settings.drift, &window.observations, look.genres_of)
        } else {
            WindowReport::default()
        };
        let mut quality = describe(&window, &self.monitor);
        ledger.quality.judge(&self.settings.quality, &mut quality, &drift);
        let id = format!("p{}-w{}", ledger.scope(), ledger.windows);
        tracing::debug!(
            window = id,
            users = window.users,
            events = window.history,
            alarms = ?drift.alarms,
            anomalies = ?quality.anomalies,
            "window closed"
        );
        let (watchlist, others): (Vec<Feature>, Vec<Feature>) = drift
            .alarms
            .iter()
            .partition(|&&feature| feature == Feature::WatchlistGenre);
        let alarm = |features: &[Feature]| Alarm {
            id: format!("w{}", ledger.windows),
            what: features.iter().map(Feature::to_string).collect(),
            numbers: publish::findings(&drift, features),
        };
        if !others.is_empty() && ledger.drift.is_none() {
            ledger.drift = Some(alarm(&others));
        }
        if !watchlist.is_empty() && ledger.watchlist.is_none() {
            ledger.watchlist = Some(alarm(&watchlist));
        }
        change
            .outgoing
            .extend(publish::window(&id, ledger.champion.as_ref(), &quality, &drift));
    }

    fn decide(&mut self, look: Look<'_>, change: &mut Change) -> Result<(), Error> {
        let config = &self.settings.triggers;
        let ledger = &mut change.ledger;
        if let Some(lost) = ledger
            .request
            .take_if(|request| look.now_ms.saturating_sub(request.at_ms) >= config.in_flight_timeout_ms)
        {
            tracing::warn!(
                event_id = lost.event_id,
                "nobody has answered a request for a training"
            );
        }
        if let Some(stuck) = ledger
            .rollout
            .take_if(|rollout| look.now_ms.saturating_sub(rollout.at_ms) >= config.max_model_age_ms)
        {
            tracing::warn!(
                version = stuck.version.0,
                "a rollout has not moved for as long as a model may grow old"
            );
        }
        let conditions = conditions(Facts {
            config,
            cron: self.cron.as_ref(),
            ledger,
            now_ms: look.now_ms,
        });
        let cooling = ledger.base.is_some_and(|base| {
            look.now_ms.saturating_sub(base.at_ms) < config.cooldown_ms
                || ledger.total().saturating_sub(base.interactions) < config.cooldown_interactions
        });
        let in_flight = ledger.request.is_some() || ledger.rollout.is_some();
        let outcomes = arbitrate(&conditions, in_flight, cooling);
        let of = |outcome: TriggerOutcome| {
            conditions
                .iter()
                .zip(&outcomes)
                .filter(move |&(_, found)| *found == outcome)
                .map(|(condition, _)| condition)
        };
        let held: BTreeSet<Trigger> = of(TriggerOutcome::InFlight)
            .chain(of(TriggerOutcome::CoolingDown))
            .map(|condition| condition.trigger)
            .collect();
        let asks = of(TriggerOutcome::Asked).next();
        let total = ledger.total();
        let many = total
            >= ledger
                .decided_total
                .saturating_add(config.decide_every_interactions);
        let long = look.now_ms.saturating_sub(ledger.decided_at_ms) >= config.decide_every_ms;
        if asks.is_none() && held == ledger.held && change.occasion.is_none() && !many && !long {
            return Ok(());
        }
        let offsets: Vec<PartitionOffset> = look
            .live
            .iter()
            .map(|(&partition, totals)| PartitionOffset {
                topic: Topic::Interactions.to_string(),
                partition,
                offset: Offset(totals.next_offset),
            })
            .collect();
        let request = asks.map(|condition| RetrainEvent {
            schema_version: SchemaVersion,
            event_id: condition.event_id.clone(),
            trigger: condition.trigger,
            reason: condition.reason.clone(),
            numbers: condition.numbers.clone(),
            offsets: offsets.clone(),
            champion: ledger.champion.clone(),
            decided_at_ms: look.now_ms,
        });
        let answered: Vec<Trigger> = of(TriggerOutcome::Asked)
            .chain(of(TriggerOutcome::Joined))
            .map(|condition| condition.trigger)
            .collect();
        if let Some(request) = &request {
            look.faults.pass(CrashPoint::BeforeDecision)?;
            tracing::info!(
                event_id = request.event_id,
                reason = request.reason,
                "asking for a training"
            );
            ledger.request = Some(Request::of(request, total, ledger.users()));
        }
        for trigger in answered {
            ledger.answer(trigger, config, total);
        }
        let occasion = match change.occasion {
            Some(occasion) => occasion,
            None if many || request.is_some() => "interactions",
            None => "clock",
        };
        ledger.decisions += 1;
        let decision = TriggerDecision {
            schema_version: SchemaVersion,
            decision_id: format!("p{}-{}", ledger.scope(), ledger.decisions),
            occasion: occasion.into(),
            verdicts: conditions
                .into_iter()
                .zip(outcomes)
                .map(|(condition, outcome)| TriggerVerdict {
                    trigger: condition.trigger,
                    outcome,
                    reason: condition.reason,
                    numbers: condition.numbers,
                })
                .collect(),
            retrain_event_id: request.as_ref().map(|request| request.event_id.clone()),
            champion: ledger.champion.clone(),
            offsets,
            decided_at_ms: look.now_ms,
        };
        ledger.decided_total = total;
        ledger.decided_at_ms = look.now_ms;
        ledger.held = held;
        change.outgoing.extend(request.as_ref().map(Outgoing::of));
        change.outgoing.push(Outgoing::of(&decision));
        Ok(())
    }

    /// Remembers the totals of a partition that is given back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self, partition: i32, totals: PartitionTotals) -> Result<(), Error> {
        self.ledger.known.insert(partition, totals);
        let change = Change {
            ledger: self.ledger.clone(),
            outgoing: Vec::new(),
            occasion: None,
            dirty: true,
            rebase: None,
        };
        self.record(&change)
    }

    /// Requests, decisions and figures not yet acknowledged, oldest first.
    #[must_use]
    pub fn outgoing(&self) -> Vec<Outgoing> {
        self.waiting.values().cloned().collect()
    }

    /// Notes that everything [`Triggers::outgoing`] returned has been acknowledged.
    ///
    /// # Errors
    /// The file cannot be written: the records will be sent again, under the same ids.
    pub fn published(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        file::clear(&self.db, self.waiting.keys().copied()).map_err(Error::store(&self.path))?;
        self.waiting.clear();
        Ok(())
    }

    fn record(&mut self, change: &Change) -> Result<(), Error> {
        let first = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        let fresh: Vec<(u64, &Outgoing)> = (first..).zip(&change.outgoing).collect();
        file::write(&self.db, &change.ledger, &self.monitor, &self.adwin, &fresh)
            .map_err(Error::store(&self.path))?;
        self.waiting
            .extend(fresh.into_iter().map(|(number, record)| (number, record.clone())));
        Ok(())
    }
}

/// A request seen in its topic: one's own again, another process's, or a person's.
fn hear_request(event: &RetrainEvent, ledger: &mut Ledger) {
    let request = Request::of(event, ledger.total(), ledger.users());
    let answered = ledger
        .last_training
        .as_ref()
        .is_some_and(|end| end.answers(&request));
    let newer = ledger
        .request
        .as_ref()
        .is_none_or(|known| known.event_id != request.event_id && request.at_ms > known.at_ms);
    if !answered && newer {
        ledger.request = Some(request);
    }
}

/// What becomes of each condition.
fn arbitrate(conditions: &[Condition], in_flight: bool, cooling: bool) -> Vec<TriggerOutcome> {
    let mut asked = false;
    conditions
        .iter()
        .map(|condition| {
            if !condition.due {
                TriggerOutcome::NotDue
            } else if in_flight {
                TriggerOutcome::InFlight
            } else if cooling && !condition.immediate {
                TriggerOutcome::CoolingDown
            } else if std::mem::replace(&mut asked, true) {
                TriggerOutcome::Joined
            } else {
                TriggerOutcome::Asked
            }
        })
        .collect()
}

impl Ledger {
    /// Forgets what a request has now been made for.
    fn answer(&mut self, trigger: Trigger, config: &TriggerConfig, total: u64) {
        match trigger {
            Trigger::Bootstrap => {
                self.answered = Some(on_grid(config, config.bootstrap_min_interactions, total));
            }
            Trigger::Volume => {
                self.answered = self.answered.map(|answered| on_grid(config, answered, total));
            }
            Trigger::Drift => self.drift = None,
            Trigger::WatchlistShift => self.watchlist = None,
            Trigger::DataQuality => self.quality.running = 0,
            Trigger::MetricFloor | Trigger::MetricDrop | Trigger::CtrDrop => self.metrics.answered(),
            Trigger::RatingGrowth | Trigger::UserGrowth | Trigger::Schedule | Trigger::Manual => {}
        }
    }
}

#[cfg(test)]
mod tests;
