use super::*;

#[tokio::test]
async fn a_batch_answers_each_request_on_its_own_and_logs_each_list() {
    let mut world = World::new();
    let router = world.router();
    let body = json!({"requests": [
        {"user_id": 1, "k": 2}, {"k": 0}, {"user_id": 4711, "k": 3}, {"context": {"seeds": [1]}}
    ]});
    let reply = post_(&router, "/recommend/batch", &body).await;
    described::Described::new().check("post", "/recommend/batch", &reply);
    let json = reply.json();
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!(results[0]["list"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(results[1]["problem"]["field"], "k");
    assert_eq!(results[2]["list"]["fallback_reason"], "unknown_user");
    assert_eq!(results[3]["problem"]["status"], 404);
    let logged: Vec<String> = std::iter::from_fn(|| world.logs.try_recv().ok())
        .map(|log| log.request_id)
        .collect();
    let answered = [&results[0], &results[2]].map(|result| result["list"]["request_id"].as_str().unwrap());
    assert_eq!(logged, answered);
    assert_ne!(answered[0], answered[1]);
}

#[tokio::test]
async fn an_empty_batch_and_one_beyond_the_limit_are_refused() {
    let world = World::new();
    let router = world.router();
    for requests in [vec![], vec![json!({}); 101]] {
        let reply = post_(&router, "/recommend/batch", &json!({ "requests": requests })).await;
        assert_problem(&reply, 422, "invalid-parameter", Some("requests"));
    }
    let reply = post_(
        &router,
        "/recommend/batch",
        &json!({"requests": [{}, {"k": "ten"}]}),
    )
    .await;
    assert_problem(&reply, 422, "invalid-request", Some("requests[1].k"));
}

#[tokio::test]
async fn the_lists_of_a_batch_have_their_own_time() {
    let mut world = World::new();
    let router = world.router();
    let body = json!({"requests": vec![json!({"user_id": 1}); 50]});
    let begun = std::time::Instant::now();
    assert_eq!(post_(&router, "/recommend/batch", &body).await.status, 200);
    let whole_ms = begun.elapsed().as_secs_f64() * 1e3;
    let each_ms: Vec<f64> = std::iter::from_fn(|| world.logs.try_recv().ok())
        .map(|log| log.latency_ms)
        .collect();
    assert_eq!(each_ms.len(), 50);
    // They are made one after the other.
    let sum_ms: f64 = each_ms.iter().sum();
    assert!(sum_ms <= whole_ms, "{sum_ms} of {whole_ms}");
}

#[tokio::test]
async fn nobody_who_wants_one_list_stands_behind_a_batch() {
    let world = World::new();
    let router = world.router();
    let soon = std::time::Duration::from_millis(20);
    let mut places = Vec::new();
    while let Ok(place) = tokio::time::timeout(soon, world.state.queue_batches.place()).await {
        places.push(place.unwrap());
    }
    let body = json!({"requests": [{"user_id": 1}]});
    let mut batch = std::pin::pin!(post_(&router, "/recommend/batch", &body));
    assert!(tokio::time::timeout(soon, &mut batch).await.is_err());
    let explained = json!({"user_id": 1, "explain": true});
    assert_eq!(post_(&router, "/recommend", &explained).await.status, 200);
    for path in ["/movies?query=movie", "/ui/popular"] {
        assert_eq!(get_(&router, path).await.status, 200, "{path}");
    }
    drop(places);
    assert_eq!(batch.await.status, 200);
}
