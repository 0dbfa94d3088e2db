//! How far a training is, for people who wait: `training_stage` events, and a line in the log per stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use marquee_runtime::bus::Outgoing;
use marquee_schemas::{ModelEvent, ModelEventKind, ModelVersion, SchemaVersion};

use crate::memory;
use crate::registry::RunInProgress;
use crate::run::Stage;

/// Shared by the worker, which sends, and the training thread, which reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    run: Option<Run>,
    /// Stages that began and were not sent yet.
    news: Vec<News>,
    /// Stages of the newest run that are over, with their seconds.
    over: Vec<(&'static str, f64)>,
}

#[derive(Debug)]
struct Run {
    version: ModelVersion,
    attempt: u32,
    event_ids: Vec<String>,
    began: Instant,
    stage: Option<(Stage, Instant)>,
}

#[derive(Debug)]
struct News {
    stage: &'static str,
    index: usize,
    elapsed_ms: u64,
    peak_bytes: Option<u64>,
}

/// The name of the last stage, after all work is done.
const DONE: &str = "done";

impl Progress {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A run begins.
    pub(super) fn begin(&self, version: ModelVersion, run: &RunInProgress) {
        memory::forget_peak();
        let event_ids = run.events.iter().map(|event| event.event_id.clone()).collect();
        self.with(|inner| {
            inner.news.clear();
            inner.over.clear();
            inner.run = Some(Run {
                version,
                attempt: run.attempts,
                event_ids,
                began: Instant::now(),
                stage: None,
            });
        });
    }

    /// A stage begins, or, without one, the run is done.
    pub(super) fn enter(&self, stage: Option<Stage>) {
        self.with(|inner| {
            let Some(run) = &mut inner.run else { return };
            if let Some((last, since)) = run.stage.take() {
                let duration = since.elapsed();
                inner.over.push((last.name(), duration.as_secs_f64()));
                let duration_ms = duration.as_millis() as u64;
                tracing::info!(stage = last.name(), duration_ms, "training stage done");
            }
            run.stage = stage.map(|stage| (stage, Instant::now()));
            let news = News {
                stage: stage.map_or(DONE, Stage::name),
                index: stage.map_or(Stage::ALL.len(), |stage| stage as usize),
                elapsed_ms: run.began.elapsed().as_millis() as u64,
                peak_bytes: memory::peak_bytes(),
            };
            if stage.is_none() {
                tracing::info!(
                    duration_ms = news.elapsed_ms,
                    peak_memory_mib = news.peak_bytes.map_or(0, |bytes| bytes >> 20),
                    "training ended"
                );
            }
            inner.news.push(news);
        });
    }

    /// The stages of the newest run with the seconds that they took, the one under way last.
    pub(crate) fn seconds_by_stage(&self) -> Vec<(&'static str, f64)> {
        self.with(|inner| {
            let mut stages = inner.over.clone();
            let under_way = inner.run.as_ref().and_then(|run| run.stage);
            stages.extend(under_way.map(|(stage, since)| (stage.name(), since.elapsed().as_secs_f64())));
            stages
        })
    }

    /// The events that were not sent yet.
    pub(super) fn drain(&self, now_ms: i64) -> Vec<Outgoing> {
        self.with(|inner| {
            let news = std::mem::take(&mut inner.news);
            let Some(run) = &inner.run else {
                return Vec::new();
            };
            news.iter()
                .map(|news| Outgoing::of(&event(run, news, now_ms)))
                .collect()
        })
    }
}

fn event(run: &Run, news: &News, now_ms: i64) -> ModelEvent {
    let mut numbers = BTreeMap::from([
        ("stage".to_owned(), news.index as f64),
        ("stages".to_owned(), Stage::ALL.len() as f64),
        ("elapsed_ms".to_owned(), news.elapsed_ms as f64),
    ]);
    if let Some(bytes) = news.peak_bytes {
        numbers.insert("peak_memory_bytes".to_owned(), bytes as f64);
    }
    ModelEvent {
        schema_version: SchemaVersion,
        event_id: format!("{}/training_stage/{}/{}", run.version, run.attempt, news.stage),
        version: run.version.clone(),
        kind: ModelEventKind::TrainingStage,
        reason: news.stage.to_owned(),
        bundle_uri: None,
        bundle_sha256: None,
        offsets: Vec::new(),
        numbers,
        retrain_event_id: run.event_ids.first().cloned(),
        joined_retrain_event_ids: run.event_ids.iter().skip(1).cloned().collect(),
        previous: None,
        checks: Vec::new(),
        command_id: None,
        at_ms: now_ms,
    }
}
