//! The topics: names, partitions, retention.

use std::fmt;

/// How the broker cleans a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Records older than this many ms may go; `None` keeps them for ever.
    Delete(Option<i64>),
    /// Only the newest record of a key must stay.
    Compact,
}

/// Everything needed to create a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// Which topic.
    pub topic: Topic,
    /// Number of partitions.
    pub partitions: i32,
    /// How it is cleaned.
    pub cleanup: CleanupPolicy,
    /// The largest record, in bytes.
    pub max_message_bytes: usize,
}

/// The topics of marquee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What users do, by user: the source of truth.
    Interactions,
    /// The catalogue, by movie.
    Movies,
    /// The feature store's changelog; partition n describes partition n of `interactions`.
    Features,
    /// The feature store's rows for the next owner of a partition; partition n holds those of partition n of
    /// `interactions`.
    FeatureRows,
    /// Requests for a new model.
    RetrainEvents,
    /// Why a new model was asked for, or was not.
    TriggerDecisions,
    /// Steps in the life of models.
    ModelEvents,
    /// What people ask of the trainer about its models.
    ModelCommands,
    /// What was served.
    RequestLogs,
    /// Measured quality.
    QualityMetrics,
    /// What was refused.
    DeadLetters,
    /// What a person should look at.
    Alerts,
}

/// Every topic.
pub const ALL_TOPICS: [Topic; 12] = [
    Topic::Interactions,
    Topic::Movies,
    Topic::Features,
    Topic::FeatureRows,
    Topic::RetrainEvents,
    Topic::TriggerDecisions,
    Topic::ModelEvents,
    Topic::ModelCommands,
    Topic::RequestLogs,
    Topic::QualityMetrics,
    Topic::DeadLetters,
    Topic::Alerts,
];

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MIB: usize = 1024 * 1024;

impl Topic {
    /// The name on the broker.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactions => "interactions",
            Self::Movies => "movies",
            Self::Features => "features",
            Self::FeatureRows => "feature-rows",
            Self::RetrainEvents => "retrain-events",
            Self::TriggerDecisions => "trigger-decisions",
            Self::ModelEvents => "model-events",
            Self::ModelCommands => "model-commands",
            Self::RequestLogs => "request-logs",
            Self::QualityMetrics => "quality-metrics",
            Self::DeadLetters => "dead-letters",
            Self::Alerts => "alerts",
        }
    }

    /// The topic's specification. `interactions` is the source of truth and is kept for ever, and so are the records
    /// that explain models; what can be derived or has been copied into the lake is not.
    #[must_use]
    pub const fn spec(self) -> TopicSpec {
        let (partitions, cleanup) = match self {
            Self::Interactions => (4, CleanupPolicy::Delete(None)),
            Self::Movies => (1, CleanupPolicy::Compact),
            Self::Features | Self::FeatureRows => (4, CleanupPolicy::Compact),
            Self::RetrainEvents | Self::ModelEvents | Self::ModelCommands => (1, CleanupPolicy::Delete(None)),
            Self::RequestLogs => (2, CleanupPolicy::Delete(Some(7 * DAY_MS))),
            Self::TriggerDecisions | Self::QualityMetrics | Self::DeadLetters | Self::Alerts => {
                (1, CleanupPolicy::Delete(Some(30 * DAY_MS)))
            }
        };
        let max_message_bytes = match self {
            // A dead letter carries up to 2 MiB of the refused bytes in base64, a third longer.
            Self::DeadLetters => 4 * MIB,
            _ => MIB,
        };
        TopicSpec {
            topic: self,
            partitions,
            cleanup,
            max_message_bytes,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_mirror_the_partitions_of_interactions() {
        for topic in [Topic::Features, Topic::FeatureRows] {
            assert_eq!(topic.spec().partitions, Topic::Interactions.spec().partitions);
        }
    }
}
