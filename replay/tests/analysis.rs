//! Evaluation, experiment and report over a lake whose outcome was drawn with known chances.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use marquee_replay::{
    CompactionConfig, Error, EvaluationOptions, ExperimentOptions, FlushConfig, Format, LakeWriter, Measure,
    Slice, SqlEngine, SqlError, SqlOptions, daily, evaluate, experiment,
};
use marquee_runtime::ManualClock;
use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    Endpoint, Filters, Interaction, Kind, LoggedItem, ModelVersion, Movie, MovieId, Record, RequestLog,
    SchemaVersion, StageLatency, UserId, encode,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 2024-05-01.
const MAY: i64 = 1_714_521_600_000;
const HOUR: i64 = 60 * 60 * 1000;
const MINUTE: i64 = 60 * 1000;

fn movie(id: u32) -> Vec<u8> {
    encode(&Movie {
        schema_version: SchemaVersion,
        movie_id: MovieId(id),
        title: format!("Movie | <{id}>"),
        year: None,
        genres: vec![],
        imdb_id: None,
        tmdb_id: None,
    })
}

fn list(n: u64, user: u64, at: i64, version: u64, arm: Option<&str>) -> RequestLog {
    RequestLog {
        schema_version: SchemaVersion,
        request_id: format!("r{n}"),
        timestamp: at,
        endpoint: Endpoint::Recommend,
        status: 200,
        user_id: Some(UserId(user)),
        surface: Some(if n.is_multiple_of(2) { "home" } else { "detail" }.into()),
        model_version: Some(ModelVersion::from_ordinal(version)),
        policy: "ranked".into(),
        experiment: arm.map(|_| "trial".into()),
        arm: arm.map(Into::into),
        assignment_hash: None,
        feature_version: (!user.is_multiple_of(3)).then_some(5),
        k: 10,
        candidates: 100,
        seeds: vec![],
        filters: Filters::default(),
        items: (0..10)
            .map(|rank| LoggedItem {
                movie_id: MovieId(1 + rank),
                rank,
                score: 1.0,
                source: "blend".into(),
                propensity: 1.0,
                explored: false,
            })
            .collect(),
        fallback_reason: n.is_multiple_of(10).then(|| "unknown_user".into()),
        left_out: Vec::new(),
        latency_ms: 2.0,
        stages: vec![StageLatency {
            stage: "rank".into(),
            us: 1_500,
        }],
    }
}

fn act(n: u64, user: u64, at: i64, movie: u32, kind: Kind, request: Option<&str>) -> Vec<u8> {
    encode(&Interaction {
        schema_version: SchemaVersion,
        event_id: format!("e{n}"),
        user_id: UserId(user),
        movie_id: Some(MovieId(movie)),
        kind,
        rating: None,
        genres: vec![],
        timestamp: at,
        session_id: None,
        request_id: request.map(Into::into),
        source: None,
    })
}

fn store(dir: &Path, lists: &[RequestLog], acts: &[Vec<u8>]) {
    let clock = Arc::new(ManualClock::at(MAY));
    let mut writer =
        LakeWriter::open(dir, FlushConfig::default(), CompactionConfig::default(), clock).unwrap();
    let movies: Vec<Vec<u8>> = (1..=40).map(movie).collect();
    let lists: Vec<Vec<u8>> = lists.iter().map(encode).collect();
    for (topic, values) in [
        (Movie::TOPIC, &movies[..]),
        (RequestLog::TOPIC, &lists[..]),
        (Interaction::TOPIC, acts),
    ] {
        let records = (0..).zip(values).map(|(offset, value)| RawRecord {
            topic,
            partition: 0,
            offset,
            timestamp_ms: -1,
            key: None,
            value: Some(value.clone()),
        });
        writer.write(records.collect()).unwrap();
    }
    assert_eq!(writer.close().unwrap().count, 0);
}

/// Twenty hours of lists; after the first four an experiment splits the users. A list is clicked with its arm's chance.
fn trial(dir: &Path, treatment: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut lists, mut acts) = (Vec::new(), Vec::new());
    let total = 12_000_u64;
    for n in 0..total {
        let user: u64 = rng.random_range(0..1_500);
        let at = MAY + i64::try_from(n).unwrap() * 20 * HOUR / i64::try_from(total).unwrap();
        let arm = (at >= MAY + 4 * HOUR).then_some(if user.is_multiple_of(2) { "control" } else { "b" });
        let version = if arm == Some("b") { 2 } else { 1 };
        let chance = if arm == Some("b") { treatment } else { 0.2 };
        let served = list(n, user, at, version, arm);
        if rng.random::<f64>() < chance {
            let kind = Kind::Click;
            acts.push(act(
                n,
                user,
                at + MINUTE,
                rng.random_range(1..=10),
                kind,
                Some(&served.request_id),
            ));
        }
        lists.push(served);
    }
    store(dir, &lists, &acts);
}

fn options() -> ExperimentOptions {
    ExperimentOptions {
        experiment: "trial".into(),
        control: "control".into(),
        shares: BTreeMap::new(),
        alpha: 0.05,
        effect: 0.05,
        least_users: 100,
        k: 10,
        attribution_window_ms: 30 * MINUTE,
        as_of_ms: i64::MAX,
    }
}

#[tokio::test]
async fn a_better_arm_wins_and_an_equal_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    trial(dir.path(), 0.3);
    let report = experiment(dir.path(), 0, i64::MAX / 2, &options()).await.unwrap();
    assert_eq!(
        (report.measure, report.looks, report.crossed_users),
        (Measure::ClickedLists, 16, 0)
    );
    assert_eq!(report.arms[0].arm, "control");
    // Of 1,500 users one is never drawn.
    assert_eq!(report.arms.iter().map(|arm| arm.users).sum::<u64>(), 1_499);
    assert!(!report.has_sample_ratio_mismatch());
    let winner = report.winner().unwrap();
    assert_eq!(winner.arm, "b");
    let decided = winner.decided_at_ms.unwrap();
    assert!((MAY + 5 * HOUR..MAY + 20 * HOUR).contains(&decided), "{decided}");
    let look = winner.look.unwrap();
    assert!(
        look.interval.0 > 0.0 && look.interval.0 < 0.1 && look.interval.1 > 0.1,
        "{look:?}"
    );

    let wrong = ExperimentOptions {
        shares: BTreeMap::from([("control".to_owned(), 0.7)]),
        ..options()
    };
    let report = experiment(dir.path(), 0, i64::MAX / 2, &wrong).await.unwrap();
    assert!(report.has_sample_ratio_mismatch() && report.winner().is_none());
    let nothing_left = ExperimentOptions {
        shares: BTreeMap::from([("control".to_owned(), 1.0)]),
        ..options()
    };
    let refused = experiment(dir.path(), 0, i64::MAX / 2, &nothing_left)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("arm b"), "{refused}");

    let dir = tempfile::tempdir().unwrap();
    trial(dir.path(), 0.2);
    let report = experiment(dir.path(), 0, i64::MAX / 2, &options()).await.unwrap();
    assert_eq!(report.winner(), None);
    let none = ExperimentOptions {
        experiment: "other".into(),
        ..options()
    };
    assert_eq!(
        experiment(dir.path(), 0, i64::MAX / 2, &none).await.unwrap().arms,
        []
    );
}

#[tokio::test]
async fn lists_are_evaluated_by_model_and_slice_and_the_young_ones_wait() {
    let dir = tempfile::tempdir().unwrap();
    trial(dir.path(), 0.3);
    let options = EvaluationOptions {
        as_of_ms: MAY + 19 * HOUR,
        ..EvaluationOptions::default()
    };
    let evaluation = evaluate(dir.path(), MAY, MAY + 24 * HOUR, options).await.unwrap();
    let slices = evaluation.slices();
    let of = |version: &str, slice: &Slice| {
        slices
            .iter()
            .find(|s| s.model_version.as_deref() == Some(version) && s.slice == *slice)
            .unwrap()
    };
    let all = of("v000001", &Slice::All);
    let parts = [Slice::Warm, Slice::Cold].map(|slice| of("v000001", &slice).lists);
    assert_eq!(parts[0] + parts[1], all.lists);
    let surfaces = ["home", "detail"].map(|name| of("v000001", &Slice::Surface(name.into())).lists);
    assert_eq!(surfaces[0] + surfaces[1], all.lists);
    assert_eq!(
        slices
            .iter()
            .filter(|s| s.slice == Slice::All)
            .map(|s| s.lists + s.censored)
            .sum::<u64>(),
        12_000
    );
    // An hour and a half of twenty is too young.
    assert_eq!(
        slices
            .iter()
            .filter(|s| s.slice == Slice::All)
            .map(|s| s.censored)
            .sum::<u64>(),
        899
    );
    let ctr = all.ctr.unwrap();
    let (lo, hi) = ctr.interval.unwrap();
    assert!(lo < 0.02 && 0.02 < hi, "{ctr:?}");
    assert_eq!(all.coverage, Some(0.25));
    assert!((all.seconds_to_answer.unwrap().value - 60.0).abs() < 1e-6);
    assert_eq!(all.by_position.len(), 10);
    assert_eq!(all.hit_rate.unwrap().value, 1.0);

    let comparison = evaluation.compare("v000001", "v000002").unwrap();
    let ctr = comparison
        .differences
        .iter()
        .find(|(name, _)| *name == "ctr")
        .unwrap()
        .1;
    assert!(ctr.interval.unwrap().0 > 0.0, "{ctr:?}");
    assert_eq!(evaluation.compare("v000001", "v000009"), None);
}

/// Half an hour of dense traffic: lists of some hundred users, one of whom asks for a tenth of them, every fifth of nobody;
/// acts that name lists of their user, of nobody and of others, and acts that name none.
fn rush(dir: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut lists, mut acts) = (Vec::new(), Vec::new());
    let total = 9_000_u64;
    for n in 0..total {
        let user: u64 = if n.is_multiple_of(10) {
            7
        } else {
            rng.random_range(0..400)
        };
        let at = MAY + i64::try_from(n).unwrap() * 30 * MINUTE / i64::try_from(total).unwrap();
        let mut served = list(n, user, at, 1 + n % 2, None);
        for item in &mut served.items {
            item.movie_id = MovieId(rng.random_range(1..40));
        }
        if n.is_multiple_of(5) && !n.is_multiple_of(10) {
            served.user_id = None;
        }
        let named = format!("r{}", n.saturating_sub(rng.random_range(0..300)));
        let request = rng.random::<bool>().then_some(named.as_str());
        let request = if n.is_multiple_of(3) {
            Some(served.request_id.as_str())
        } else {
            request
        };
        let kind = if request.is_some() {
            Kind::Click
        } else {
            Kind::View
        };
        let delay = rng.random_range(0..12 * MINUTE);
        acts.push(act(n, user, at + delay, rng.random_range(1..40), kind, request));
        if n.is_multiple_of(50) {
            acts.push(act(n, user, at + delay, rng.random_range(1..40), kind, None));
        }
        lists.push(served);
    }
    // In the log as they came to it, not by time.
    lists.rotate_left(2_000);
    store(dir, &lists, &acts);
}

#[tokio::test]
async fn a_window_too_large_for_one_pass_is_evaluated_in_pieces_with_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    rush(dir.path());
    let within = async |memory_limit_bytes| {
        let options = EvaluationOptions {
            attribution_window_ms: 10 * MINUTE,
            memory_limit_bytes,
            ..EvaluationOptions::default()
        };
        evaluate(dir.path(), MAY + 10 * MINUTE, MAY + 20 * MINUTE, options).await
    };
    let whole = within(1 << 30).await.unwrap();
    let lists: u64 = whole
        .slices()
        .iter()
        .filter(|slice| slice.slice == Slice::All)
        .map(|slice| slice.lists)
        .sum();
    assert_eq!(lists, 3_000);
    assert!(
        whole
            .slices()
            .iter()
            .all(|slice| slice.answered > 100 && slice.ctr.is_some())
    );
    // The lists of the window alone take a megabyte.
    for memory in [800 << 10, 128 << 10] {
        let pieces = within(memory).await.unwrap();
        assert_eq!(pieces.slices(), whole.slices(), "{memory}");
        assert_eq!(
            pieces.compare("v000001", "v000002"),
            whole.compare("v000001", "v000002"),
            "{memory}"
        );
    }
    let error = within(100).await.unwrap_err();
    assert!(matches!(error, Error::Sql(SqlError::Memory(_))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributions_are_joined_in_pieces_where_the_memory_of_a_query_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    rush(dir.path());
    let sums = async |memory_limit_bytes| {
        let options = SqlOptions {
            memory_limit_bytes,
            attribution_window_ms: 10 * MINUTE,
            ..SqlOptions::default()
        };
        let query = "SELECT count(*), sum(user_id), sum(movie_id), sum(delay_ms), sum(rank), \
                     count(*) FILTER (WHERE is_first), count(*) FILTER (WHERE attributed_by = 'last_touch') \
                     FROM attributions";
        let engine = SqlEngine::new(dir.path(), options).unwrap();
        engine.run(query).await.unwrap().render(Format::Csv).unwrap()
    };
    assert_eq!(sums(4 << 20).await, sums(1 << 30).await);
}

#[tokio::test]
async fn a_day_is_reported_with_its_tables_and_pictures_and_an_empty_day_too() {
    let dir = tempfile::tempdir().unwrap();
    trial(dir.path(), 0.3);
    let report = daily(dir.path(), MAY, EvaluationOptions::default())
        .await
        .unwrap();
    let titles: Vec<&str> = report
        .sections
        .iter()
        .map(|section| section.title.as_str())
        .collect();
    assert_eq!(titles[..3], ["Traffic", "Latency", "Lists"]);
    assert_eq!(
        report.sections[0].tables[0].rows,
        [["12000", "8.33", "1499", "0"]]
    );
    let latency = &report.sections[1];
    assert_eq!(
        latency.tables[0].rows,
        [["recommend", "12000", "2.0", "2.0", "2.0", "2.0"]]
    );
    assert_eq!(
        latency.tables[1].rows,
        [["rank", "12000", "1.5", "1.5", "1.5", "1.5"]]
    );
    let lists = &report.sections[2].tables[0].rows;
    assert_eq!(
        lists.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        ["v000001", "v000002"]
    );
    assert_eq!(report.charts().count(), 4);
    let markdown = report.to_markdown("pictures");
    assert!(markdown.contains("| v000002 | arm trial/b |"), "{markdown}");
    assert!(report.to_html().contains("<svg"));

    let empty = daily(dir.path(), MAY + 72 * HOUR, EvaluationOptions::default())
        .await
        .unwrap();
    assert_eq!(empty.sections[0].tables[0].rows[0][0], "0");
    daily(dir.path(), -1, EvaluationOptions::default())
        .await
        .unwrap_err();
}
