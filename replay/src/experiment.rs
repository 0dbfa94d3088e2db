//! One experiment out of the request log: its arms, looked at after every hour.
//!
//! An arm's figure is the share of its lists that were clicked, where clicks name lists; otherwise the share of its
//! answered lists with an answered movie among the first k (the next-interaction hit rate). Users are the units and
//! stay in the arm in which they were first seen. What they did on lists before the experiment began is the covariate
//! of CUPED. See [`marquee_statistics::experiment`] for what the looks may say, and how often.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use marquee_statistics::experiment::{
    Arm, Comparison, Covariate, Decision, Look, SampleRatio, Sequential, UserTotals, compare,
};

use crate::error::Error;
use crate::evaluation::{Chunk, List, Outcome, cluster_of, for_each_chunk};

/// How an experiment is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentOptions {
    /// Its name, as the request log has it.
    pub experiment: String,
    /// The arm that the others are compared with.
    pub control: String,
    /// Intended shares of the arms' users; arms that are not named get equal parts of the rest of 1. An arm whose share is
    /// 0 is met by request only, and its size is not judged.
    pub shares: BTreeMap<String, f64>,
    /// Error over all looks and one arm.
    pub alpha: f64,
    /// The difference that matters, absolute: the looks are sharpest around it.
    pub effect: f64,
    /// Users per arm below which a look does not count.
    pub least_users: u32,
    /// Positions that count.
    pub k: usize,
    /// How long after a list an interaction may answer it, ms of event time.
    pub attribution_window_ms: i64,
    /// The moment of the analysis, ms: younger lists are left out.
    pub as_of_ms: i64,
}

/// What an arm's figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Share of lists with a click that names them.
    ClickedLists,
    /// Share of answered lists with an answered movie among the first k.
    NextInteractionHits,
}

/// One arm.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmReport {
    /// Its name.
    pub arm: String,
    /// Users.
    pub users: u64,
    /// The figure; `None` before anything was counted.
    pub value: Option<f64>,
    /// Against the control at the last look; `None` for the control itself.
    pub comparison: Option<Comparison>,
    /// What all looks together say; `None` for the control itself and before the first look.
    pub look: Option<Look>,
    /// When the decision fell, ms of event time (end of the hour).
    pub decided_at_ms: Option<i64>,
}

/// The experiment so far.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentReport {
    /// What the figure counts.
    pub measure: Measure,
    /// The arms, the control first.
    pub arms: Vec<ArmReport>,
    /// Hours that were looked at.
    pub looks: u64,
    /// Sequential p-value of the arms' sizes: below 0.001 the experiment lost users and means nothing. `None` where there
    /// are fewer than two arms to be judged.
    pub sample_ratio_p: Option<f64>,
    /// Users who were seen in more than one arm.
    pub crossed_users: u64,
}

impl ExperimentReport {
    /// Whether the arms' sizes deny the intended shares.
    #[must_use]
    pub fn has_sample_ratio_mismatch(&self) -> bool {
        self.sample_ratio_p.is_some_and(|p| p < 0.001)
    }

    /// The arm that is better than the control, the best of them if there are several; none while the sizes are wrong.
    #[must_use]
    pub fn winner(&self) -> Option<&ArmReport> {
        if self.has_sample_ratio_mismatch() {
            return None;
        }
        self.arms
            .iter()
            .filter(|arm| arm.look.is_some_and(|look| look.decision == Decision::Better))
            .max_by(|a, b| a.value.unwrap_or(0.0).total_cmp(&b.value.unwrap_or(0.0)))
    }
}

/// One way of counting, over all arms.
#[derive(Debug, Default)]
struct Track {
    arms: BTreeMap<Arc<str>, Arm>,
    users: HashMap<u64, UserTotals>,
    /// Numerator and denominator before the experiment.
    before: HashMap<u64, (f64, f64)>,
    sequentials: BTreeMap<Arc<str>, Sequential>,
    last: BTreeMap<Arc<str>, (Comparison, Look)>,
    decided: BTreeMap<Arc<str>, i64>,
    numerators: f64,
}

impl Track {
    fn count_before(&mut self, user: u64, numerator: f64, denominator: f64) {
        let before = self.before.entry(user).or_default();
        before.0 += numerator;
        before.1 += denominator;
    }

    fn count(&mut self, user: u64, arm: &Arc<str>, numerator: f64, denominator: f64) {
        self.numerators += numerator;
        let of_arm = self.arms.entry(Arc::clone(arm)).or_default();
        let before = self.before.get(&user);
        let totals = self.users.entry(user).or_insert_with(|| {
            let fresh = UserTotals {
                covariate: before.map_or(0.0, |(sum, size)| if *size > 0.0 { sum / size } else { 0.0 }),
                ..UserTotals::default()
            };
            of_arm.insert(fresh);
            fresh
        });
        let old = *totals;
        totals.numerator += numerator;
        totals.denominator += denominator;
        of_arm.update(old, *totals);
    }

    fn look(&mut self, options: &ExperimentOptions, at_ms: i64) {
        let Some(control) = self.arms.get(options.control.as_str()) else {
            return;
        };
        for (name, arm) in &self.arms {
            if **name == *options.control {
                continue;
            }
            let Some(comparison) = compare(control, arm, Covariate::Adjusted) else {
                continue;
            };
            let sequential = self.sequentials.entry(Arc::clone(name)).or_insert_with(|| {
                let planned = (options.effect / 3.0).powi(2);
                Sequential::new(options.alpha, planned, f64::from(options.least_users))
            });
            let look = sequential.look(&comparison, (control.users(), arm.users()));
            if look.decision != Decision::Undecided {
                self.decided.entry(Arc::clone(name)).or_insert(at_ms);
            }
            self.last.insert(Arc::clone(name), (comparison, look));
        }
    }
}

/// What counts of one list.
#[derive(Debug)]
struct Served {
    time_ms: i64,
    user: u64,
    /// Where it belongs to the experiment.
    arm: Option<Arc<str>>,
    clicked: bool,
    hit: bool,
    answered: bool,
}

impl Served {
    fn of(list: &List, outcome: &Outcome, options: &ExperimentOptions) -> Self {
        let in_experiment = list.experiment.as_deref() == Some(options.experiment.as_str());
        Self {
            time_ms: list.time_ms,
            user: cluster_of(list),
            arm: list.arm.clone().filter(|_| in_experiment),
            clicked: list.items.iter().any(|item| outcome.clicked(item.movie_id)),
            hit: list
                .items
                .iter()
                .take(options.k)
                .any(|item| outcome.took(item.movie_id)),
            answered: outcome.is_answered(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    clicks: Track,
    hits: Track,
    arm_of: HashMap<u64, Arc<str>>,
    crossed: HashSet<u64>,
    looks: u64,
    sizes: BTreeMap<Arc<str>, u64>,
}

impl State {
    fn add(&mut self, served: &Served) {
        let user = served.user;
        let [clicked, hit, answered] =
            [served.clicked, served.hit, served.answered].map(|it| f64::from(u8::from(it)));
        let Some(arm) = &served.arm else {
            if self.arm_of.is_empty() {
                self.clicks.count_before(user, clicked, 1.0);
                self.hits.count_before(user, hit, answered);
            }
            return;
        };
        let first = match self.arm_of.get(&user) {
            Some(first) => Arc::clone(first),
            None => {
                self.arm_of.insert(user, Arc::clone(arm));
                *self.sizes.entry(Arc::clone(arm)).or_default() += 1;
                Arc::clone(arm)
            }
        };
        if first != *arm {
            self.crossed.insert(user);
            return;
        }
        self.clicks.count(user, arm, clicked, 1.0);
        self.hits.count(user, arm, hit, answered);
    }
}

/// Looks at an experiment after every hour of the period from `from_ms` (inclusive) to `to_ms` (exclusive). Lists of the
/// period before the experiment's first one serve as the time before.
///
/// # Errors
/// [`Error::Sql`] if the lake cannot be read, [`Error::Config`] for options that cannot be used, among them shares that
/// add up to more than 1 or leave nothing for an arm that users are in.
pub async fn experiment(
    lake_dir: &Path,
    from_ms: i64,
    to_ms: i64,
    options: &ExperimentOptions,
) -> Result<ExperimentReport, Error> {
    if !(options.alpha > 0.0 && options.alpha < 1.0 && options.effect > 0.0) {
        return Err(Error::Config(
            "alpha must lie between 0 and 1, the effect above 0".into(),
        ));
    }
    check_shares(&options.shares)?;
    let mut state = State::default();
    let mut sizes = Sizes::default();
    // A stretch may come in pieces by user; what is before the experiment, and what a look sees, is decided by time.
    let mut stretch: Vec<Served> = Vec::new();
    for_each_chunk(
        lake_dir,
        from_ms,
        to_ms,
        options.attribution_window_ms,
        |chunk: Chunk| {
            let mut outcomes: Vec<Outcome> = vec![Outcome::default(); chunk.lists.len()];
            for found in &chunk.attributions {
                outcomes[found.list].add(&chunk.answers[found.answer], found);
            }
            for (at, list) in chunk.lists.iter().enumerate() {
                let is_settled =
                    list.time_ms.saturating_add(options.attribution_window_ms) <= options.as_of_ms;
                if &*list.endpoint == "recommend" && is_settled {
                    stretch.push(Served::of(list, &outcomes[at], options));
                }
            }
            if !chunk.ends_stretch() {
                return;
            }
            let mut served = std::mem::take(&mut stretch);
            served.sort_by_key(|served| served.time_ms);
            served.iter().for_each(|served| state.add(served));
            if state.arm_of.is_empty() || served.is_empty() {
                return;
            }
            state.looks += 1;
            state.clicks.look(options, chunk.to_ms());
            state.hits.look(options, chunk.to_ms());
            sizes.look(&state.sizes, &options.shares);
        },
    )
    .await?;
    if let Some(arm) = sizes.without_share {
        return Err(Error::Config(format!(
            "the shares leave nothing for arm {arm}, but it has users: name the shares of all arms"
        )));
    }
    let (measure, track) = if state.clicks.numerators > 0.0 {
        (Measure::ClickedLists, &state.clicks)
    } else {
        (Measure::NextInteractionHits, &state.hits)
    };
    let mut arms: Vec<ArmReport> = track
        .arms
        .iter()
        .map(|(name, arm)| {
            let last = track.last.get(name);
            ArmReport {
                arm: name.to_string(),
                users: state.sizes.get(name).copied().unwrap_or(0),
                value: arm.ratio(),
                comparison: last.map(|last| last.0),
                look: last.map(|last| last.1),
                decided_at_ms: track.decided.get(name).copied(),
            }
        })
        .collect();
    arms.sort_by_key(|arm| (arm.arm != options.control, arm.arm.clone()));
    Ok(ExperimentReport {
        measure,
        arms,
        looks: state.looks,
        sample_ratio_p: sizes.p,
        crossed_users: state.crossed.len() as u64,
    })
}

/// Shares within this of each other are the same.
const ROUNDING: f64 = 1e-9;

fn check_shares(shares: &BTreeMap<String, f64>) -> Result<(), Error> {
    if let Some((arm, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(*share)) {
        return Err(Error::Config(format!(
            "the share of {arm} is {share}, outside 0 to 1"
        )));
    }
    let total: f64 = shares.values().sum();
    if total > 1.0 + ROUNDING {
        return Err(Error::Config(format!(
            "the shares add up to {total}, more than 1"
        )));
    }
    Ok(())
}

/// Whether the arms have the users that were meant for them.
#[derive(Debug, Default)]
struct Sizes {
    arms: Vec<Arc<str>>,
    check: Option<SampleRatio>,
    p: Option<f64>,
    /// An arm that should not exist.
    without_share: Option<Arc<str>>,
}

impl Sizes {
    /// Takes one more look. A named arm counts also while nobody is in it: it may have lost everybody.
    fn look(&mut self, users: &BTreeMap<Arc<str>, u64>, shares: &BTreeMap<String, f64>) {
        let named = shares.keys().map(|arm| Arc::<str>::from(arm.as_str()));
        let arms: BTreeSet<Arc<str>> = users.keys().cloned().chain(named).collect();
        let mut intended = intended(arms.into_iter().collect(), shares);
        if let Some((arm, _)) = intended
            .iter()
            .find(|(arm, share)| *share <= ROUNDING && !shares.contains_key(&**arm))
        {
            self.without_share = Some(Arc::clone(arm));
            return;
        }
        intended.retain(|(_, share)| *share > ROUNDING);
        let (arms, shares): (Vec<Arc<str>>, Vec<f64>) = intended.into_iter().unzip();
        // An arm that appears later makes the intended shares others: the check begins anew.
        if arms != self.arms {
            self.check = SampleRatio::new(&shares);
            self.arms = arms;
        }
        let sizes: Vec<u64> = self
            .arms
            .iter()
            .map(|arm| users.get(arm).copied().unwrap_or(0))
            .collect();
        self.p = self.check.as_mut().map(|check| check.look(&sizes));
    }
}

/// The arms with their intended shares: those that are named, and equal parts of the rest for the others.
fn intended(arms: Vec<Arc<str>>, named: &BTreeMap<String, f64>) -> Vec<(Arc<str>, f64)> {
    let rest: f64 = 1.0 - named.values().sum::<f64>();
    let others = arms.iter().filter(|arm| !named.contains_key(&***arm)).count();
    arms.into_iter()
        .map(|arm| {
            let share = named.get(&*arm).copied().unwrap_or(rest / others.max(1) as f64);
            (arm, share)
        })
        .collect()
}

#[cfg(test)]
mod tests;
