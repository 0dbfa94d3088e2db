use marquee_schemas::{Interaction, Kind, decode};

use super::*;

async fn page(router: &Router, path: &str) -> String {
    let reply = get_(router, path).await;
    assert_eq!(
        reply.status,
        200,
        "{path}: {}",
        String::from_utf8_lossy(&reply.body)
    );
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html"),
        "{path}"
    );
    String::from_utf8(reply.body).unwrap()
}

#[tokio::test]
async fn pages_show_lists_search_and_details_and_log_what_they_show() {
    let mut world = World::new();
    let router = world.router();
    world.observe(99, &[rated(103, 5.0, 13_000_000)]);
    let mine = page(&router, "/ui/users/99?diversity=0.3").await;
    assert!(mine.contains("For user 99") && mine.contains("because you liked Movie 103"));
    assert!(mine.contains("Lately"), "{mine}");
    let log = world.logs.try_recv().unwrap();
    assert_eq!(log.surface.as_deref(), Some("page/recommend"));
    assert!(mine.contains(&log.request_id), "acts name the list they answer");

    let stranger = page(&router, "/ui/users/4711").await;
    assert!(stranger.contains("New here") && stranger.contains("What do you like to watch?"));
    assert!(page(&router, "/").await.contains("Popular now"));
    assert!(
        page(&router, "/ui/search?query=moive+104")
            .await
            .contains("Movie 104")
    );
    assert!(
        page(&router, "/ui/discover?seeds=103&query=movie")
            .await
            .contains("because you chose Movie 103")
    );
    assert!(
        page(&router, "/ui/popular?genre=Western&window=all&user=")
            .await
            .contains("Western")
    );
    assert!(page(&router, "/ui/movies/103?user=1").await.contains("Similar"));
    assert!(page(&router, "/ui/status").await.contains("12 movies"));
    for asset in ["style.css", "app.js", "htmx.min.js"] {
        assert_eq!(get_(&router, &format!("/ui/assets/{asset}")).await.status, 200);
    }
}

#[tokio::test]
async fn pages_fetch_nothing_from_elsewhere_and_escape_what_they_show() {
    let world = World::new();
    let mut strange = crate::testing::movie(200);
    strange.title = "<script>alert(1)</script>".into();
    strange.imdb_id = Some("0114709".into());
    world
        .view
        .apply_changes(vec![crate::view::Change::Movie(strange)]);
    let router = world.router();
    let reply = get_(&router, "/ui/movies/200").await;
    assert!(
        reply.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'self'")
    );
    let shown = String::from_utf8(reply.body).unwrap();
    assert!(!shown.contains("<script>alert") && shown.contains("&lt;script&gt;alert"));
    assert!(shown.contains("https://www.imdb.com/title/tt0114709/"));
    for path in ["/", "/ui/users/1", "/ui/discover", "/ui/popular"] {
        assert!(!page(&router, path).await.contains("https://"), "{path}");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_is_a_page_and_a_fragment_that_cannot_be_a_problem() {
    let world = World::new();
    let router = world.router();
    for (path, status) in [
        ("/ui/users/me", 422),
        ("/ui/movies/1", 404),
        ("/ui/discover?seeds=1", 404),
    ] {
        let reply = get_(&router, path).await;
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert!(
            reply.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html"),
            "{path}"
        );
    }
    assert_problem(
        &get_(&router, "/ui/list?user=me").await,
        422,
        "invalid-request",
        Some("user"),
    );
    for (query, code, status, field) in [
        ("genre=Kaiju", "invalid-filter", 422, "genre"),
        ("seeds=1", "unknown-movie", 404, "seeds"),
        ("list=similar&movie=1", "unknown-movie", 404, "movie"),
    ] {
        let reply = get_(&router, &format!("/ui/list?{query}")).await;
        assert_problem(&reply, status, code, Some(field));
    }
    let act = |query: &str| send_owned(&router, Method::POST, format!("/ui/act?{query}"));
    assert_problem(
        &act("user=1&movie=1&kind=like").await,
        404,
        "unknown-movie",
        Some("movie"),
    );
    assert_problem(
        &act("user=1&movie=103&kind=rating").await,
        422,
        "invalid-parameter",
        Some("act"),
    );
    assert_problem(
        &act("user=1&movie=103&kind=stare").await,
        422,
        "invalid-request",
        Some("kind"),
    );
}

#[tokio::test]
async fn an_act_is_published_waited_for_and_told() {
    let world = World::new();
    let router = world.router();
    // The pipeline in between: what is published comes back through the view.
    let (events, view) = (world.events.clone(), world.view.clone());
    let pipeline = tokio::spawn(async move {
        loop {
            let record = events.records.lock().unwrap().first().cloned();
            let Some(record) = record else {
                tokio::task::yield_now().await;
                continue;
            };
            let event: Interaction = decode(record.value.as_deref().unwrap()).unwrap();
            let entry = rated(event.movie_id.unwrap().0, 5.0, 14_000_000);
            view.apply_changes(
                crate::testing::chunks(event.user_id.0, &[entry])
                    .into_iter()
                    .map(|chunk| crate::view::Change::Chunk { partition: 0, chunk })
                    .collect(),
            );
            return event;
        }
    });
    let before = page(&router, "/ui/list?user=4711").await;
    assert!(before.contains("New here"));
    let reply = send_owned(
        &router,
        Method::POST,
        "/ui/act?user=4711&movie=103&kind=like&request_id=r-1".into(),
    )
    .await;
    assert_eq!(reply.status, 204);
    let trigger: Value = serde_json::from_slice(reply.headers["hx-trigger"].as_bytes()).unwrap();
    assert_eq!(trigger, json!({"acted": "", "notice": "Liked Movie 103"}));
    let event = pipeline.await.unwrap();
    assert_eq!(
        (event.kind, event.request_id.as_deref()),
        (Kind::Like, Some("r-1"))
    );
    assert_eq!(event.source.as_deref(), Some("page"));
    world.champion.rebind(&world.view);
    let after = page(&router, "/ui/list?user=4711").await;
    assert!(after.contains("because you liked Movie 103"), "{after}");
    assert!(!after.contains("data-movie=\"103\""));
}

#[tokio::test]
async fn genres_chosen_while_signing_up_become_a_preference_event() {
    let world = World::new();
    world.events.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let router = world.router();
    let choose = || {
        send(
            &router,
            Method::POST,
            "/ui/users/4711/preferences",
            Some("application/x-www-form-urlencoded"),
            b"genre=Comedy&genre=Western".to_vec(),
        )
    };
    assert_eq!(choose().await.status, 503);
    let none = send(
        &router,
        Method::POST,
        "/ui/users/4711/preferences",
        None,
        Vec::new(),
    )
    .await;
    assert_eq!(
        (none.status.as_u16(), none.headers["location"].to_str().unwrap()),
        (303, "/ui/users/4711")
    );
    assert!(world.events.records.lock().unwrap().is_empty());
    let large = vec![b'x'; 256 * 1024 + 1];
    let reply = send(&router, Method::POST, "/ui/users/4711/preferences", None, large).await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.headers["content-type"].to_str().unwrap()
        ),
        (413, "text/html; charset=utf-8")
    );
}

#[tokio::test]
async fn what_another_sites_page_sends_is_not_published() {
    let world = World::new();
    let router = world.router();
    let post = |path: &str, (name, value): (&str, &str)| {
        let request = Request::post(path)
            .header("host", "127.0.0.1:8080")
            .header("content-type", "application/x-www-form-urlencoded")
            .header(name, value);
        let request = request.body(Body::from("genre=Drama")).unwrap();
        let router = router.clone();
        async move { receive(&router, request).await }
    };
    for told in [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ] {
        let reply = post("/ui/act?user=1&movie=103&kind=like", told).await;
        assert_problem(&reply, 403, "cross-site", None);
        let reply = post("/ui/users/1/preferences", told).await;
        assert_eq!(
            (
                reply.status.as_u16(),
                reply.headers["content-type"].to_str().unwrap()
            ),
            (403, "text/html; charset=utf-8")
        );
    }
    assert!(world.events.records.lock().unwrap().is_empty());
    // From here on it is only the broker that is missing.
    world.events.away.store(true, std::sync::atomic::Ordering::SeqCst);
    for told in [
        ("sec-fetch-site", "same-origin"),
        ("origin", "http://127.0.0.1:8080"),
    ] {
        let reply = post("/ui/users/1/preferences", told).await;
        assert_eq!(reply.status, 503, "{told:?}");
    }
}
