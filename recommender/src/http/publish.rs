//! Events that the recommender publishes on a client's behalf.

use marquee_runtime::bus::Outgoing;

use super::{AppState, Problem};
use crate::sink::SinkError;

impl AppState {
    /// Publishes an event and waits until the broker has it.
    pub(crate) async fn publish(&self, record: Outgoing) -> Result<(), Problem> {
        let refused = |error: SinkError| match error {
            SinkError::Later(why) => Problem::not_published(why),
            SinkError::Refused(_) => Problem::internal(&error),
        };
        let acknowledged = self.events.send(&record).map_err(refused)?;
        tokio::time::timeout(self.config.publish_timeout(), acknowledged)
            .await
            .map_err(|_| {
                Problem::not_published(format!(
                    "not acknowledged within {} ms",
                    self.config.publish_timeout_ms
                ))
            })?
            .map_err(refused)
    }
}
