//! Who is served by which model and in which manner: a configured experiment, or the rollout of a challenger.
//!
//! Assignment is a sticky hash: the first four bytes of SHA-256 over salt and unit, as a share of 2^32, against the
//! arms' cumulated shares. The unit is the user; without one the session; without one the request itself. A salt of its
//! own makes each experiment independent of every other. A rollout is an experiment with the arms `champion` and
//! `challenger` whose salt is the challenger's version, so that a user who got the challenger at 10% keeps it at 50%.
//!
//! While an experiment is configured a rollout's challenger answers nobody and is scored on the side only: two
//! assignments at once would spoil each other's evidence.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use marquee_schemas::{ModelVersion, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::champion::{Champion, Serving};

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelRef {
    /// The one that serves.
    #[default]
    Champion,
    /// The one that served before it.
    Previous,
    /// The one that is being rolled out.
    Challenger,
    /// This one.
    Version(ModelVersion),
}

impl FromStr for ModelRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "champion" => Ok(Self::Champion),
            "previous" => Ok(Self::Previous),
            "challenger" => Ok(Self::Challenger),
            version => {
                let version = ModelVersion(version.to_owned());
                if version.ordinal().is_some() {
                    Ok(Self::Version(version))
                } else {
                    Err(format!(
                        "{version:?} is neither champion, previous, challenger nor a version such as v000003",
                        version = version.0
                    ))
                }
            }
        }
    }
}

impl TryFrom<String> for ModelRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ModelRef> for String {
    fn from(model: ModelRef) -> Self {
        model.to_string()
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Champion => "champion",
            Self::Previous => "previous",
            Self::Challenger => "challenger",
            Self::Version(version) => &version.0,
        })
    }
}

/// One way to serve.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArmConfig {
    /// Its name in the request logs.
    pub name: String,
    /// Its share of the users, 0 to 1.
    pub share: f64,
    /// The model that answers; while it is not there, the champion does, and the log says so by its version.
    pub model: ModelRef,
    /// Diversity where the request asks for none, 0 to 1.
    pub diversity: f32,
    /// Recency where the request asks for none, 0 to 1.
    pub recency: f32,
}

/// An experiment: the shares of its arms add up to 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentConfig {
    /// Its name in the request logs; empty: there is none.
    pub name: String,
    /// What makes its assignment its own; its name where empty.
    pub salt: String,
    /// Its arms.
    pub arms: Vec<ArmConfig>,
}

impl ExperimentConfig {
    /// # Errors
    /// [`Error::Config`] naming what cannot work.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Config(format!("recommender.experiment.{why}")));
        if self.name.is_empty() {
            return if self.arms.is_empty() {
                Ok(())
            } else {
                refuse("name is empty, but there are arms".into())
            };
        }
        let names: BTreeSet<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        if names.len() != self.arms.len() || names.contains("") {
            return refuse("arms need names that differ".into());
        }
        for arm in &self.arms {
            if !(0.0..=1.0).contains(&arm.share) {
                return refuse(format!("arms: the share of {} is outside 0 to 1", arm.name));
            }
            if !((0.0..=1.0).contains(&arm.diversity) && (0.0..=1.0).contains(&arm.recency)) {
                return refuse(format!("arms: a strength of {} is outside 0 to 1", arm.name));
            }
        }
        let total: f64 = self.arms.iter().map(|arm| arm.share).sum();
        if (total - 1.0).abs() > 1e-9 {
            return refuse(format!("arms: the shares add up to {total}, not to 1"));
        }
        Ok(())
    }

    /// Versions that its arms name.
    pub fn versions(&self) -> impl Iterator<Item = &ModelVersion> {
        self.arms.iter().filter_map(|arm| match &arm.model {
            ModelRef::Version(version) => Some(version),
            ModelRef::Champion | ModelRef::Previous | ModelRef::Challenger => None,
        })
    }
}

/// For whom an arm is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// The user, where the request names one.
    pub user: Option<UserId>,
    /// The session, where the request names one.
    pub session: Option<&'a str>,
    /// The request.
    pub request: &'a [u8; 16],
}

impl Unit<'_> {
    /// The sticky hash under a salt.
    #[must_use]
    pub fn hash(&self, salt: &str) -> u32 {
        let mut digest = Sha256::new();
        digest.update(salt.as_bytes());
        match (self.user, self.session) {
            (Some(user), _) => digest.update(format!("\0u{user}").as_bytes()),
            (None, Some(session)) => digest.update(format!("\0s{session}").as_bytes()),
            (None, None) => {
                digest.update(b"\0r");
                digest.update(self.request);
            }
        }
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest.finalize());
        u32::from_be_bytes([a, b, c, d])
    }
}

/// Place of a hash among shares that add up to 1; the last one takes what rounding leaves.
fn place(hash: u32, shares: impl Iterator<Item = f64>) -> usize {
    let at = f64::from(hash) / 4_294_967_296.0;
    let mut upto = 0.0;
    let mut last = 0;
    for (place, share) in shares.enumerate() {
        upto += share;
        if at < upto {
            return place;
        }
        if share > 0.0 {
            last = place;
        }
    }
    last
}

/// How a request is served.
#[derive(Debug, Clone, Default)]
pub struct Assignment {
    /// The model; absent before the first one.
    pub serving: Option<Arc<Serving>>,
    /// The experiment.
    pub experiment: Option<String>,
    /// Its arm.
    pub arm: Option<String>,
    /// The hash that chose the arm; absent where the request chose it itself.
    pub hash: Option<u32>,
    /// Diversity where the request asks for none.
    pub diversity: f32,
    /// Recency where the request asks for none.
    pub recency: f32,
}

/// A request asked for an arm that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no arm {arm:?}; there are: {known}")]
pub struct UnknownArm {
    arm: String,
    known: String,
}

/// Assigns requests.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    experiment: Option<ExperimentConfig>,
}

impl Traffic {
    /// With the configured experiment, if there is one.
    #[must_use]
    pub fn new(experiment: &ExperimentConfig) -> Self {
        Self {
            experiment: (!experiment.name.is_empty()).then(|| experiment.clone()),
        }
    }

    /// How to serve `unit`; `forced` names the arm a request asks for, for tests and demonstrations.
    ///
    /// # Errors
    /// [`UnknownArm`] where `forced` is none.
    pub fn assign(
        &self,
        champion: &Champion,
        unit: Unit<'_>,
        forced: Option<&str>,
    ) -> Result<Assignment, UnknownArm> {
        if let Some(experiment) = &self.experiment {
            return experiment.assign(champion, unit, forced);
        }
        let Some(challenger) = champion.challenger() else {
            return match forced {
                Some(arm) => Err(unknown(arm, &[])),
                None => Ok(Assignment {
                    serving: champion.serving(),
                    ..Assignment::default()
                }),
            };
        };
        let version = &challenger.serving.version;
        let hash = unit.hash(&version.0);
        let names = ["champion", "challenger"];
        let arm = match forced {
            None => place(hash, [1.0 - challenger.share, challenger.share].into_iter()),
            Some(arm) => names
                .iter()
                .position(|name| *name == arm)
                .ok_or_else(|| unknown(arm, &names))?,
        };
        // In the shadow stage there is nothing to tell apart.
        if challenger.share == 0.0 && forced.is_none() {
            return Ok(Assignment {
                serving: champion.serving(),
                ..Assignment::default()
            });
        }
        Ok(Assignment {
            serving: if arm == 1 {
                Some(Arc::clone(&challenger.serving))
            } else {
                champion.serving()
            },
            experiment: Some(format!("rollout/{version}")),
            arm: Some(names[arm].to_owned()),
            hash: forced.is_none().then_some(hash),
            ..Assignment::default()
        })
    }

    /// The model to score on the side, if there is one: a rollout's challenger.
    #[must_use]
    pub fn shadow(&self, champion: &Champion) -> Option<Arc<Serving>> {
        let challenger = champion.challenger()?;
        (challenger.share == 0.0 || self.experiment.is_some()).then(|| Arc::clone(&challenger.serving))
    }
}

impl ExperimentConfig {
    fn assign(
        &self,
        champion: &Champion,
        unit: Unit<'_>,
        forced: Option<&str>,
    ) -> Result<Assignment, UnknownArm> {
        let salt = if self.salt.is_empty() {
            &self.name
        } else {
            &self.salt
        };
        let hash = unit.hash(salt);
        let place = match forced {
            None => place(hash, self.arms.iter().map(|arm| arm.share)),
            Some(wanted) => self
                .arms
                .iter()
                .position(|arm| arm.name == wanted)
                .ok_or_else(|| {
                    let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
                    unknown(wanted, &names)
                })?,
        };
        let arm = &self.arms[place];
        let serving = match &arm.model {
            ModelRef::Champion => None,
            ModelRef::Previous => champion.previous(),
            ModelRef::Challenger => champion
                .challenger()
                .map(|challenger| Arc::clone(&challenger.serving)),
            ModelRef::Version(version) => champion.named(version),
        };
        Ok(Assignment {
            serving: serving.or_else(|| champion.serving()),
            experiment: Some(self.name.clone()),
            arm: Some(arm.name.clone()),
            hash: forced.is_none().then_some(hash),
            diversity: arm.diversity,
            recency: arm.recency,
        })
    }
}

fn unknown(arm: &str, known: &[&str]) -> UnknownArm {
    UnknownArm {
        arm: arm.chars().take(64).collect(),
        known: if known.is_empty() {
            "none, no experiment is running".to_owned()
        } else {
            known.join(", ")
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, loaded, version};

    fn experiment() -> ExperimentConfig {
        let arm = |name: &str, share: f64, model: &str| ArmConfig {
            name: name.into(),
            share,
            model: model.parse().unwrap(),
            ..ArmConfig::default()
        };
        ExperimentConfig {
            name: "variety".into(),
            salt: String::new(),
            arms: vec![
                arm("control", 0.5, "champion"),
                ArmConfig {
                    diversity: 0.3,
                    ..arm("varied", 0.25, "champion")
                },
                arm("old", 0.25, "v000001"),
            ],
        }
    }

    fn unit(user: u64) -> Unit<'static> {
        Unit {
            user: Some(UserId(user)),
            session: None,
            request: &[0; 16],
        }
    }

    #[test]
    fn arms_get_their_shares_stick_to_users_and_ignore_other_experiments() {
        let experiment = experiment();
        experiment.check().unwrap();
        let champion = Champion::default();
        let traffic = Traffic::new(&experiment);
        let other = Traffic::new(&ExperimentConfig {
            salt: "another".into(),
            ..experiment.clone()
        });
        let arm = |traffic: &Traffic, user| traffic.assign(&champion, unit(user), None).unwrap().arm.unwrap();
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        let mut both = 0;
        for user in 0..20_000 {
            let chosen = arm(&traffic, user);
            assert_eq!(chosen, arm(&traffic, user));
            both += u32::from(chosen == "control" && arm(&other, user) == "control");
            *counts.entry(chosen).or_default() += 1;
        }
        // Four standard deviations of the binomial distribution: 4 * sqrt(20,000 p (1 - p)).
        assert!(counts["control"].abs_diff(10_000) < 283, "{counts:?}");
        assert!(counts["varied"].abs_diff(5_000) < 245 && counts["old"].abs_diff(5_000) < 245);
        // Independent salts: a quarter of the users are in both controls.
        assert!(both.abs_diff(5_000) < 245, "{both}");
    }

    #[test]
    fn an_arm_names_its_model_and_manner_and_can_be_forced() {
        let world = World::new();
        world.champion.install(version(2), loaded(), &world.view).unwrap();
        let traffic = Traffic::new(&experiment());
        let forced = |arm| traffic.assign(&world.champion, unit(1), Some(arm));
        let old = forced("old").unwrap();
        assert_eq!((old.arm.as_deref(), old.hash), (Some("old"), None));
        // Version 1 is the previous champion, but nobody asked to keep it under its name: the champion answers.
        assert_eq!(old.serving.unwrap().version, version(2));
        world.champion.keep(version(1), loaded(), &world.view).unwrap();
        assert_eq!(forced("old").unwrap().serving.unwrap().version, version(1));
        assert_eq!(forced("varied").unwrap().diversity, 0.3);
        assert!(
            forced("none")
                .unwrap_err()
                .to_string()
                .contains("control, varied, old")
        );
    }

    #[test]
    fn a_rollout_grows_without_taking_anybody_back() {
        let world = World::new();
        let traffic = Traffic::default();
        let share = |share: f64| {
            world
                .champion
                .challenge(version(2), loaded(), share, &world.view)
                .unwrap();
            (0..2_000)
                .filter(|&user| {
                    let assigned = traffic.assign(&world.champion, unit(user), None).unwrap();
                    assigned.serving.unwrap().version == version(2)
                })
                .collect::<BTreeSet<u64>>()
        };
        assert!(share(0.0).is_empty());
        assert!(traffic.shadow(&world.champion).is_some());
        let tenth = share(0.1);
        assert!(traffic.shadow(&world.champion).is_none());
        let half = share(0.5);
        assert!((147..=254).contains(&tenth.len()), "{}", tenth.len());
        assert!((910..=1090).contains(&half.len()), "{}", half.len());
        assert!(tenth.is_subset(&half));
        world.champion.end_challenge();
        assert_eq!(traffic.assign(&world.champion, unit(1), None).unwrap().arm, None);
        assert!(
            traffic
                .assign(&world.champion, unit(1), Some("challenger"))
                .is_err()
        );
    }

    #[test]
    fn an_experiment_that_cannot_work_is_refused() {
        let change = |change: &dyn Fn(&mut ExperimentConfig)| {
            let mut config = experiment();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(change(&|config| config.arms[0].share = 0.4).contains("add up"));
        assert!(change(&|config| config.arms[0].name = "old".into()).contains("differ"));
        assert!(change(&|config| config.name.clear()).contains("empty"));
        assert!(change(&|config| config.arms[1].diversity = 2.0).contains("varied"));
        assert!("v1x".parse::<ModelRef>().is_err());
        assert_eq!(experiment().versions().collect::<Vec<_>>(), [&version(1)]);
    }
}
