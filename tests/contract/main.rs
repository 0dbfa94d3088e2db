//! The contract of the bus: one suite, run over the embedded broker and over a real Apache Kafka, so that whoever
//! builds on the bus need not know which one is behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod checkpoints;
mod delivery;
mod faults;
mod foreign;
mod range;
mod rebalance;
mod support;

macro_rules! over_apache {
    ($($module:ident::$scenario:ident),* $(,)?) => {
        $(#[test]
        fn $scenario() {
            let broker = marquee_testkit::Broker::apache();
            if let Some(broker) = marquee_testkit::required(broker, marquee_testkit::kafka::REQUIRE) {
                crate::support::run(broker, crate::$module::$scenario);
            }
        })*
    };
}

/// Makes of each scenario one test per broker.
macro_rules! over_both_brokers {
    ($($module:ident::$scenario:ident),* $(,)?) => {
        mod embedded {
            $(#[test]
            fn $scenario() {
                crate::support::run(marquee_testkit::Broker::embedded(), crate::$module::$scenario);
            })*
        }

        mod apache {
            over_apache! { $($module::$scenario),* }
        }
    };
}

over_both_brokers! {
    admin::ensuring_topics_again_changes_nothing,
    admin::watermarks_name_the_first_and_the_next_offset,
    checkpoints::a_checkpoint_beyond_the_end_is_refused,
    checkpoints::a_crash_before_the_effect_redelivers_from_the_handlers_own_offset,
    checkpoints::a_subscriber_resumes_at_the_offset_its_handler_names,
    delivery::a_full_queue_refuses_and_loses_nothing_that_it_accepted,
    delivery::a_record_that_no_broker_takes_is_refused,
    delivery::large_and_empty_records_pass,
    delivery::poison_bytes_come_through_as_they_are,
    delivery::records_of_one_key_arrive_in_the_order_they_were_sent,
    faults::a_restart_of_the_broker_in_mid_stream_loses_and_doubles_nothing,
    faults::a_subscriber_and_a_publisher_wait_for_a_broker_that_is_not_there_yet,
    faults::a_subscriber_stops_at_once_while_the_broker_is_away,
    foreign::foreign_clients_publish_interactions_and_read_request_logs,
    range::a_range_reads_exactly_the_named_offsets,
    range::a_range_beyond_the_end_is_refused,
    rebalance::a_rebalance_loses_nothing_and_leaves_each_partition_one_owner,
}

/// The embedded broker has no transactions, and so no offsets without a record.
mod apache_alone {
    over_apache! { range::a_range_ends_though_its_last_offsets_hold_no_record }
}
