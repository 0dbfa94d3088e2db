//! How to reach the brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

use super::BusError;

/// Options that are not the user's: the guarantees rest on them, or a setting of ours has their meaning. librdkafka's
/// other names for the same are among them.
const FIXED: [&str; 18] = [
    "acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transactional.id",
];

/// The other names of options that are chosen here: of two names for one, either might win.
const ALIASES: [(&str, &str); 3] = [
    ("compression.type", "compression.codec"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("linger.ms", "queue.buffering.max.ms"),
];

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
    /// librdkafka options (`security.protocol`, `linger.ms`, ...); they go before what is chosen here for speed. Those that
    /// the guarantees rest on are refused by name.
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

    /// Whether all options may be set.
    ///
    /// # Errors
    /// [`BusError::Fatal`] naming the one that may not.
    pub fn check(&self) -> Result<(), BusError> {
        match self.options.keys().find(|key| FIXED.contains(&key.as_str())) {
            Some(key) => Err(BusError::Fatal(format!(
                "the option {key} of librdkafka cannot be set: the guarantees rest on it, or a setting of its own stands \
                 for it"
            ))),
            None => Ok(()),
        }
    }

    /// `tuning` may be overridden by the options, `fixed` may not.
    fn client(&self, client_id: &str, tuning: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        for (key, value) in tuning {
            let is_set = |&(name, alias): &(&str, &str)| name == *key && self.options.contains_key(alias);
            if !ALIASES.iter().any(is_set) {
                config.set(*key, *value);
            }
        }
        for (key, value) in &self.options {
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", client_id);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.client("marquee-admin", &[], &[])
    }

    pub(super) fn producer(&self, client_id: &str) -> ClientConfig {
        // Zero would mean that there is no bound.
        let in_flight = self.max_in_flight_records.max(1).to_string();
        self.client(
            client_id,
            &[
                // Kafka's own default since 4.0: a busy producer sends a fifth of the requests.
                ("linger.ms", "5"),
                ("compression.type", "lz4"),
                ("message.max.bytes", "4194304"),
                ("queue.buffering.max.kbytes", "262144"),
            ],
            &[
                // The partitioner of the Java client, so that keys land where most other producers put them.
                ("partitioner", "murmur2_random"),
                ("queue.buffering.max.messages", in_flight.as_str()),
                ("enable.idempotence", "true"),
                ("acks", "all"),
            ],
        )
    }

    /// `gather`: how long the broker may wait for more records than the first one.
    pub(super) fn consumer(&self, client_id: &str, group: Option<&str>, gather: Duration) -> ClientConfig {
        // A broker answers as soon as there are enough records; else this is how often an idle consumer asks again.
        let (enough, wait) = if gather.is_zero() {
            (1, IDLE_FETCH)
        } else {
            (ENOUGH_BYTES, gather)
        };
        let (enough, wait) = (enough.to_string(), wait.as_millis().to_string());
        self.client(
            client_id,
            &[
                ("fetch.min.bytes", enough.as_str()),
                ("fetch.wait.max.ms", wait.as_str()),
                ("fetch.message.max.bytes", "4194304"),
                ("queued.max.messages.kbytes", "32768"),
                // How soon a full queue is looked at again. The client's own default, a second, lets a reader of a long
                // log wait for most of its time.
                ("fetch.queue.backoff.ms", "10"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
            ],
            &[
                // librdkafka insists on a group name even for manual assignment; nothing is ever committed under it.
                ("group.id", group.unwrap_or("marquee-unassigned")),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("enable.partition.eof", "false"),
                ("auto.offset.reset", "error"),
                ("partition.assignment.strategy", "range"),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> BusConfig {
        let options = options
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        BusConfig {
            options: options.collect(),
            ..BusConfig::default()
        }
    }

    #[test]
    fn an_option_goes_before_what_is_chosen_for_speed() {
        let config = with(&[("linger.ms", "50"), ("session.timeout.ms", "45000")]);
        config.check().unwrap();
        assert_eq!(config.producer("test").get("linger.ms"), Some("50"));
        assert_eq!(config.producer("test").get("compression.type"), Some("lz4"));
        let consumer = config.consumer("test", None, Duration::ZERO);
        assert_eq!(consumer.get("session.timeout.ms"), Some("45000"));
        assert_eq!(consumer.get("heartbeat.interval.ms"), Some("1000"));
        let by_its_other_name = with(&[("queue.buffering.max.ms", "50")]).producer("test");
        assert_eq!(by_its_other_name.get("linger.ms"), None);
    }

    #[test]
    fn an_option_that_the_guarantees_rest_on_is_refused_by_name_and_not_taken_over() {
        for key in FIXED {
            let error = with(&[(key, "1")]).check().unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        let config = with(&[("acks", "1"), ("auto.offset.reset", "earliest")]);
        assert_eq!(config.producer("test").get("acks"), Some("all"));
        let consumer = config.consumer("test", None, Duration::ZERO);
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
    }

    #[test]
    fn what_is_always_set_is_known_to_librdkafka() {
        let config = with(&[]);
        config.producer("test").create_native_config().unwrap();
        config
            .consumer("test", Some("group"), IDLE_FETCH)
            .create_native_config()
            .unwrap();
    }
}
