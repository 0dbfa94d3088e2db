//! The stored tables and the topics they come from.

use std::fmt;

use datafusion::arrow::datatypes::SchemaRef;
use marquee_schemas::{Topic, arrow};

/// A table of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row per answered request.
    RequestLogs,
    /// One row per interaction.
    Interactions,
    /// One row per step in a model's life.
    ModelEvents,
    /// One row per measured figure.
    QualityMetrics,
    /// The current catalogue.
    Movies,
}

impl Table {
    /// Every stored table.
    pub const ALL: [Table; 5] = [
        Table::RequestLogs,
        Table::Interactions,
        Table::ModelEvents,
        Table::QualityMetrics,
        Table::Movies,
    ];

    /// Its name in SQL and its folder in the lake.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestLogs => "request_logs",
            Self::Interactions => "interactions",
            Self::ModelEvents => "model_events",
            Self::QualityMetrics => "quality_metrics",
            Self::Movies => "movies",
        }
    }

    /// The topic it is made from.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::RequestLogs => Topic::RequestLogs,
            Self::Interactions => Topic::Interactions,
            Self::ModelEvents => Topic::ModelEvents,
            Self::QualityMetrics => Topic::QualityMetrics,
            Self::Movies => Topic::Movies,
        }
    }

    /// The table made from `topic`, if one is.
    #[must_use]
    pub fn of_topic(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.topic() == topic)
    }

    /// The columns of its files.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::RequestLogs => arrow::request_logs(),
            Self::Interactions => arrow::interactions(),
            Self::ModelEvents => arrow::model_events(),
            Self::QualityMetrics => arrow::quality_metrics(),
            Self::Movies => arrow::movies(),
        }
    }

    /// Whether rows may be let go once they are old. What names a model's data, or describes the present, may not.
    #[must_use]
    pub const fn is_perishable(self) -> bool {
        matches!(self, Self::RequestLogs | Self::QualityMetrics)
    }

    /// The column that holds the event time, from which the date follows; the catalogue has none.
    #[must_use]
    pub const fn time_column(self) -> Option<&'static str> {
        match self {
            Self::RequestLogs | Self::Interactions | Self::ModelEvents => Some("timestamp"),
            Self::QualityMetrics => Some("window_end"),
            Self::Movies => None,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
