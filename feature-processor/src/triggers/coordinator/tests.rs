//! Each trigger: what fires it, what nearly does, and what makes it wait.

use std::sync::Arc;

use marquee_runtime::bus::Handler;
use marquee_schemas::{DeadLetter, Kind, ModelVersion, MovieId, Reason, Record, encode};
use tempfile::TempDir;

use super::*;
use crate::drift::{Fate, Observation};
use crate::triggers::{SignalReader, signals};
use crate::{NoFaults, Segment};

const HOUR_MS: i64 = 3_600_000;
const CHAMPION: &str = "v000001";

/// Observations in memory.
#[derive(Debug, Default)]
struct Seen(BTreeMap<i32, Vec<Observation>>);

impl ObservationSource for Seen {
    fn partitions(&self) -> Vec<i32> {
        self.0.keys().copied().collect()
    }

    fn observed(&self, partition: i32) -> u64 {
        self.0[&partition].len() as u64
    }

    fn observations(&self, partition: i32, from: u64) -> Result<Vec<Segment>, Error> {
        let segments = self.0[&partition].chunks(128).zip(0_u64..);
        Ok(segments
            .filter(|&(_, number)| number >= from)
            .map(|(observations, number)| Segment {
                number,
                first_offset: (number * 128).cast_signed(),
                observations: observations.to_vec(),
            })
            .collect())
    }
}

/// A coordinator with everything around it.
struct Desk {
    folder: TempDir,
    settings: Settings,
    triggers: Triggers,
    reader: SignalReader,
    heard: i64,
    seen: Seen,
    live: BTreeMap<i32, PartitionTotals>,
    now_ms: i64,
    sent: Vec<Outgoing>,
}

/// Settings under which only the first request is ever due; tests turn on what they are about.
fn quiet() -> Settings {
    Settings {
        triggers: TriggerConfig {
            bootstrap_min_interactions: 20,
            bootstrap_min_users: 5,
            volume_interactions: 1_000_000,
            interaction_growth: 1e9,
            user_growth: 1e9,
            max_model_age_ms: i64::MAX / 4,
            cooldown_ms: HOUR_MS,
            cooldown_interactions: 10,
            in_flight_timeout_ms: 6 * HOUR_MS,
            decide_every_interactions: 1,
            ..TriggerConfig::default()
        },
        drift: DriftConfig {
            window_events: 256,
            window_users: 20,
            reference_events: 1_024,
            ..DriftConfig::default()
        },
        quality: QualityConfig::default(),
    }
}

impl Desk {
    fn new(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (triggers, reader) = open(&folder, &settings);
        Self {
            folder,
            settings,
            triggers,
            reader,
            heard: 0,
            seen: Seen::default(),
            live: [(0, PartitionTotals::default())].into(),
            now_ms: 1_000 * HOUR_MS,
            sent: Vec::new(),
        }
    }

    /// A desk whose first model has just been promoted, with 100 interactions of 20 users.
    fn trained(settings: Settings) -> Self {
        let mut desk = Self::new(settings);
        desk.totals(100, 20);
        let asked = desk.look().retrain_event_id.unwrap();
        desk.answer(ModelEventKind::Promoted, &asked);
        desk.look();
        desk
    }

    /// The same when the cooldown is over.
    fn rested(settings: Settings) -> Self {
        let mut desk = Self::trained(settings);
        desk.now_ms += HOUR_MS;
        desk.totals(110, 20);
        desk
    }

    fn totals(&mut self, history: u64, users: u64) {
        let totals = PartitionTotals {
            next_offset: history.cast_signed(),
            history,
            users,
        };
        self.live.insert(0, totals);
    }

    fn restart(self) -> Self {
        let Self {
            folder,
            settings,
            triggers,
            ..
        } = self;
        drop(triggers);
        let (triggers, reader) = open(&folder, &settings);
        Self {
            folder,
            settings,
            triggers,
            reader,
            ..self
        }
    }

    fn hear(&mut self, topic: Topic, value: Vec<u8>) {
        self.heard += 1;
        let record = RawRecord {
            topic,
            partition: 0,
            offset: self.heard,
            timestamp_ms: -1,
            key: None,
            value: Some(value),
        };
        self.reader.handle(vec![record]).unwrap();
        // Takes it off the bounded channel.
        self.triggers.signals.as_mut().map(Signals::any);
    }

    fn answer(&mut self, kind: ModelEventKind, retrain_event_id: &str) {
        self.tell(kind, CHAMPION, retrain_event_id);
    }

    /// A step in the life of `version`.
    fn tell(&mut self, kind: ModelEventKind, version: &str, retrain_event_id: &str) {
        let offset = self.live[&0].next_offset;
        let event = ModelEvent {
            schema_version: SchemaVersion,
            event_id: format!("{kind:?}/{retrain_event_id}"),
            version: ModelVersion(version.into()),
            kind,
            reason: "test".into(),
            bundle_uri: None,
            bundle_sha256: None,
            offsets: vec![PartitionOffset {
                topic: Topic::Interactions.to_string(),
                partition: 0,
                offset: Offset(offset),
            }],
            numbers: BTreeMap::new(),
            retrain_event_id: Some(retrain_event_id.into()),
            joined_retrain_event_ids: Vec::new(),
            previous: None,
            checks: Vec::new(),
            command_id: None,
            at_ms: self.now_ms,
        };
        self.hear(Topic::ModelEvents, encode(&event));
    }

    /// One window of a metric of the champion; the windows follow each other.
    fn measure(&mut self, name: &str, value: f64) {
        let metric = QualityMetric {
            schema_version: SchemaVersion,
            metric_id: format!("{name}/{}", self.heard),
            name: name.into(),
            scope: "model".into(),
            population: "all".into(),
            model_version: Some(ModelVersion(CHAMPION.into())),
            value,
            lo: None,
            hi: None,
            n: 1_000,
            window_start_ms: self.heard,
            window_end_ms: self.heard + 1,
        };
        self.hear(Topic::QualityMetrics, encode(&metric));
    }

    fn try_look(&mut self, faults: &dyn Faults) -> Result<(), Error> {
        let drama = [Arc::<str>::from("Drama")];
        let horror = [Arc::<str>::from("Horror")];
        let genres_of = |movie: MovieId| Some(if movie.0 >= 900 { &horror[..] } else { &drama[..] });
        self.triggers.look(Look {
            live: &self.live,
            source: &self.seen,
            genres_of: &genres_of,
            now_ms: self.now_ms,
            faults,
        })
    }

    /// Looks, and gives the last decision that has been published so far.
    fn look(&mut self) -> TriggerDecision {
        self.try_look(&NoFaults).unwrap();
        self.sent.extend(self.triggers.outgoing());
        self.triggers.published().unwrap();
        self.of_topic(Topic::TriggerDecisions).pop().unwrap()
    }

    fn of_topic<T: Record>(&self, topic: Topic) -> Vec<T> {
        self.sent
            .iter()
            .filter(|record| record.topic == topic)
            .map(|record| decode(record.value.as_deref().unwrap()).unwrap())
            .collect()
    }

    fn requests(&self) -> Vec<String> {
        self.of_topic::<RetrainEvent>(Topic::RetrainEvents)
            .into_iter()
            .map(|event| event.event_id)
            .collect()
    }

    fn outcome(&mut self, trigger: Trigger) -> TriggerOutcome {
        let decision = self.look();
        let verdict = decision
            .verdicts
            .iter()
            .find(|verdict| verdict.trigger == trigger);
        verdict.unwrap().outcome
    }

    /// Two windows' worth of events, each of 64 users in turn; `stars` and `movie` by the event's number.
    fn events(&mut self, windows: usize, change: impl Fn(usize, &mut Observation)) {
        let seen = self.seen.0.entry(0).or_default();
        for n in 0..windows * 256 {
            let number = seen.len();
            let mut observation = Observation::not_applied(Fate::Applied(Kind::Rating), None);
            observation.user = (number / 7 % 64) as u64;
            observation.movie = 1 + (number * 31 % 97) as u32;
            observation.half_stars = 2 * (1 + (number * 13 % 5) as u8);
            observation.timestamp_ms = (1 + number as i64) * 1_000;
            observation.tenure_ms = 40 * 24 * HOUR_MS;
            change(n, &mut observation);
            seen.push(observation);
        }
        let history = 100 + seen.len() as u64;
        self.totals(history, 64);
    }
}

fn open(folder: &TempDir, settings: &Settings) -> (Triggers, SignalReader) {
    let mut triggers = Triggers::open(folder.path(), settings.clone()).unwrap();
    let (reader, heard) = signals(triggers.positions());
    triggers.listen(heard);
    (triggers, reader)
}

/// A person's request.
fn manual(event_id: &str, decided_at_ms: i64) -> RetrainEvent {
    RetrainEvent {
        schema_version: SchemaVersion,
        event_id: event_id.into(),
        trigger: Trigger::Manual,
        reason: "because".into(),
        numbers: BTreeMap::new(),
        offsets: vec![],
        champion: None,
        decided_at_ms,
    }
}

use TriggerOutcome::{Asked, CoolingDown, InFlight, Joined, NotDue};

#[test]
fn the_first_request_waits_for_interactions_and_users_and_is_made_once() {
    let mut desk = Desk::new(quiet());
    for (history, users) in [(19, 50), (500, 4)] {
        desk.totals(history, users);
        assert_eq!(desk.outcome(Trigger::Bootstrap), NotDue);
    }
    // There is no training yet to cool down from; what it may have to wait for is a person's request.
    let now_ms = desk.now_ms;
    desk.hear(Topic::RetrainEvents, encode(&manual("manual-1", now_ms)));
    desk.totals(500, 5);
    assert_eq!(desk.outcome(Trigger::Bootstrap), InFlight);
    desk.answer(ModelEventKind::Failed, "manual-1");
    assert_eq!(desk.outcome(Trigger::Bootstrap), Asked);
    desk.totals(900, 9);
    assert_eq!(desk.outcome(Trigger::Bootstrap), NotDue);
    assert_eq!(desk.requests(), ["bootstrap-p0"]);
}

#[test]
fn volume_asks_on_its_grid_waits_for_the_training_and_does_not_wait_for_the_cooldown() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    let mut desk = Desk::trained(settings);
    desk.totals(119, 20);
    assert_eq!(desk.outcome(Trigger::Volume), NotDue, "the grid is 20 + k × 100");
    desk.totals(120, 20);
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
    desk.totals(345, 20);
    assert_eq!(desk.outcome(Trigger::Volume), InFlight);
    desk.answer(ModelEventKind::Rejected, "volume-p0-20");
    assert_eq!(
        desk.outcome(Trigger::Volume),
        InFlight,
        "that was another request"
    );
    desk.answer(ModelEventKind::Rejected, "volume-p0-120");
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
    assert_eq!(
        desk.requests(),
        ["bootstrap-p0", "volume-p0-120", "volume-p0-320"]
    );
}

#[test]
fn while_a_challenger_is_rolled_out_what_becomes_due_waits() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    settings.triggers.max_model_age_ms = 48 * HOUR_MS;
    for end in [
        Some(ModelEventKind::Promoted),
        Some(ModelEventKind::RolledBack),
        None,
    ] {
        let mut desk = Desk::trained(settings.clone());
        desk.tell(ModelEventKind::RolloutStep, "v000002", "bootstrap-p0");
        desk.totals(120, 20);
        assert_eq!(desk.outcome(Trigger::Volume), InFlight, "{end:?}");
        desk = desk.restart();
        // It outlasts the patience with a request: each of its steps takes as long as the evidence does.
        desk.now_ms += settings.triggers.in_flight_timeout_ms;
        assert_eq!(desk.outcome(Trigger::Volume), InFlight, "{end:?}");
        match end {
            Some(kind) => desk.tell(kind, "v000002", "bootstrap-p0"),
            None => desk.now_ms += settings.triggers.max_model_age_ms,
        }
        assert_eq!(desk.outcome(Trigger::Volume), Asked, "{end:?}");
    }
}

#[test]
fn a_rollout_that_is_rolled_back_ends_the_request_that_it_answered() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    let mut desk = Desk::trained(settings);
    desk.totals(120, 20);
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
    desk.now_ms += 1;
    desk.tell(ModelEventKind::RolloutStep, "v000002", "volume-p0-120");
    desk.totals(220, 20);
    assert_eq!(desk.outcome(Trigger::Volume), InFlight);
    desk.now_ms += 1;
    // The event is about the champion, whose training was another one.
    desk.tell(ModelEventKind::RolledBack, CHAMPION, "bootstrap-p0");
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
}

#[test]
fn a_persons_request_made_during_a_rollout_outlasts_it() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    let mut desk = Desk::trained(settings);
    desk.tell(ModelEventKind::RolloutStep, "v000002", "bootstrap-p0");
    desk.now_ms += 1;
    let now_ms = desk.now_ms;
    desk.hear(Topic::RetrainEvents, encode(&manual("manual-1", now_ms)));
    desk.now_ms += 1;
    desk.tell(ModelEventKind::RolloutStep, "v000002", "bootstrap-p0");
    desk.tell(ModelEventKind::RolledBack, CHAMPION, "bootstrap-p0");
    desk.totals(300, 20);
    assert_eq!(desk.outcome(Trigger::Volume), InFlight);
}

#[test]
fn a_process_that_folds_everything_anew_asks_for_nothing_that_the_champion_has_seen() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    settings.triggers.interaction_growth = 0.2;
    settings.triggers.user_growth = 0.2;
    settings.triggers.max_model_age_ms = 48 * HOUR_MS;
    let mut desk = Desk::new(settings);
    // The champion has seen 1,000 interactions; this process remembers neither it nor them.
    desk.totals(1_000, 50);
    desk.answer(ModelEventKind::Promoted, "bootstrap-p0");
    desk.now_ms += 2 * HOUR_MS;
    for (history, users) in [(0, 0), (30, 6), (500, 30), (999, 50)] {
        desk.totals(history, users);
        desk.look();
    }
    desk = desk.restart();
    desk.totals(1_000, 50);
    desk.look();
    assert_eq!(desk.requests(), [""; 0]);
    // From here on it counts as ever.
    desk.totals(1_099, 50);
    assert_eq!(desk.outcome(Trigger::Volume), NotDue);
    desk.totals(1_100, 50);
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
    assert_eq!(desk.outcome(Trigger::RatingGrowth), NotDue);
}

#[test]
fn growth_of_interactions_and_users_is_measured_against_the_last_training() {
    for (trigger, enough, too_little) in [
        (Trigger::RatingGrowth, (120, 20), (119, 20)),
        (Trigger::UserGrowth, (115, 22), (115, 21)),
    ] {
        let mut settings = quiet();
        if trigger == Trigger::RatingGrowth {
            settings.triggers.interaction_growth = 0.2;
        } else {
            settings.triggers.user_growth = 0.1;
        }
        let mut desk = Desk::trained(settings.clone());
        desk.totals(enough.0, enough.1);
        assert_eq!(desk.outcome(trigger), CoolingDown, "{trigger:?}");
        desk.now_ms += HOUR_MS;
        assert_eq!(desk.outcome(trigger), Asked, "{trigger:?}");
        let mut desk = Desk::rested(settings);
        desk.totals(too_little.0, too_little.1);
        assert_eq!(desk.outcome(trigger), NotDue, "{trigger:?}");
    }
}

#[test]
fn a_model_grows_old_by_age_and_by_the_calendar() {
    let mut settings = quiet();
    settings.triggers.max_model_age_ms = 48 * HOUR_MS;
    let mut desk = Desk::trained(settings.clone());
    desk.now_ms += 48 * HOUR_MS - 1;
    desk.totals(200, 20);
    assert_eq!(desk.outcome(Trigger::Schedule), NotDue);
    desk.now_ms += 1;
    assert_eq!(desk.outcome(Trigger::Schedule), Asked);

    // 1,000 hours after the epoch it is 16:00.
    settings.triggers.schedule = "30 4 * * *".into();
    let mut desk = Desk::trained(settings);
    desk.now_ms += 12 * HOUR_MS;
    assert_eq!(desk.outcome(Trigger::Schedule), NotDue);
    desk.now_ms += HOUR_MS / 2;
    assert_eq!(
        desk.outcome(Trigger::Schedule),
        CoolingDown,
        "too few interactions since"
    );
    desk.totals(110, 20);
    assert_eq!(desk.outcome(Trigger::Schedule), Asked);
}

/// A desk with a reference of ordinary events and three ordinary windows.
fn watched(settings: Settings) -> Desk {
    let mut desk = Desk::new(settings);
    desk.events(4, |_, _| {});
    let asked = desk.look().retrain_event_id.unwrap();
    desk.answer(ModelEventKind::Promoted, &asked);
    desk.now_ms += HOUR_MS;
    desk.look();
    desk.events(3, |_, _| {});
    assert_eq!(desk.outcome(Trigger::Drift), NotDue);
    desk
}

fn five_stars(_: usize, observation: &mut Observation) {
    observation.half_stars = 10;
}

#[test]
fn drift_asks_when_two_of_three_windows_show_it_and_a_single_one_does_not() {
    let mut desk = watched(quiet());
    desk.events(1, five_stars);
    assert_eq!(desk.outcome(Trigger::Drift), NotDue, "one window");
    desk.events(1, five_stars);
    assert_eq!(desk.outcome(Trigger::Drift), Asked);
    let request = desk.of_topic::<RetrainEvent>(Topic::RetrainEvents).pop().unwrap();
    assert_eq!(request.event_id, "drift-p0-v000001-w9");
    assert!(request.numbers["rating over 1 psi_excess"] > 0.02, "{request:?}");
    let figures = desk.of_topic::<QualityMetric>(Topic::QualityMetrics);
    assert!(
        figures
            .iter()
            .any(|figure| figure.name == "rating.js" && figure.scope == "drift")
    );

    // Answered, the same distribution is the reference.
    desk.answer(ModelEventKind::Promoted, "drift-p0-v000001-w9");
    desk.now_ms += HOUR_MS;
    desk.settings.drift.reference_events = 512;
    desk.look();
    desk.events(1, |_, _| {});
    assert_eq!(desk.outcome(Trigger::Drift), NotDue);
}

#[test]
fn drift_waits_for_the_cooldown_and_for_the_training_in_flight() {
    let mut settings = quiet();
    settings.triggers.cooldown_ms = 3 * HOUR_MS;
    let mut desk = watched(settings);
    desk.events(2, five_stars);
    assert_eq!(desk.outcome(Trigger::Drift), CoolingDown);
    desk.now_ms += 2 * HOUR_MS;
    assert_eq!(desk.outcome(Trigger::Drift), Asked);
    // The change lasts, but its alarm has been answered.
    desk.events(2, five_stars);
    assert_eq!(desk.outcome(Trigger::Drift), NotDue);
}

#[test]
fn a_shift_of_the_watchlists_genres_has_a_trigger_of_its_own() {
    let on_watchlist = |every: usize| {
        move |n: usize, observation: &mut Observation| {
            if n.is_multiple_of(2) {
                observation.fate = Fate::Applied(Kind::WatchlistAdd);
                observation.half_stars = 0;
                observation.movie = if every > 0 && (n / 2).is_multiple_of(every) {
                    900
                } else {
                    5
                };
            }
        }
    };
    let cooldown_ms = 3 * HOUR_MS;
    for (before, after, cooldown_ms, expected) in [
        (3, 2, 0, Asked),
        (10, 9, 0, NotDue),
        (3, 2, cooldown_ms, CoolingDown),
    ] {
        let mut settings = quiet();
        settings.drift.window_events = 256;
        settings.triggers.cooldown_ms = cooldown_ms;
        let mut desk = Desk::new(settings);
        desk.events(12, on_watchlist(before));
        let asked = desk.look().retrain_event_id.unwrap();
        desk.answer(ModelEventKind::Promoted, &asked);
        desk.look();
        desk.events(12, on_watchlist(after));
        let found = desk.outcome(Trigger::WatchlistShift);
        assert_eq!(found, expected, "{before} {after}");
        if expected == CoolingDown {
            desk.now_ms += cooldown_ms;
            assert_eq!(desk.outcome(Trigger::WatchlistShift), Asked);
        }
    }
}

fn refused(n: usize, observation: &mut Observation) {
    if n.is_multiple_of(10) {
        observation.fate = Fate::Refused(Reason::OutOfRange);
    }
}

#[test]
fn data_quality_asks_after_two_anomalous_windows_running() {
    let mut desk = watched(quiet());
    desk.events(2, refused);
    assert_eq!(desk.outcome(Trigger::DataQuality), NotDue);
    desk.events(2, refused);
    let outcome = desk.outcome(Trigger::DataQuality);
    assert!(matches!(outcome, Asked | Joined), "{outcome:?}");
    let figures = desk.of_topic::<QualityMetric>(Topic::QualityMetrics);
    assert!(
        figures
            .iter()
            .any(|figure| figure.name == "refused_share" && figure.value > 0.05)
    );

    let mut settings = quiet();
    settings.triggers.cooldown_ms = 9 * HOUR_MS;
    let mut desk = watched(settings);
    desk.events(4, refused);
    assert_eq!(desk.outcome(Trigger::DataQuality), CoolingDown);
}

#[test]
fn a_metric_below_its_floor_twice_running_asks() {
    let mut desk = Desk::rested(quiet());
    desk.measure("mrr", 0.019);
    assert_eq!(desk.outcome(Trigger::MetricFloor), NotDue, "once");
    desk.measure("mrr", 0.021);
    desk.measure("mrr", 0.019);
    assert_eq!(desk.outcome(Trigger::MetricFloor), NotDue, "not running");
    desk.measure("mrr", 0.019);
    assert_eq!(desk.outcome(Trigger::MetricFloor), Asked);

    let mut desk = Desk::trained(quiet());
    desk.measure("mrr", 0.001);
    desk.measure("mrr", 0.001);
    assert_eq!(desk.outcome(Trigger::MetricFloor), CoolingDown);
}

/// Three windows of a baseline.
fn baseline(desk: &mut Desk, metrics: &[(&str, f64)]) {
    for _ in 0..3 {
        for &(name, value) in metrics {
            desk.measure(name, value);
        }
    }
}

#[test]
fn two_technical_metrics_that_fell_together_ask_and_one_alone_does_not() {
    let both = [("ndcg@10", 0.10), ("rmse", 0.90)];
    let mut desk = Desk::rested(quiet());
    baseline(&mut desk, &both);
    for _ in 0..2 {
        desk.measure("ndcg@10", 0.08);
        desk.measure("rmse", 0.94);
    }
    assert_eq!(
        desk.outcome(Trigger::MetricDrop),
        NotDue,
        "an RMSE 4.4% up is allowed"
    );
    for _ in 0..2 {
        desk.measure("ndcg@10", 0.0925);
        desk.measure("rmse", 0.96);
    }
    assert_eq!(
        desk.outcome(Trigger::MetricDrop),
        NotDue,
        "an NDCG 7.5% down is allowed"
    );
    for _ in 0..2 {
        desk.measure("ndcg@10", 0.0915);
        desk.measure("rmse", 0.96);
    }
    assert_eq!(desk.outcome(Trigger::MetricDrop), Asked);

    let mut desk = Desk::trained(quiet());
    baseline(&mut desk, &both);
    for _ in 0..2 {
        desk.measure("ndcg@10", 0.05);
        desk.measure("rmse", 1.5);
    }
    assert_eq!(desk.outcome(Trigger::MetricDrop), CoolingDown);
}

#[test]
fn a_lasting_fall_of_the_click_rate_asks_at_once_but_not_twice() {
    let mut desk = Desk::trained(quiet());
    baseline(&mut desk, &[("ctr", 0.20)]);
    desk.measure("ctr", 0.172);
    desk.measure("ctr", 0.172);
    assert_eq!(desk.outcome(Trigger::CtrDrop), NotDue, "14% down");
    desk.measure("ctr", 0.168);
    assert_eq!(desk.outcome(Trigger::CtrDrop), NotDue, "one window");
    desk.measure("ctr", 0.168);
    assert_eq!(
        desk.outcome(Trigger::CtrDrop),
        Asked,
        "in the middle of the cooldown"
    );
    desk.measure("ctr", 0.1);
    desk.measure("ctr", 0.1);
    assert_eq!(desk.outcome(Trigger::CtrDrop), InFlight);
}

#[test]
fn figures_of_another_model_or_of_too_little_are_not_held_against_the_champion() {
    let mut settings = quiet();
    settings.triggers.metric_min_observations = 1_001;
    let mut desk = Desk::rested(settings);
    desk.measure("mrr", 0.001);
    desk.measure("mrr", 0.001);
    assert_eq!(desk.outcome(Trigger::MetricFloor), NotDue);
    let mut desk = Desk::new(quiet());
    desk.totals(5, 1);
    desk.measure("mrr", 0.001);
    desk.measure("mrr", 0.001);
    assert_eq!(desk.outcome(Trigger::MetricFloor), NotDue, "there is no champion");
}

#[test]
fn a_hit_rate_that_falls_is_drift_and_one_that_rises_is_not() {
    let name = TriggerConfig::default().hit_rate_metric;
    for (after, expected) in [(0.10, Asked), (0.35, NotDue)] {
        let mut desk = Desk::rested(quiet());
        for _ in 0..20 {
            desk.measure(&name, 0.20);
        }
        assert_eq!(desk.outcome(Trigger::Drift), NotDue);
        for _ in 0..3 {
            desk.measure(&name, after);
        }
        assert_eq!(desk.outcome(Trigger::Drift), expected, "{after}");
    }
}

#[test]
fn what_is_due_together_is_answered_by_one_request() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    settings.triggers.interaction_growth = 0.2;
    let mut desk = Desk::rested(settings);
    desk.totals(300, 20);
    let decision = desk.look();
    let outcomes: Vec<_> = decision
        .verdicts
        .iter()
        .filter(|verdict| verdict.outcome != NotDue)
        .map(|verdict| (verdict.trigger, verdict.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [(Trigger::Volume, Asked), (Trigger::RatingGrowth, Joined)]
    );
    assert_eq!(
        decision.verdicts.len(),
        11,
        "those that are not due are there, too"
    );
    assert_eq!(decision.champion, Some(ModelVersion(CHAMPION.into())));
}

#[test]
fn a_request_that_nobody_answers_is_given_up_and_a_persons_request_is_waited_for() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    let mut desk = Desk::trained(settings);
    let now_ms = desk.now_ms;
    desk.hear(Topic::RetrainEvents, encode(&manual("manual-1", now_ms)));
    desk.totals(300, 20);
    assert_eq!(desk.outcome(Trigger::Volume), InFlight);
    desk.now_ms += 6 * HOUR_MS - 1;
    assert_eq!(desk.outcome(Trigger::Volume), InFlight);
    desk.now_ms += 1;
    assert_eq!(desk.outcome(Trigger::Volume), Asked);
}

#[test]
fn a_failed_training_is_no_base_for_growth_and_begins_a_cooldown() {
    let mut settings = quiet();
    settings.triggers.interaction_growth = 0.2;
    let mut desk = Desk::rested(settings);
    desk.totals(125, 20);
    let first = desk.look().retrain_event_id.unwrap();
    desk.answer(ModelEventKind::Failed, &first);
    assert_eq!(desk.outcome(Trigger::RatingGrowth), CoolingDown);
    desk.now_ms += HOUR_MS;
    let second = desk.look().retrain_event_id.unwrap();
    assert_ne!(
        first, second,
        "the trainer would take it for the one it has answered"
    );
}

#[test]
fn a_decision_survives_a_restart_with_its_bytes_and_is_not_taken_again() {
    let mut desk = Desk::new(quiet());
    desk.totals(100, 20);
    desk.try_look(&NoFaults).unwrap();
    let sent = desk.triggers.outgoing();
    assert_eq!(sent.len(), 2, "a request and the decision");
    let mut desk = desk.restart();
    desk.try_look(&NoFaults).unwrap();
    assert_eq!(desk.triggers.outgoing(), sent);
    desk.look();
    let mut desk = desk.restart();
    desk.try_look(&NoFaults).unwrap();
    assert!(desk.triggers.outgoing().is_empty());
    desk.triggers
        .remember(
            1,
            PartitionTotals {
                next_offset: 5,
                history: 5,
                users: 1,
            },
        )
        .unwrap();
    let kept = file_decisions(desk.folder.path(), desk.triggers);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].retrain_event_id.as_deref(), Some("bootstrap-p0"));
}

fn file_decisions(folder: &Path, triggers: Triggers) -> Vec<TriggerDecision> {
    drop(triggers);
    file::decisions(&folder.join(file::NAME), 10).unwrap()
}

#[test]
fn windows_and_verdicts_do_not_depend_on_restarts() {
    let decided = |restarts: bool| {
        let mut desk = watched(quiet());
        for _ in 0..8 {
            desk.events(1, |n, observation| {
                if n < 100 {
                    five_stars(n, observation);
                }
            });
            if restarts {
                desk = desk.restart();
            }
            desk.look();
        }
        let figures: Vec<Vec<u8>> = desk
            .sent
            .iter()
            .filter(|record| record.topic == Topic::QualityMetrics)
            .filter_map(|record| record.value.clone())
            .collect();
        (desk.requests(), figures)
    };
    let (requests, figures) = decided(false);
    assert!(requests.len() >= 2 && figures.len() > 100, "{requests:?}");
    assert_eq!(decided(true), (requests, figures));
}

#[test]
fn a_partition_given_back_still_counts() {
    let mut settings = quiet();
    settings.triggers.volume_interactions = 100;
    let mut desk = Desk::new(settings);
    let totals = PartitionTotals {
        next_offset: 100,
        history: 100,
        users: 9,
    };
    desk.triggers.remember(1, totals).unwrap();
    desk.totals(10, 2);
    desk.look();
    assert_eq!(desk.requests(), ["bootstrap-p0.1"]);
    desk.answer(ModelEventKind::Rejected, "bootstrap-p0.1");
    desk.totals(20, 2);
    desk.look();
    assert_eq!(desk.requests(), ["bootstrap-p0.1", "volume-p0.1-120"]);
}

#[test]
fn a_record_that_is_no_signal_becomes_a_dead_letter_and_is_passed() {
    let mut desk = Desk::trained(quiet());
    desk.hear(Topic::ModelEvents, b"{".to_vec());
    desk.look();
    let letters = desk.of_topic::<DeadLetter>(Topic::DeadLetters);
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].topic.as_str(), letters[0].offset),
        ("model-events", desk.heard)
    );
    let desk = desk.restart();
    assert_eq!(
        desk.triggers.positions()[&(Topic::ModelEvents, 0)],
        desk.heard + 1
    );
}
