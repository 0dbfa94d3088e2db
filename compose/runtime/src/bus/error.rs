//! What can go wrong on the bus, by what the caller must do about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error of the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The broker cannot be reached or asked to come back later: try again.
    #[error("{context}: {source}")]
    Transient {
        /// What was being done.
        context: String,
        /// librdkafka's error.
        source: KafkaError,
    },
    /// The local queue is full: the caller sends faster than the broker takes. Slow down or shed.
    #[error("the send queue is full")]
    QueueFull,
    /// This record can never be sent as it is (too large, for example).
    #[error("{context}: {source}")]
    Refused {
        /// What was being done.
        context: String,
        /// librdkafka's error.
        source: KafkaError,
    },
    /// Wrong configuration, credentials or topic layout: needs a person.
    #[error("{0}")]
    Fatal(String),
    /// A checkpoint that lies beyond the end of the log: the state belongs to another log.
    #[error(
        "checkpoint {offset} of {topic}/{partition} lies beyond the log's end {high}: this state was made from \
         another log; use its own broker or a fresh state directory"
    )]
    CheckpointBeyondEnd {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The checkpoint.
        offset: i64,
        /// The log's end.
        high: i64,
    },
    /// A checkpoint below the start of the log: records between were deleted before they were read.
    #[error("records {offset} to {low} of {topic}/{partition} were deleted before they were read")]
    Truncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The checkpoint.
        offset: i64,
        /// The log's start.
        low: i64,
    },
    /// The handler of a subscriber failed.
    #[error("{0}")]
    Handler(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BusError {
    /// Classifies librdkafka's error.
    pub(crate) fn from_kafka(context: impl Into<String>, source: KafkaError) -> Self {
        let context = context.into();
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Self::QueueFull,
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord,
            ) => Self::Refused { context, source },
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::InvalidArgument
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::InvalidPartitions
                | RDKafkaErrorCode::InvalidReplicationFactor
                | RDKafkaErrorCode::InvalidConfig
                | RDKafkaErrorCode::PolicyViolation,
            ) => Self::Fatal(format!("{context}: {source}")),
            // For a record it is librdkafka's verdict after half a minute of asking; elsewhere it may be a broker that
            // is just starting.
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition)
                if matches!(source, KafkaError::MessageProduction(_)) =>
            {
                Self::Fatal(format!("{context}: {source}"))
            }
            _ if matches!(
                source,
                KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)
            ) =>
            {
                Self::Fatal(format!("{context}: {source}"))
            }
            _ => Self::Transient { context, source },
        }
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::QueueFull)
    }
}
