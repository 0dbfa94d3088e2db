//! JSON Schemas for producers and consumers that are not written in Rust.

use schemars::Schema;

use crate::{
    Alert, DeadLetter, FeatureRecord, FeatureRow, Interaction, ModelCommand, ModelEvent, Movie,
    QualityMetric, RequestLog, RetrainEvent, Topic, TriggerDecision,
};

/// The JSON Schema (2020-12) of a topic's records.
#[must_use]
pub fn of(topic: Topic) -> Schema {
    match topic {
        Topic::Interactions => schemars::schema_for!(Interaction),
        Topic::Movies => schemars::schema_for!(Movie),
        Topic::Features => schemars::schema_for!(FeatureRecord),
        Topic::FeatureRows => schemars::schema_for!(FeatureRow),
        Topic::RetrainEvents => schemars::schema_for!(RetrainEvent),
        Topic::TriggerDecisions => schemars::schema_for!(TriggerDecision),
        Topic::ModelEvents => schemars::schema_for!(ModelEvent),
        Topic::ModelCommands => schemars::schema_for!(ModelCommand),
        Topic::RequestLogs => schemars::schema_for!(RequestLog),
        Topic::QualityMetrics => schemars::schema_for!(QualityMetric),
        Topic::DeadLetters => schemars::schema_for!(DeadLetter),
        Topic::Alerts => schemars::schema_for!(Alert),
    }
}

/// The schema as the text of a file.
#[must_use]
pub fn text(topic: Topic) -> String {
    format!("{:#}\n", of(topic).as_value())
}
