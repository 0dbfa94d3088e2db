//! Each trigger's condition: pure functions of what is remembered, the totals and the clock.

use std::collections::BTreeMap;

use chrono::DateTime;
use croner::Cron;
use marquee_schemas::Trigger;

use super::TriggerConfig;
use super::ledger::{Alarm, Ledger};

/// What a trigger has to say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) trigger: Trigger,
    pub(super) due: bool,
    /// The id of the request that it would make.
    pub(super) event_id: String,
    /// Whether it need not wait for the cooldown.
    pub(super) immediate: bool,
    pub(super) reason: String,
    pub(super) numbers: BTreeMap<String, f64>,
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) config: &'a TriggerConfig,
    pub(super) cron: Option<&'a Cron>,
    /// With the totals of this look.
    pub(super) ledger: &'a Ledger,
    pub(super) now_ms: i64,
}

/// Every trigger's condition, those that ask first when several are due first.
pub(super) fn conditions(facts: Facts<'_>) -> Vec<Condition> {
    vec![
        bootstrap(facts),
        ctr_drop(facts),
        metric_floor(facts),
        metric_drop(facts),
        alarm(facts, Trigger::Drift, facts.ledger.drift.as_ref(), "drift"),
        alarm(
            facts,
            Trigger::WatchlistShift,
            facts.ledger.watchlist.as_ref(),
            "watchlist-shift",
        ),
        data_quality(facts),
        volume(facts),
        rating_growth(facts),
        user_growth(facts),
        schedule(facts),
    ]
}

fn numbers(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    values
        .iter()
        .map(|&(name, value)| (name.to_owned(), value))
        .collect()
}

/// The total up to which requests on the grid of volume answer.
pub(super) fn on_grid(config: &TriggerConfig, from: u64, total: u64) -> u64 {
    from + (total - from) / config.volume_interactions * config.volume_interactions
}

fn bootstrap(facts: Facts<'_>) -> Condition {
    let Facts { config, ledger, .. } = facts;
    let (total, users) = (ledger.total(), ledger.users());
    let enough = total >= config.bootstrap_min_interactions && users >= config.bootstrap_min_users;
    let wanted = ledger.answered.is_none() && ledger.champion.is_none();
    let due = wanted && enough;
    Condition {
        trigger: Trigger::Bootstrap,
        due,
        event_id: format!("bootstrap-p{}", ledger.scope()),
        immediate: true,
        reason: if !wanted {
            "a first model has been asked for".into()
        } else {
            format!(
                "{} for a first model: {total} interactions of {users} users, wanted are {} of {}",
                if due { "enough data" } else { "not enough data" },
                config.bootstrap_min_interactions,
                config.bootstrap_min_users
            )
        },
        numbers: numbers(&[
            ("interactions", total as f64),
            ("users", users as f64),
            ("min_interactions", config.bootstrap_min_interactions as f64),
            ("min_users", config.bootstrap_min_users as f64),
        ]),
    }
}

fn volume(facts: Facts<'_>) -> Condition {
    let Facts { config, ledger, .. } = facts;
    let total = ledger.total();
    let answered = ledger.answered.unwrap_or(total);
    let since_last = total.saturating_sub(answered);
    Condition {
        trigger: Trigger::Volume,
        due: since_last >= config.volume_interactions,
        event_id: format!(
            "volume-p{}-{}",
            ledger.scope(),
            on_grid(config, answered, total.max(answered))
        ),
        immediate: true,
        reason: format!(
            "{since_last} interactions since the last request, one is made per {}",
            config.volume_interactions
        ),
        numbers: numbers(&[
            ("interactions", total as f64),
            ("interactions_since_last", since_last as f64),
            ("users", ledger.users() as f64),
            ("threshold", config.volume_interactions as f64),
        ]),
    }
}

/// Growth against the totals at the last training.
fn growth(
    facts: Facts<'_>,
    trigger: Trigger,
    what: &str,
    now: u64,
    before: Option<u64>,
    allowed: f64,
) -> Condition {
    let since_ms = facts.ledger.base.map_or(0, |base| base.at_ms);
    let share = match before {
        Some(before) if before > 0 => now as f64 / before as f64 - 1.0,
        _ => 0.0,
    };
    Condition {
        trigger,
        // 120 of 100 is 20% more, whatever the last bit says.
        due: share + 1e-9 >= allowed,
        event_id: format!("{what}-growth-p{}-{since_ms}", facts.ledger.scope()),
        immediate: false,
        reason: match before {
            None => "no training has ended yet".into(),
            Some(before) => format!(
                "{now} {what}s, {before} at the last training: {:+.1}%, asked at {:+.1}%",
                share * 100.0,
                allowed * 100.0
            ),
        },
        numbers: numbers(&[
            ("now", now as f64),
            ("at_last_training", before.unwrap_or(0) as f64),
            ("growth", share),
            ("threshold", allowed),
        ]),
    }
}

fn rating_growth(facts: Facts<'_>) -> Condition {
    let before = facts.ledger.base.map(|base| base.interactions);
    let now = facts.ledger.total();
    growth(
        facts,
        Trigger::RatingGrowth,
        "interaction",
        now,
        before,
        facts.config.interaction_growth,
    )
}

fn user_growth(facts: Facts<'_>) -> Condition {
    let before = facts.ledger.base.map(|base| base.users);
    growth(
        facts,
        Trigger::UserGrowth,
        "user",
        facts.ledger.users(),
        before,
        facts.config.user_growth,
    )
}

fn schedule(facts: Facts<'_>) -> Condition {
    let Facts {
        config,
        cron,
        ledger,
        now_ms,
    } = facts;
    let last_ms = ledger.base.map(|base| base.at_ms);
    let by_age_ms = last_ms.map(|last| last.saturating_add(config.max_model_age_ms));
    let by_cron_ms = last_ms.zip(cron).and_then(|(last, cron)| {
        let next = cron.find_next_occurrence(&DateTime::from_timestamp_millis(last)?, false);
        next.ok().map(|next| next.timestamp_millis())
    });
    let due_ms = match (by_age_ms, by_cron_ms) {
        (Some(age), Some(cron)) => Some(age.min(cron)),
        (age, cron) => age.or(cron),
    };
    let age_ms = last_ms.map_or(0, |last| now_ms.saturating_sub(last));
    Condition {
        trigger: Trigger::Schedule,
        due: due_ms.is_some_and(|due| now_ms >= due),
        event_id: format!("schedule-{}", due_ms.unwrap_or(0)),
        immediate: false,
        reason: match due_ms {
            None => "no training has ended yet".into(),
            Some(due) => format!(
                "the last training ended {:.1} h ago, the next is due {:.1} h after it",
                age_ms as f64 / 3_600_000.0,
                due.saturating_sub(last_ms.unwrap_or(0)) as f64 / 3_600_000.0
            ),
        },
        numbers: numbers(&[
            ("age_ms", age_ms as f64),
            ("due_ms", due_ms.unwrap_or(0) as f64),
            ("max_age_ms", config.max_model_age_ms as f64),
        ]),
    }
}

fn champion(ledger: &Ledger) -> &str {
    ledger
        .champion
        .as_ref()
        .map_or("none", |version| version.0.as_str())
}

fn alarm(facts: Facts<'_>, trigger: Trigger, alarm: Option<&Alarm>, name: &str) -> Condition {
    let ledger = facts.ledger;
    Condition {
        trigger,
        due: alarm.is_some(),
        event_id: format!(
            "{name}-p{}-{}-{}",
            ledger.scope(),
            champion(ledger),
            alarm.map_or("none", |alarm| alarm.id.as_str())
        ),
        immediate: false,
        reason: match alarm {
            None => format!("no lasting change in {} windows", ledger.windows),
            Some(alarm) => format!("changed at {}: {}", alarm.id, alarm.what.join(", ")),
        },
        numbers: alarm.map_or_else(
            || numbers(&[("windows", ledger.windows as f64)]),
            |alarm| alarm.numbers.clone(),
        ),
    }
}

fn data_quality(facts: Facts<'_>) -> Condition {
    let (config, quality) = (facts.config, &facts.ledger.quality);
    let mut numbers = quality.numbers.clone();
    numbers.insert("anomalous_windows_running".into(), f64::from(quality.running));
    numbers.insert("threshold".into(), f64::from(config.quality_windows));
    Condition {
        trigger: Trigger::DataQuality,
        // Before there is a model, the first request takes whatever there is.
        due: facts.ledger.answered.is_some() && quality.running >= config.quality_windows,
        event_id: format!("data-quality-p{}-w{}", facts.ledger.scope(), facts.ledger.windows),
        immediate: false,
        reason: if quality.running == 0 {
            "the last window's data was usual".into()
        } else {
            format!(
                "{} anomalous windows running: {}",
                quality.running,
                quality.anomalies.join("; ")
            )
        },
        numbers,
    }
}

/// A condition about metrics of which `failing` are too low.
fn on_metrics(
    facts: Facts<'_>,
    trigger: Trigger,
    name: &str,
    needed: usize,
    rule: impl Fn(&str) -> Option<(f64, u32)>,
) -> Condition {
    let Facts { config, ledger, .. } = facts;
    let mut failing = Vec::new();
    let mut numbers = BTreeMap::new();
    for (metric, standing) in ledger.metrics.iter() {
        let Some((limit, windows)) = rule(metric) else {
            continue;
        };
        numbers.insert(metric.to_owned(), standing.last);
        numbers.insert(format!("{metric} limit"), limit);
        numbers.insert(format!("{metric} windows"), f64::from(windows));
        if windows >= config.metric_windows {
            failing.push(format!("{metric} is {:.4}, limit {limit:.4}", standing.last));
        }
    }
    numbers.insert("metrics_needed".into(), needed as f64);
    Condition {
        trigger,
        due: failing.len() >= needed,
        event_id: format!("{name}-{}-{}", champion(ledger), ledger.metrics.newest_ms()),
        immediate: trigger == Trigger::CtrDrop,
        reason: if failing.is_empty() {
            "no metric of the champion is too low".into()
        } else {
            format!(
                "too low for {} windows running: {}",
                config.metric_windows,
                failing.join(", ")
            )
        },
        numbers,
    }
}

fn metric_floor(facts: Facts<'_>) -> Condition {
    let Facts { config, ledger, .. } = facts;
    on_metrics(facts, Trigger::MetricFloor, "metric-floor", 1, |name| {
        let floor = *config.metric_floors.get(name)?;
        Some((floor, ledger.metrics.of(name)?.below_floor))
    })
}

fn metric_drop(facts: Facts<'_>) -> Condition {
    let config = facts.config;
    on_metrics(
        facts,
        Trigger::MetricDrop,
        "metric-drop",
        config.metric_drops_needed,
        |name| {
            config
                .metric_drops
                .contains_key(name)
                .then(|| dropped(facts, name))
                .flatten()
        },
    )
}

fn ctr_drop(facts: Facts<'_>) -> Condition {
    on_metrics(facts, Trigger::CtrDrop, "ctr-drop", 1, |name| {
        (name == facts.config.ctr_metric)
            .then(|| dropped(facts, name))
            .flatten()
    })
}

/// The limit that the baseline sets, and for how many windows the metric has been beyond it.
fn dropped(facts: Facts<'_>, name: &str) -> Option<(f64, u32)> {
    let Facts { config, ledger, .. } = facts;
    let standing = ledger.metrics.of(name)?;
    Some((config.limit(name, standing.baseline(config)?)?, standing.dropped))
}
