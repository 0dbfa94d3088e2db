//! Random requests: each gets an answer or a typed refusal, in the shape that the description promises.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::described::Described;
use super::*;

fn value(rng: &mut ChaCha12Rng, depth: u32) -> Value {
    match rng.random_range(0..if depth == 0 { 7 } else { 9 }) {
        0 => Value::Null,
        1 => json!(rng.random_bool(0.5)),
        2 => json!(rng.random_range(0..200_u64)),
        3 => json!(rng.random::<i64>()),
        4 => json!(rng.random::<f64>() * [1.0, 1e12][rng.random_range(0..2)]),
        5 => json!(["Western", "Drama", "", "\u{0}", "s\u{1F3AC}", "7d"][rng.random_range(0..6)]),
        6 => json!(rng.random_range(95..115_u64)),
        7 => Value::Array(
            (0..rng.random_range(0..4))
                .map(|_| value(rng, depth - 1))
                .collect(),
        ),
        _ => object(rng, depth - 1),
    }
}

fn object(rng: &mut ChaCha12Rng, depth: u32) -> Value {
    const FIELDS: [&str; 26] = [
        "user_id",
        "k",
        "filters",
        "context",
        "include_seen",
        "explain",
        "numbers",
        "explore",
        "diversity",
        "recency",
        "seeds",
        "genres",
        "surface",
        "session_id",
        "genres_any",
        "genres_all",
        "genres_none",
        "year_from",
        "year_to",
        "min_interactions",
        "exclude",
        "movie_id",
        "movie_ids",
        "requests",
        "window",
        "query",
    ];
    (0..rng.random_range(0..4))
        .map(|_| {
            (
                FIELDS[rng.random_range(0..FIELDS.len())].to_owned(),
                value(rng, depth),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A valid request with some of it replaced.
fn spoiled(rng: &mut ChaCha12Rng) -> Value {
    let mut body = json!({
        "user_id": rng.random_range(0..20_u64), "k": rng.random_range(1..=100), "diversity": 0.5,
        "explain": rng.random_bool(0.2), "numbers": true, "explore": rng.random_bool(0.5),
        "filters": {"year_from": rng.random_range(1980..2000)}, "context": {"seeds": [103]}
    });
    let names: Vec<String> = body.as_object().unwrap().keys().cloned().collect();
    body[&names[rng.random_range(0..names.len())]] = value(rng, 2);
    body
}

/// Bytes from nothing, JSON with a few bytes changed, an object of known fields, or what `path` takes with some of it
/// replaced.
fn random_body(path: &str, rng: &mut ChaCha12Rng) -> Vec<u8> {
    match rng.random_range(0..6) {
        0 => {
            let mut bytes = vec![0; rng.random_range(0..64)];
            rng.fill_bytes(&mut bytes);
            bytes
        }
        1 => {
            let mut bytes = serde_json::to_vec(&object(rng, 3)).unwrap();
            for _ in 0..rng.random_range(1..4) {
                let place = rng.random_range(0..bytes.len());
                bytes[place] = rng.random();
            }
            bytes
        }
        2 => serde_json::to_vec(&object(rng, 3)).unwrap(),
        _ => {
            let body = match path {
                "/recommend" => spoiled(rng),
                "/similar" => json!({"movie_id": value(rng, 0), "k": rng.random_range(1..=100)}),
                _ => json!({"requests": [spoiled(rng), object(rng, 2)]}),
            };
            serde_json::to_vec(&body).unwrap()
        }
    }
}

#[tokio::test]
async fn ten_thousand_random_bodies_get_an_answer_or_a_typed_refusal() {
    const PATHS: [&str; 3] = ["/recommend", "/similar", "/recommend/batch"];
    let mut world = World::new();
    let router = world.router();
    let described = Described::new();
    let mut rng = ChaCha12Rng::seed_from_u64(20_260_101);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..10_000 {
        let path = PATHS[rng.random_range(0..PATHS.len())];
        let body = random_body(path, &mut rng);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let reply = send(&router, Method::POST, path, Some("application/json"), body).await;
        assert!(
            !reply.status.is_server_error(),
            "{} for {path} {shown}",
            reply.status
        );
        described.check("post", path, &reply);
        if reply.status == 200 {
            good += 1;
        } else {
            bad += 1;
            assert_eq!(
                reply.headers["content-type"], "application/problem+json",
                "{shown}"
            );
        }
        while world.logs.try_recv().is_ok() {}
    }
    assert!(good > 500 && bad > 500, "{good} answered, {bad} refused");
}

#[tokio::test]
async fn random_addresses_get_an_answer_or_a_typed_refusal() {
    const CALLS: [(&str, &[&str]); 5] = [
        ("/popular", &["k", "genre", "window"]),
        ("/movies", &["query", "k"]),
        (
            "/ui/list",
            &[
                "list",
                "user",
                "movie",
                "seeds",
                "genre",
                "window",
                "diversity",
                "recency",
            ],
        ),
        ("/ui/users/7", &["genre", "diversity"]),
        ("/ui/search", &["query", "seeds", "user"]),
    ];
    const VALUES: [&str; 14] = [
        "",
        "1",
        "103",
        "100,103",
        "-1",
        "Western",
        "7d",
        "all",
        "similar",
        "recommend",
        "%ff",
        "%00",
        "NaN",
        "%F0%9F%8E%AC",
    ];
    let mut world = World::new();
    let router = world.router();
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    for _ in 0..3_000 {
        let (path, fields) = CALLS[rng.random_range(0..CALLS.len())];
        let mut address = format!("{path}?");
        for _ in 0..rng.random_range(0..4) {
            let (field, value) = (
                fields[rng.random_range(0..fields.len())],
                VALUES[rng.random_range(0..VALUES.len())],
            );
            address.push_str(&format!("{field}={value}&"));
        }
        let reply = get_(&router, &address).await;
        assert!(!reply.status.is_server_error(), "{} for {address}", reply.status);
        if reply.status != 200 && !path.starts_with("/ui/users") {
            assert_eq!(
                reply.headers["content-type"], "application/problem+json",
                "{address}"
            );
        }
        while world.logs.try_recv().is_ok() {}
    }
}
