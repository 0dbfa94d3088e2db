//! Which model becomes champion, and why.
//!
//! Champion and challenger sit the same [`crate::evaluate::Exam`]: the same users, events and states, none of which
//! the champion has learned from (see [`crate::run`]). The challenger is promoted if every check passes:
//!
//! 1. *Soundness*: no score is not finite.
//! 2. *Evidence*: at least [`GateConfig::min_users`] users were met.
//! 3. *Primary*: NDCG@10 is better by at least [`GateConfig::min_relative_gain`], and the interval of that gain at
//!    [`GateConfig::confidence`] lies above zero. The gain joins both protocols' relative gains, each weighted by the
//!    inverse of its variance; one under which neither model hits anything is left out. The interval is a percentile
//!    bootstrap over users, in which a drawn user brings along all its cases under both protocols ([`bootstrap`]). On a
//!    tie, or with too little evidence, the champion stays.
//! 4. *Secondary*: no other metric, and neither protocol's own NDCG@10, is worse by more than
//!    [`GateConfig::max_secondary_loss`]. A protocol that met fewer than `min_users` users is shown and not judged.
//! 5. *Floors*: static figures reach [`GateConfig::floors`]. A floor that the champion misses too does not bind: a
//!    bad champion must not be protected by it.
//!
//! Without a champion only soundness and floors are asked; a first model below a floor, or one that nobody could be
//! asked about, serves all the same, flagged as [`Verdict::Bootstrap`]. How often the rule errs is told by
//! [`simulate`].

pub mod bootstrap;
mod checks;
pub mod simulate;

use std::collections::BTreeMap;

use marquee_schemas::GateCheck;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::evaluate::Scorecard;
use checks::Checks;

/// Name of the metric that decides.
pub const PRIMARY: &str = "ndcg@10";

/// What a challenger must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// Relative gain in NDCG@10 over the champion; 0.01 asks for one percent. A negative one tolerates a loss, and the
    /// interval must then lie above it instead of above zero.
    pub min_relative_gain: f64,
    /// Largest relative loss in any other metric.
    pub max_secondary_loss: f64,
    /// Two-sided level of the interval that must lie above zero.
    pub confidence: f64,
    /// Fewest users of a comparison that counts as evidence.
    pub min_users: usize,
    /// Draws of the paired bootstrap.
    pub bootstrap_draws: usize,
    /// Least static figures by metric name, `coverage@100` among them.
    pub floors: BTreeMap<String, f64>,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            min_relative_gain: 0.01,
            max_secondary_loss: 0.05,
            confidence: 0.95,
            min_users: 30,
            bootstrap_draws: 2000,
            floors: BTreeMap::from([("coverage@100".into(), 0.10), ("ndcg@10".into(), 0.05)]),
        }
    }
}

impl GateConfig {
    /// # Errors
    /// [`Error::Config`] naming the first setting outside its domain.
    pub fn check(&self) -> Result<(), Error> {
        let require = |good: bool, key, detail: &str| {
            if good {
                return Ok(());
            }
            Err(Error::Config {
                key,
                detail: detail.to_owned(),
            })
        };
        require(
            self.min_relative_gain > -1.0 && self.min_relative_gain < 10.0,
            "gate.min_relative_gain",
            "must lie between -1 and 10",
        )?;
        require(
            (0.0..=1.0).contains(&self.max_secondary_loss),
            "gate.max_secondary_loss",
            "must lie between 0 and 1",
        )?;
        require(
            self.confidence > 0.0 && self.confidence < 1.0,
            "gate.confidence",
            "must lie between 0 and 1",
        )?;
        require(
            (1..=1_000_000).contains(&self.bootstrap_draws),
            "gate.bootstrap_draws",
            "must lie between 1 and 1000000",
        )?;
        let known =
            |name: &String| name == "coverage@100" || crate::evaluate::METRICS.contains(&name.as_str());
        require(
            self.floors.keys().all(known) && self.floors.values().all(|floor| floor.is_finite()),
            "gate.floors",
            "must name coverage@100 or a static metric, with finite values",
        )
    }
}

/// On which ground it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Promoted: there was no champion; it passes the floors.
    First,
    /// Promoted: there was no champion; it is below a floor, or nobody could be asked about it.
    Bootstrap,
    /// Promoted: proved better.
    Better,
    /// Promoted: the champion's own scores are not finite.
    ChampionBroken,
    /// Kept the champion: the gain is too small or not proven.
    NotProven,
    /// Kept the champion: another metric lost too much.
    SecondaryLoss,
    /// Kept the champion: below a floor.
    BelowFloor,
    /// Kept the champion: too few users to tell.
    TooLittleEvidence,
    /// Kept the champion, or nobody serves: the challenger is broken.
    Unsound,
}

impl Verdict {
    /// Whether the challenger becomes champion.
    #[must_use]
    pub fn promotes(self) -> bool {
        matches!(
            self,
            Self::First | Self::Bootstrap | Self::Better | Self::ChampionBroken
        )
    }
}

/// The gate's answer with everything that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the challenger becomes champion.
    pub promoted: bool,
    /// On which ground.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub reason: String,
    /// The figures of both models, the champion's behind `champion_`; all finite.
    pub numbers: BTreeMap<String, f64>,
    /// Every question with its answer, also those after the first that failed.
    pub checks: Vec<GateCheck>,
}

/// Decides about `challenger`. `champion` sat the same exam.
#[must_use]
pub fn decide(
    challenger: &Scorecard,
    champion: Option<&Scorecard>,
    config: &GateConfig,
    seed: u64,
) -> Decision {
    let mut checks = Checks::new(config);
    checks.soundness(challenger);
    let verdict = match champion {
        _ if !challenger.is_sound() => Verdict::Unsound,
        None => {
            checks.floors(challenger, None);
            if challenger.fixed.users.is_empty() || checks.failed("floor") {
                Verdict::Bootstrap
            } else {
                Verdict::First
            }
        }
        Some(champion) if !champion.is_sound() => Verdict::ChampionBroken,
        Some(champion) => {
            checks.evidence(challenger, champion);
            checks.comparison(challenger, champion, seed);
            checks.floors(challenger, Some(champion));
            [
                ("evidence", Verdict::TooLittleEvidence),
                ("primary", Verdict::NotProven),
                ("secondary", Verdict::SecondaryLoss),
                ("floor", Verdict::BelowFloor),
            ]
            .into_iter()
            .find(|(check, _)| checks.failed(check))
            .map_or(Verdict::Better, |(_, verdict)| verdict)
        }
    };
    let mut numbers = challenger.metrics();
    for (name, value) in champion.map(Scorecard::metrics).unwrap_or_default() {
        numbers.insert(format!("champion_{name}"), value);
    }
    let (checks, gain) = checks.finish();
    if let Some(gain) = gain {
        numbers.insert("gain".into(), gain.value);
        numbers.insert("gain_lo".into(), gain.lo);
        numbers.insert("gain_hi".into(), gain.hi);
    }
    // JSON has no NaN; what is not finite is told by the reason.
    numbers.retain(|_, value| value.is_finite());
    Decision {
        promoted: verdict.promotes(),
        verdict,
        reason: reason(verdict, &numbers, &checks),
        numbers,
        checks,
    }
}

fn reason(verdict: Verdict, numbers: &BTreeMap<String, f64>, checks: &[GateCheck]) -> String {
    let detail = |check: &str| {
        let failed = |entry: &&GateCheck| entry.check == check && !entry.passed;
        checks
            .iter()
            .find(failed)
            .map_or("", |entry| entry.detail.as_str())
    };
    let primary = checks
        .iter()
        .find(|entry| entry.check == "primary")
        .map_or("", |entry| entry.detail.as_str());
    let own = numbers.get(PRIMARY).map_or_else(
        || "nobody could be asked about it".to_owned(),
        |own| format!("NDCG@10 {own:.4} over {} users", numbers.get("n").unwrap_or(&0.0)),
    );
    match verdict {
        Verdict::First => format!("first model: {own}"),
        Verdict::Bootstrap => match detail("floor") {
            "" => format!("first model, flagged bootstrap: {own}"),
            floor => format!("first model, flagged bootstrap: {own}; {floor}"),
        },
        Verdict::Better => primary.to_owned(),
        Verdict::ChampionBroken => "the champion's scores are not finite".to_owned(),
        Verdict::NotProven => primary.to_owned(),
        Verdict::SecondaryLoss => format!("{}; {primary}", detail("secondary")),
        Verdict::BelowFloor => format!("{}; {primary}", detail("floor")),
        Verdict::TooLittleEvidence => detail("evidence").to_owned(),
        Verdict::Unsound => detail("soundness").to_owned(),
    }
}

#[cfg(test)]
mod tests;
