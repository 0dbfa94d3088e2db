use std::sync::Mutex;

use futures::FutureExt;
use marquee_runtime::ManualClock;
use marquee_schemas::{Movie, MovieId, SchemaVersion, Topic, UserId, decode};

use super::*;
use crate::Rating;
use crate::sink::fake::{FakeSink, transient};

fn dataset(times_ms: &[i64]) -> Dataset {
    let movie = Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(1),
        title: "One".into(),
        year: None,
        genres: vec![],
        imdb_id: None,
        tmdb_id: None,
    };
    let ratings = times_ms
        .iter()
        .zip(1..)
        .map(|(&timestamp_ms, user)| Rating {
            user_id: UserId(user),
            movie_id: MovieId(1),
            rating: 4.0,
            timestamp_ms,
        })
        .collect();
    Dataset::new("test", vec![movie], ratings)
}

fn replayer(sink: &FakeSink, config: ReplayConfig) -> Replayer {
    Replayer::new(sink.clone(), Arc::new(ManualClock::at(1_000_000)), config)
}

fn users(sink: &FakeSink) -> Vec<u64> {
    sink.events().iter().map(|event| event.user_id.0).collect()
}

#[tokio::test]
async fn the_catalogue_and_then_every_rating_arrive_in_event_time_order() {
    let sink = FakeSink::default();
    let data = dataset(&[3_000, 1_000, 2_000, 2_000]);
    let replayer = replayer(
        &sink,
        ReplayConfig {
            max_in_flight_records: 2,
            ..Default::default()
        },
    );
    assert_eq!(replayer.publish_catalogue(&data).await.unwrap(), 1);
    let token = CancellationToken::new();
    let last = Mutex::new(None);
    let report = |progress| *last.lock().unwrap() = Some(progress);
    let reached = replayer
        .run(&data, 0..4, Speed::Max, report, &token)
        .await
        .unwrap();
    assert_eq!(reached, 4);
    let records = sink.records();
    assert_eq!(records[0].topic, Topic::Movies);
    assert_eq!(
        decode::<Movie>(records[0].value.as_deref().unwrap()).unwrap(),
        data.movies[0]
    );
    assert_eq!(users(&sink), [2, 3, 4, 1]);
    let events = sink.events();
    assert_eq!(events[0].timestamp, 1_000);
    assert_eq!(events[0].event_id, "test/2/1/1000");
    assert_eq!(events[0].source.as_deref(), Some("replay"));
    let last = last.lock().unwrap().unwrap();
    assert_eq!((last.position, last.end, last.event_time_ms), (4, 4, Some(3_000)));
}

#[tokio::test]
async fn a_range_beyond_the_data_set_is_cut_and_an_empty_one_ends_at_once() {
    let sink = FakeSink::default();
    let data = dataset(&[1_000, 2_000]);
    let replayer = replayer(&sink, ReplayConfig::default());
    let token = CancellationToken::new();
    let run = |range| replayer.run(&data, range, Speed::Max, |_| {}, &token);
    assert_eq!(run(1..99).await.unwrap(), 2);
    assert_eq!(run(7..99).await.unwrap(), 2);
    assert_eq!(run(1..1).await.unwrap(), 1);
    assert_eq!(users(&sink), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_replay_tells_where_to_resume_and_together_nothing_is_missing() {
    let sink = FakeSink::default();
    let data = dataset(&(1..=100).map(|i| i * 1_000).collect::<Vec<_>>());
    let replayer = replayer(&sink, ReplayConfig::default());
    let token = CancellationToken::new();
    let stop = token.clone();
    let report = |progress: Progress| {
        if progress.position >= 40 {
            stop.cancel();
        }
    };
    let reached = replayer
        .run(&data, 0..100, Speed::Rate(10.0), report, &token)
        .await
        .unwrap();
    assert!((40..100).contains(&reached), "{reached}");
    assert_eq!(sink.events().len(), reached);
    let token = CancellationToken::new();
    let end = replayer
        .run(&data, reached..100, Speed::Max, |_| {}, &token)
        .await
        .unwrap();
    assert_eq!(end, 100);
    assert_eq!(users(&sink), (1..=100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn each_speed_takes_its_time() {
    // Ten events, one a minute.
    let data = dataset(&(1..=10).map(|i| i * 60_000).collect::<Vec<_>>());
    for (speed, seconds) in [("max", 0.0), ("60x", 9.0), ("2/s", 4.5), ("4@10s", 20.0)] {
        let sink = FakeSink::default();
        let replayer = replayer(&sink, ReplayConfig::default());
        let began = Instant::now();
        let token = CancellationToken::new();
        replayer
            .run(&data, 0..10, speed.parse().unwrap(), |_| {}, &token)
            .await
            .unwrap();
        // Time is paused: it moves exactly as far as the replay sleeps, to the timer's millisecond.
        let took = began.elapsed().as_secs_f64();
        assert!((took - seconds).abs() < 0.02, "{speed}: {took} s");
        assert_eq!(sink.events().len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_did_not_arrive_is_sent_again_and_none_is_lost() {
    let sink = FakeSink::default();
    let data = dataset(&(1..=50).map(|i| i * 1_000).collect::<Vec<_>>());
    // The eighth record is queued and then lost, once.
    sink.on_send(|n, _| match n {
        7 => Ok(async { Err(transient()) }.boxed()),
        _ => FakeSink::taken(),
    });
    let replayer = replayer(
        &sink,
        ReplayConfig {
            max_in_flight_records: 5,
            ..Default::default()
        },
    );
    let token = CancellationToken::new();
    assert_eq!(
        replayer
            .run(&data, 0..50, Speed::Max, |_| {}, &token)
            .await
            .unwrap(),
        50
    );
    let mut arrived = users(&sink);
    assert!(
        arrived.iter().filter(|&&user| user == 8).count() >= 2,
        "{arrived:?}"
    );
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, (1..=50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_waited_for() {
    let sink = FakeSink::default();
    sink.on_send(|n, _| match n {
        0..=3 | 10..=12 => Err(BusError::QueueFull),
        _ => FakeSink::taken(),
    });
    let data = dataset(&(1..=20).map(|i| i * 1_000).collect::<Vec<_>>());
    let replayer = replayer(&sink, ReplayConfig::default());
    let token = CancellationToken::new();
    replayer.publish_catalogue(&data).await.unwrap();
    assert_eq!(
        replayer
            .run(&data, 0..20, Speed::Max, |_| {}, &token)
            .await
            .unwrap(),
        20
    );
    assert_eq!(users(&sink), (1..=20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_window_is_on_its_way_and_a_stuck_broker_does_not_hold_a_stop() {
    let sink = FakeSink::default();
    sink.on_send(|_, _| Ok(futures::future::pending().boxed()));
    let data = dataset(&(1..=50).map(|i| i * 1_000).collect::<Vec<_>>());
    let replayer = replayer(
        &sink,
        ReplayConfig {
            max_in_flight_records: 5,
            ..Default::default()
        },
    );
    let token = CancellationToken::new();
    let run = replayer.run(&data, 0..50, Speed::Max, |_| {}, &token);
    tokio::pin!(run);
    assert!(run.as_mut().now_or_never().is_none());
    assert_eq!(sink.events().len(), 5);
    token.cancel();
    assert_eq!(run.await.unwrap(), 0);
    assert_eq!(sink.events().len(), 5);
}

#[tokio::test]
async fn what_no_repetition_mends_ends_the_replay_after_a_last_report() {
    let sink = FakeSink::default();
    sink.on_send(|n, _| match n {
        3 => Err(BusError::Fatal("no such topic".into())),
        _ => FakeSink::taken(),
    });
    let data = dataset(&[1_000, 2_000, 3_000, 4_000, 5_000]);
    let replayer = replayer(
        &sink,
        ReplayConfig {
            max_in_flight_records: 1,
            ..Default::default()
        },
    );
    let token = CancellationToken::new();
    let last = Mutex::new(0);
    let report = |progress: Progress| *last.lock().unwrap() = progress.position;
    let error = replayer
        .run(&data, 0..5, Speed::Max, report, &token)
        .await
        .unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(*last.lock().unwrap(), 3);
}

#[tokio::test]
async fn event_times_move_as_configured_and_ids_do_not() {
    let data = dataset(&[1_000, 5_000]);
    for (shift, times) in [
        (Shift::None, [1_000, 5_000]),
        (Shift::ByMs(10), [1_010, 5_010]),
        (Shift::ByMs(-2_000), [1, 3_000]),
        (Shift::EndNow, [996_000, 1_000_000]),
        (Shift::AsSent, [1_000_000, 1_000_000]),
    ] {
        let sink = FakeSink::default();
        let replayer = replayer(
            &sink,
            ReplayConfig {
                shift,
                ..Default::default()
            },
        );
        let token = CancellationToken::new();
        replayer
            .run(&data, 0..2, Speed::Max, |_| {}, &token)
            .await
            .unwrap();
        let events = sink.events();
        assert_eq!([events[0].timestamp, events[1].timestamp], times, "{shift:?}");
        assert_eq!(events[1].event_id, "test/2/1/5000");
    }
}
