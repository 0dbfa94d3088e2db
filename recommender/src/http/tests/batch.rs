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
