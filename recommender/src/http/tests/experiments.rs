use marquee_schemas::{Endpoint, RequestLog};

use super::*;
use crate::engine::{RecommendAsk, Shape};
use crate::shadow::Task;
use crate::testing::{loaded, version, without_exploration};
use crate::traffic::{ArmConfig, ExperimentConfig};

fn logged(world: &mut World) -> Vec<RequestLog> {
    std::iter::from_fn(|| world.logs.try_recv().ok()).collect()
}

#[tokio::test]
async fn an_experiment_is_told_in_answer_and_log_and_can_be_overridden() {
    let arm = |name: &str, share, diversity| ArmConfig {
        name: name.into(),
        share,
        diversity,
        ..ArmConfig::default()
    };
    let mut world = World::with_model(Config {
        experiment: ExperimentConfig {
            name: "variety".into(),
            salt: String::new(),
            arms: vec![arm("plain", 1.0, 0.0), arm("varied", 0.0, 0.9)],
        },
        ..without_exploration()
    });
    let router = world.router();
    let own = post_(&router, "/recommend", &json!({"user_id": 1})).await.json();
    assert_eq!(
        (&own["experiment"], &own["arm"]),
        (&json!("variety"), &json!("plain"))
    );
    let forced = post_(&router, "/recommend", &json!({"k": 3, "arm": "varied"}))
        .await
        .json();
    assert_eq!(forced["arm"], "varied");
    let genres: std::collections::BTreeSet<String> = forced["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["genres"].to_string())
        .collect();
    assert_eq!(genres.len(), 3, "the arm's diversity holds: {forced}");
    let logs = logged(&mut world);
    assert_eq!(logs[0].arm.as_deref(), Some("plain"));
    assert!(logs[0].assignment_hash.is_some());
    assert_eq!(
        (logs[1].arm.as_deref(), logs[1].assignment_hash),
        (Some("varied"), None)
    );
    let reply = post_(&router, "/recommend", &json!({"arm": "none"})).await;
    assert_problem(&reply, 422, "invalid-parameter", Some("arm"));
}

#[tokio::test]
async fn a_challenger_in_the_shadow_makes_lists_nobody_sees() {
    let mut world = World::with_model(Config {
        shadow_share: 1.0,
        shadow_queue_len: 2,
        ..without_exploration()
    });
    world
        .champion
        .challenge(version(2), loaded(), 0.0, &world.view)
        .unwrap();
    let router = world.router();
    for _ in 0..3 {
        let answer = post_(&router, "/recommend", &json!({"user_id": 1, "k": 2}))
            .await
            .json();
        assert_eq!(answer["model_version"], "v000001");
        assert!(answer.get("experiment").is_none());
    }
    assert_eq!(logged(&mut world).len(), 3);
    // Two tasks had room, the third was skipped and held nobody up.
    assert_eq!(world.state.shadow.skipped(), 1);
    world.shadow_tasks.work_off(&world.state);
    let logs = logged(&mut world);
    assert_eq!((logs.len(), world.state.shadow.scored()), (2, 2));
    assert!(logs.iter().all(|log| log.endpoint == Endpoint::Shadow
        && log.model_version == Some(version(2))
        && log.request_id.ends_with("/shadow")
        && log.items.len() == 2));
}

#[tokio::test]
async fn a_shadow_list_that_panics_is_counted_and_spoils_no_other() {
    let world = World::with_model(Config {
        shadow_share: 1.0,
        ..without_exploration()
    });
    world
        .champion
        .challenge(version(2), loaded(), 0.0, &world.view)
        .unwrap();
    let challenger = world.champion.challenger().unwrap();
    world.state.shadow.offer(Task {
        serving: Arc::clone(&challenger.serving),
        meta: RequestMeta {
            id: world.state.ids.next(1),
            received_ms: 1,
            started: std::time::Instant::now(),
        },
        // Five candidates for each entry are more than can be counted.
        ask: RecommendAsk {
            k: usize::MAX,
            shape: Shape {
                diversity: 0.5,
                ..Shape::default()
            },
            ..RecommendAsk::default()
        },
        asked: Asked {
            endpoint: Endpoint::Recommend,
            user_id: None,
            surface: None,
            k: 0,
            seeds: Vec::new(),
            filters: marquee_schemas::Filters::default(),
        },
    });
    post_(&world.router(), "/recommend", &json!({"user_id": 1})).await;
    world.shadow_tasks.work_off(&world.state);
    let shadow = &world.state.shadow;
    assert_eq!((shadow.failed(), shadow.scored()), (1, 1));
    assert_eq!(world.state.alerts.counts()["shadow_list_failed"], 1);
}
