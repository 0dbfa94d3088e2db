//! Replay: the request log becomes evidence.
//!
//! [`Service`] writes the topics `request-logs`, `interactions`, `model-events`, `quality-metrics` and `movies` into
//! a lake of Parquet files, each record exactly once. [`SqlEngine`] answers questions about them. [`evaluate`] joins
//! what was served with what users did next, per model version.

mod config;
mod date;
mod disk;
mod error;
mod evaluation;
mod experiment;
mod http;
mod lake;
mod off_policy;
mod operation;
mod report;
mod rows;
mod service;
mod sink;
pub mod sql;
mod table;
mod writer;

pub use config::{
    CompactionConfig, Config, EvaluationConfig, FlushConfig, HttpConfig, MonitoringConfig, RetentionConfig,
};
pub use error::Error;
pub use evaluation::{Evaluation, EvaluationOptions, ModelComparison, Slice, SliceEvaluation, evaluate};
pub use experiment::{ArmReport, ExperimentOptions, ExperimentReport, Measure, experiment};
pub use marquee_statistics::Estimate;
pub use off_policy::{Reward, WhatIf, WhatIfOptions, what_if};
pub use report::{Chart, Report, Section, TableData, daily};
pub use service::Service;
pub use sink::SinkCounts;
pub use sql::{Format, QueryResult, SqlEngine, SqlError, SqlOptions};
pub use table::Table;
pub use writer::{LakeWriter, RefusedRecords};
