//! The gate's questions, one after the other.

use marquee_schemas::GateCheck;

use super::GateConfig;
use super::bootstrap::{Change, compare};
use crate::evaluate::{METRICS, Panel, Protocol, Scorecard};

/// Questions and answers so far.
pub(super) struct Checks<'a> {
    config: &'a GateConfig,
    done: Vec<GateCheck>,
    gain: Option<Change>,
}

fn percent(share: f64) -> String {
    format!("{:+.1}%", share * 100.0)
}

impl<'a> Checks<'a> {
    pub(super) fn new(config: &'a GateConfig) -> Self {
        Self {
            config,
            done: Vec::new(),
            gain: None,
        }
    }

    pub(super) fn failed(&self, check: &str) -> bool {
        self.done.iter().any(|done| done.check == check && !done.passed)
    }

    pub(super) fn finish(self) -> (Vec<GateCheck>, Option<Change>) {
        (self.done, self.gain)
    }

    fn push(
        &mut self,
        check: &str,
        metric: impl Into<String>,
        passed: bool,
        detail: String,
    ) -> &mut GateCheck {
        self.done.push(GateCheck {
            check: check.to_owned(),
            metric: metric.into(),
            passed,
            challenger: None,
            champion: None,
            relative_change: None,
            lo: None,
            hi: None,
            required: None,
            detail,
        });
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    pub(super) fn soundness(&mut self, challenger: &Scorecard) {
        let detail = if challenger.is_sound() {
            "all scores and metrics are finite".to_owned()
        } else {
            format!("{} scores or metrics are not finite", challenger.unsound.max(1))
        };
        self.push("soundness", "scores", challenger.is_sound(), detail);
    }

    pub(super) fn evidence(&mut self, challenger: &Scorecard, champion: &Scorecard) {
        let users = compare(challenger, champion, &[], 0, self.config.confidence, 0).users;
        let needed = self.config.min_users;
        let detail = format!(
            "{users} users with interactions that the champion has not learned from, needed are {needed}"
        );
        let check = self.push("evidence", "users", users >= needed, detail);
        check.challenger = Some(users as f64);
        check.required = Some(needed as f64);
    }

    /// Primary and secondary metrics.
    pub(super) fn comparison(&mut self, challenger: &Scorecard, champion: &Scorecard, seed: u64) {
        let config = self.config;
        let enough = |panel: &Panel| panel.users.len() >= config.min_users;
        let mut joined: Vec<Protocol> = Protocol::ALL
            .into_iter()
            .filter(|&protocol| enough(champion.panel(protocol)))
            .collect();
        if joined.is_empty() {
            // Neither is enough alone: what there is speaks together.
            joined = Protocol::ALL.to_vec();
        }
        let comparison = compare(
            challenger,
            champion,
            &joined,
            config.bootstrap_draws,
            config.confidence,
            seed,
        );
        if !comparison.joined.is_empty() {
            joined = comparison.joined;
        }
        self.primary(comparison.joint, comparison.users, &joined);
        for (&(protocol, metric), change) in &comparison.changes {
            let judged = enough(champion.panel(protocol));
            let own = challenger.panel(protocol).mean(metric);
            let theirs = champion.panel(protocol).mean(metric);
            self.secondary(protocol, METRICS[metric], own, theirs, Some(*change), judged);
        }
        for protocol in Protocol::ALL {
            let (own, theirs) = (
                challenger.panel(protocol).coverage,
                champion.panel(protocol).coverage,
            );
            if own.is_some() && theirs.is_some() {
                let judged = enough(champion.panel(protocol));
                self.secondary(protocol, "coverage@100", own, theirs, None, judged);
            }
        }
    }

    fn primary(&mut self, gain: Option<Change>, users: usize, joined: &[Protocol]) {
        let needed = self.config.min_relative_gain;
        let names: Vec<&str> = joined.iter().map(|protocol| protocol.name()).collect();
        let metric = format!("{}/{}", names.join("+"), super::PRIMARY);
        let Some(gain) = gain else {
            self.push(
                "primary",
                metric,
                false,
                "NDCG@10 could not be compared".to_owned(),
            );
            return;
        };
        self.gain = Some(gain);
        // A negative gain asks for no more than not being worse than that.
        let bound = needed.min(0.0);
        let (enough, proven) = (gain.value >= needed, gain.lo > bound);
        let outcome = match (enough, proven) {
            (true, true) => "proven",
            (true, false) => "not proven, since the interval reaches too low",
            (false, _) => "too small",
        };
        let detail = format!(
            "NDCG@10 {} against the champion over {users} users ({:.0}% interval {} to {}; asked for are {} and an \
             interval above {}): {outcome}",
            percent(gain.value),
            self.config.confidence * 100.0,
            percent(gain.lo),
            percent(gain.hi),
            percent(needed),
            percent(bound),
        );
        let check = self.push("primary", metric, enough && proven, detail);
        check.relative_change = Some(gain.value);
        check.lo = Some(gain.lo);
        check.hi = Some(gain.hi);
        check.required = Some(needed);
    }

    fn secondary(
        &mut self,
        protocol: Protocol,
        name: &str,
        own: Option<f64>,
        theirs: Option<f64>,
        change: Option<Change>,
        judged: bool,
    ) {
        let (Some(own), Some(theirs)) = (own, theirs) else {
            return;
        };
        let relative = change.map_or_else(
            || if theirs > 0.0 { own / theirs - 1.0 } else { 0.0 },
            |change| change.value,
        );
        let least = -self.config.max_secondary_loss;
        let passed = !judged || relative >= least;
        let outcome = match (judged, passed) {
            (false, _) => "too few users to judge",
            (true, true) => "within bounds",
            (true, false) => "too large a loss",
        };
        let detail = format!(
            "{} {name} {own:.4} against {theirs:.4} ({}, at worst {}): {outcome}",
            protocol.name(),
            percent(relative),
            percent(least),
        );
        let metric = format!("{}/{name}", protocol.name());
        let check = self.push("secondary", metric, passed, detail);
        check.challenger = Some(own);
        check.champion = Some(theirs);
        check.relative_change = Some(relative);
        check.lo = change.map(|change| change.lo);
        check.hi = change.map(|change| change.hi);
        check.required = Some(least);
    }

    /// Absolute floors of the static figures.
    pub(super) fn floors(&mut self, challenger: &Scorecard, champion: Option<&Scorecard>) {
        let own = challenger.metrics();
        let theirs = champion.map(Scorecard::metrics).unwrap_or_default();
        for (name, &floor) in &self.config.floors {
            let Some(&value) = own.get(name) else {
                continue;
            };
            let champion = theirs.get(name).copied();
            let excused = champion.is_some_and(|theirs| theirs < floor);
            let outcome = match (value >= floor, excused) {
                (true, _) => "reached",
                (false, true) => "missed, as the champion misses it",
                (false, false) => "missed",
            };
            let passed = value >= floor || excused;
            let detail = format!("{name} {value:.4}, floor {floor:.4}: {outcome}");
            let check = self.push("floor", format!("static/{name}"), passed, detail);
            check.challenger = Some(value);
            check.champion = champion;
            check.required = Some(floor);
        }
    }
}
