//! Producers and consumers that are not ours.

use std::collections::BTreeSet;

use marquee_schemas::{
    Endpoint, Filters, Interaction, Kind, LoggedItem, MovieId, RequestLog, SchemaVersion, Topic, UserId,
    decode,
};
use marquee_testkit::{Broker, Foreign, required};

use crate::support::{Recorder, Running, State, group, outgoing};

fn request_log(n: u64) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("request {n}"),
        timestamp: 1_700_000_000_000,
        endpoint: Endpoint::Recommend,
        status: 200,
        user_id: Some(UserId(n)),
        surface: None,
        model_version: None,
        policy: "ranked".into(),
        experiment: None,
        arm: None,
        assignment_hash: None,
        feature_version: Some(3),
        k: 10,
        candidates: 100,
        seeds: Vec::new(),
        filters: Filters::default(),
        items: vec![LoggedItem {
            movie_id: MovieId(50),
            rank: 0,
            score: 1.5,
            source: "popularity".into(),
            propensity: 1.0,
            explored: false,
        }],
        fallback_reason: None,
        left_out: Vec::new(),
        latency_ms: 1.25,
        stages: Vec::new(),
    }
}

pub(crate) async fn foreign_clients_publish_interactions_and_read_request_logs(broker: Broker) {
    let Some(foreign) = required(Foreign::find(), Foreign::REQUIRE) else {
        return;
    };
    let bus = broker.bus();
    let publisher = bus.publisher("test").unwrap();

    let line = r#"42|{"schema_version":1,"event_id":"kcat-1","user_id":42,"movie_id":50,"kind":"rating","rating":4.5,"timestamp":1700000000000,"source":"kcat"}"#;
    foreign.kcat_produce(&broker, &format!("{line}\n")).unwrap();
    foreign.python_produce(&broker, 42, 181, 3.5).unwrap();
    publisher
        .publish_all(&[outgoing(Topic::Interactions, None, "42", "ours")])
        .await
        .unwrap();
    let state = State::default();
    let running = Running::start(&bus, Topic::Interactions, group("foreign"), Recorder::new(&state));
    state.reaches(3).await;
    running.stop().await;
    let records = state.get().records.clone();
    // One user, three producers, one partition: else their order would be lost.
    assert_eq!(
        records
            .iter()
            .map(|record| record.partition)
            .collect::<BTreeSet<_>>()
            .len(),
        1
    );
    let interactions: Vec<Interaction> = records[..2]
        .iter()
        .map(|record| decode(record.value.as_deref().unwrap()).unwrap())
        .collect();
    assert_eq!(
        interactions
            .iter()
            .map(|i| (i.user_id, i.movie_id, i.kind, i.rating, i.source.as_deref()))
            .collect::<Vec<_>>(),
        [
            (
                UserId(42),
                Some(MovieId(50)),
                Kind::Rating,
                Some(4.5),
                Some("kcat")
            ),
            (
                UserId(42),
                Some(MovieId(181)),
                Kind::Rating,
                Some(3.5),
                Some("python")
            ),
        ]
    );

    let mut logs = BTreeSet::new();
    for n in 0..20 {
        let log = request_log(n);
        publisher.publish(&log).await.unwrap();
        logs.insert(log.request_id);
    }
    for read in [foreign.kcat_consume(&broker), foreign.python_consume(&broker)] {
        let lines = read.unwrap();
        assert_eq!(lines.lines().count(), 20);
        let ids: BTreeSet<String> = lines
            .lines()
            .map(|line| decode::<RequestLog>(line.as_bytes()).unwrap().request_id)
            .collect();
        assert_eq!(ids, logs);
    }
}
