//! Valid events to the topic, the others to the dead letters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use marquee_runtime::BusError;
use marquee_runtime::bus::Outgoing;
use marquee_schemas::{DeadLetter, DecodeError, Interaction, Limits, MAX_INTERACTION_BYTES, Origin, decode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::answer::{Accepted, Answer, Failed, Problem, Rejected};
use super::{Inner, Raw};
use crate::Acknowledgement;

/// The name under which refusals are recorded, as topic and as stage.
const TOPIC: &str = "http";
const STAGE: &str = "gateway";
const QUEUE_PAUSE: Duration = Duration::from_millis(2);
/// A larger setting would leave the range of the timer.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Inner {
    /// Publishes and waits for the broker.
    pub(super) async fn dispatch(&self, raw: &[Raw<'_>]) -> Result<Answer, Problem> {
        let busy = || {
            Problem::unavailable(
                "too many events are on their way, send these again".to_owned(),
                None,
            )
        };
        let wanted = u32::try_from(raw.len()).map_err(|_| busy())?;
        // Held until every acknowledgement is in: this is the bound over all requests.
        let _room = self.room.try_acquire_many(wanted).map_err(|_| busy())?;

        let now_ms = self.clock.now_ms();
        let mut valid = Vec::with_capacity(raw.len());
        let mut refused = Vec::new();
        for (index, &event) in raw.iter().enumerate() {
            match self.validate(event, now_ms) {
                Ok(event) => valid.push((index, event)),
                Err(error) => refused.push((index, event.bytes(), error)),
            }
        }

        let patience = Duration::from_millis(self.config.acknowledge_timeout_ms).min(LONGEST_WAIT);
        let deadline = Instant::now() + patience;
        // Valid events first: while not one of them is queued, the whole request can still be turned away.
        let sent = self.send_valid(valid, deadline).await?;
        count(&self.counters.received, raw.len());
        count(&self.counters.rejected, refused.len());
        let letters = self.send_letters(&refused, now_ms, deadline).await;

        let mut answer = Answer::default();
        for (index, event_id, outcome) in sent {
            let outcome = match outcome {
                Ok(acknowledgement) => timeout_at(deadline, acknowledgement).await.unwrap_or_else(|_| {
                    Err(BusError::Fatal(format!(
                        "no acknowledgement within {} ms",
                        self.config.acknowledge_timeout_ms
                    )))
                }),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => answer.accepted.push(Accepted { index, event_id }),
                Err(error) => answer.failed.push(Failed {
                    index,
                    event_id,
                    detail: error.to_string(),
                }),
            }
        }
        count(&self.counters.accepted, answer.accepted.len());
        count(&self.counters.failed, answer.failed.len());
        if let Some(first) = answer.failed.first() {
            tracing::warn!(events = answer.failed.len(), error = %first.detail, "events were not published");
        }
        for letter in letters {
            if !matches!(timeout_at(deadline, letter).await, Ok(Ok(()))) {
                self.lost_letter("not acknowledged");
            }
        }
        answer.rejected = refused
            .into_iter()
            .map(|(index, _, error)| Rejected {
                index,
                reason: error.reason(),
                detail: error.to_string(),
            })
            .collect();
        Ok(answer)
    }

    fn validate(&self, raw: Raw<'_>, now_ms: i64) -> Result<Interaction, DecodeError> {
        let bytes = match raw {
            Raw::Malformed(_) => {
                return Err(DecodeError::Malformed("the body is not a JSON array".to_owned()));
            }
            Raw::Event(bytes) if raw.too_large() => {
                return Err(DecodeError::TooLarge {
                    bytes: bytes.len(),
                    limit: MAX_INTERACTION_BYTES,
                });
            }
            Raw::Event(bytes) => bytes,
        };
        let event = match decode::<Interaction>(bytes) {
            // Complete events are parsed once; only one that lacks something is completed and read again.
            Err(DecodeError::MissingField(missing)) => self.complete(bytes, now_ms, missing)?,
            other => other?,
        };
        let limits = Limits {
            max_future_ms: self.config.max_future_ms,
        };
        event.check_time(now_ms, limits)?;
        Ok(event)
    }

    /// Fills in what a producer over HTTP may leave out.
    fn complete(&self, bytes: &[u8], now_ms: i64, missing: String) -> Result<Interaction, DecodeError> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
            return Err(DecodeError::MissingField(missing));
        };
        fields.entry("schema_version").or_insert_with(|| Value::from(1));
        fields.entry("timestamp").or_insert_with(|| Value::from(now_ms));
        fields
            .entry("event_id")
            .or_insert_with(|| Value::from(self.ids.next(now_ms).to_string()));
        decode(Value::Object(fields).to_string().as_bytes())
    }

    async fn send_valid(
        &self,
        valid: Vec<(usize, Interaction)>,
        deadline: Instant,
    ) -> Result<Vec<(usize, String, Result<Acknowledgement, BusError>)>, Problem> {
        let mut sent = Vec::with_capacity(valid.len());
        for (index, event) in valid {
            let record = Outgoing::of(&event);
            let outcome = match self.sink.try_send(&record) {
                Err(BusError::QueueFull) if sent.is_empty() => {
                    return Err(Problem::unavailable("the send queue is full".to_owned(), None));
                }
                // Half a request is worse for the producer than a short wait.
                Err(BusError::QueueFull) => self.send_by(&record, deadline).await,
                other => other,
            };
            sent.push((index, event.event_id, outcome));
        }
        Ok(sent)
    }

    /// Waits for room in the queue, not beyond the deadline.
    async fn send_by(&self, record: &Outgoing, deadline: Instant) -> Result<Acknowledgement, BusError> {
        loop {
            match self.sink.try_send(record) {
                Err(BusError::QueueFull) if Instant::now() < deadline => {
                    tokio::time::sleep(QUEUE_PAUSE).await
                }
                other => return other,
            }
        }
    }

    async fn send_letters(
        &self,
        refused: &[(usize, &[u8], DecodeError)],
        now_ms: i64,
        deadline: Instant,
    ) -> Vec<Acknowledgement> {
        let mut letters = Vec::with_capacity(refused.len());
        for (_, payload, error) in refused {
            let origin = Origin {
                topic: TOPIC,
                partition: self.instance,
                offset: self.next_letter.fetch_add(1, Ordering::Relaxed),
                key: None,
                value: Some(payload),
            };
            let letter = DeadLetter::of(STAGE, &origin, error.reason(), &error.to_string(), now_ms);
            match self.send_by(&Outgoing::of(&letter), deadline).await {
                Ok(acknowledgement) => letters.push(acknowledgement),
                Err(error) => self.lost_letter(&error.to_string()),
            }
        }
        letters
    }

    /// The producer has the refusal in its answer; that the log lacks it must show.
    fn lost_letter(&self, error: &str) {
        count(&self.counters.dead_letters_lost, 1);
        tracing::error!(error, "a refused event could not be kept as a dead letter");
    }
}
