//! How to reach the brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

/// How often a consumer that takes the first record at once asks again while there is none.
const IDLE_FETCH: Duration = Duration::from_millis(200);
/// No consumer waits for more than this.
const ENOUGH_BYTES: u32 = 1 << 20;

/// Connection settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// librdkafka options passed through as they are (`security.protocol`, `sasl.username`, ...). Options that the
    /// guarantees rest on are set after these and cannot be overridden.
    pub options: BTreeMap<String, String>,
    /// Records a publisher may hold unacknowledged; beyond it sending waits or is refused.
    pub max_in_flight_records: u32,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            options: BTreeMap::new(),
            max_in_flight_records: 100_000,
        }
    }
}

impl BusConfig {
    /// Settings for these brokers, everything else by default.
    #[must_use]
    pub fn for_brokers(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            ..Self::default()
        }
    }

    fn base(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", client_id);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.base("marquee-admin")
    }

    pub(super) fn producer(&self, client_id: &str) -> ClientConfig {
        let mut config = self.base(client_id);
        config
            // The partitioner of the Java client, so that keys land where most other producers put them.
            .set("partitioner", "murmur2_random")
            // Kafka's own default since 4.0: a busy producer sends a fifth of the requests.
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "4194304")
            .set(
                "queue.buffering.max.messages",
                // Zero would mean that there is no bound.
                self.max_in_flight_records.max(1).to_string(),
            )
            .set("queue.buffering.max.kbytes", "262144")
            .set("enable.idempotence", "true")
            .set("acks", "all");
        config
    }

    /// `gather`: how long the broker may wait for more records than the first one.
    pub(super) fn consumer(&self, client_id: &str, group: Option<&str>, gather: Duration) -> ClientConfig {
        let mut config = self.base(client_id);
        // A broker answers as soon as there are enough records; else this is how often an idle consumer asks again.
        let (enough, wait) = if gather.is_zero() {
            (1, IDLE_FETCH)
        } else {
            (ENOUGH_BYTES, gather)
        };
        config
            .set("fetch.min.bytes", enough.to_string())
            .set("fetch.wait.max.ms", wait.as_millis().to_string())
            .set("fetch.message.max.bytes", "4194304")
            .set("queued.max.messages.kbytes", "32768")
            // How soon a full queue is looked at again. The client's own default, a second, lets a reader of a long log
            // wait for most of its time.
            .set("fetch.queue.backoff.ms", "10")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "1000")
            // librdkafka insists on a group name even for manual assignment; nothing is ever committed under it.
            .set("group.id", group.unwrap_or("marquee-unassigned"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("partition.assignment.strategy", "range");
        config
    }
}
