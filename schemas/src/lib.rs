//! The wire contract of marquee: what travels on which topic, under which key, in which bytes.
//!
//! Every record is JSON with a `schema_version`. Unknown fields are tolerated on read, so that a producer may be
//! newer than its consumers; an unknown version is refused, so that meaning never changes silently. The crate does
//! no I/O and holds no business rule beyond what makes a record well formed.

mod alert;
pub mod arrow;
mod codec;
mod dead_letter;
mod feature_row;
mod features;
mod ids;
mod interaction;
pub mod json_schema;
mod model_command;
mod model_event;
mod movie;
mod quality;
mod request_log;
mod retrain;
mod topics;
mod trigger_decision;

pub use alert::{Alert, Severity};
pub use codec::{DecodeError, Record, SchemaVersion, decode, encode};
pub use dead_letter::{Bytes64, DeadLetter, MAX_LETTER_PAYLOAD_BYTES, Origin, Reason};
pub use feature_row::FeatureRow;
pub use features::{
    FeatureKey, FeatureRecord, HISTORY_CHUNK_LEN, HistoryChunk, HistoryEntry, MovieFeatures, UserFeatures,
};
pub use ids::{ModelVersion, MovieId, Offset, PartitionOffset, UserId};
pub use interaction::{Interaction, Kind, Limits, MAX_INTERACTION_BYTES};
pub use model_command::{ModelAction, ModelCommand};
pub use model_event::{GateCheck, ModelEvent, ModelEventKind};
pub use movie::{MAX_TITLE_CHARS, Movie, genre_bit};
pub use quality::{QualityMetric, online};
pub use request_log::{Endpoint, Filters, LoggedItem, RequestLog, StageLatency};
pub use retrain::{RetrainEvent, Trigger};
pub use topics::{ALL_TOPICS, CleanupPolicy, Topic, TopicSpec};
pub use trigger_decision::{TriggerDecision, TriggerOutcome, TriggerVerdict};
