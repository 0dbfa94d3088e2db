use std::collections::{HashMap, HashSet};

use marquee_schemas::{MovieId, Record};

use super::*;

fn small() -> SyntheticConfig {
    SyntheticConfig {
        users: 400,
        movies: 500,
        mean_ratings_per_user: 50.0,
        ..Default::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_data_and_another_seed_does_not() {
    let config = small();
    let (a, b) = (generate(&config).unwrap(), generate(&config).unwrap());
    assert_eq!((&a.movies, &a.ratings), (&b.movies, &b.ratings));
    let other = generate(&SyntheticConfig { seed: 2, ..config }).unwrap();
    assert_ne!(a.ratings, other.ratings);
    assert_ne!(a.movies, other.movies);
}

#[test]
fn more_users_leave_the_catalogue_and_the_other_users_as_they_are() {
    let few = generate(&small()).unwrap();
    let many = generate(&SyntheticConfig {
        users: 500,
        ..small()
    })
    .unwrap();
    assert_eq!(few.movies, many.movies);
    let of_few: Vec<_> = many
        .ratings
        .iter()
        .copied()
        .filter(|rating| rating.user_id.0 <= 400)
        .collect();
    assert_eq!(few.ratings, of_few);
}

#[test]
fn the_data_is_valid_as_if_it_had_been_loaded() {
    let config = small();
    let data = generate(&config).unwrap();
    let summary = data.summary();
    assert_eq!(
        (summary.users, summary.movies, summary.unknown_movies),
        (400, 500, 0)
    );
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let mean = summary.ratings as f64 / 400.0;
    // Those who come late run out of time before they run out of movies.
    assert!((25.0..=65.0).contains(&mean), "{mean} ratings per user");
    assert!((3.0..4.2).contains(&summary.mean_rating), "{summary}");
    assert!(
        summary.by_half_stars.iter().all(|&count| count > 0),
        "{:?}",
        summary.by_half_stars
    );
    let mut titles = HashSet::new();
    for movie in &data.movies {
        movie.check().unwrap();
        assert!(titles.insert(&movie.title) && movie.year.is_some() && !movie.genres.is_empty());
    }
    let mut pairs = HashSet::new();
    let mut last_ms = 0;
    for (position, rating) in data.ratings.iter().enumerate() {
        assert!(pairs.insert((rating.user_id, rating.movie_id)), "rated twice");
        assert!(rating.timestamp_ms >= last_ms.max(config.start_ms));
        last_ms = rating.timestamp_ms;
        data.interaction(position).unwrap().check().unwrap();
    }
}

#[test]
fn sizes_out_of_range_are_refused_by_name() {
    for (config, name) in [
        (SyntheticConfig { users: 0, ..small() }, "users"),
        (SyntheticConfig { movies: 3, ..small() }, "movies"),
        (
            SyntheticConfig {
                factors: 0,
                ..small()
            },
            "factors",
        ),
        (
            SyntheticConfig {
                span_days: 0,
                ..small()
            },
            "span_days",
        ),
        (
            SyntheticConfig {
                start_ms: -1,
                ..small()
            },
            "start_ms",
        ),
        (
            SyntheticConfig {
                mean_ratings_per_user: f64::NAN,
                ..small()
            },
            "mean_ratings_per_user",
        ),
    ] {
        let error = generate(&config).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

/// Hit rate at ten of the last movie that each user liked, given those before, with popularity and with item-item
/// cosine.
#[test]
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn whoever_learns_the_taste_predicts_clearly_more_than_popularity() {
    let data = generate(&small()).unwrap();
    let mut liked: HashMap<u64, Vec<MovieId>> = HashMap::new();
    for rating in data.ratings.iter().filter(|rating| rating.rating >= 4.0) {
        liked.entry(rating.user_id.0).or_default().push(rating.movie_id);
    }
    liked.retain(|_, movies| movies.len() >= 5);
    let held: HashMap<u64, MovieId> = liked
        .iter_mut()
        .map(|(&user, movies)| (user, movies.pop().unwrap()))
        .collect();

    let n = data.movies.len();
    let at = |movie: MovieId| movie.0 as usize - 1;
    let mut popularity = vec![0.0_f64; n];
    let mut together = vec![0.0_f64; n * n];
    for movies in liked.values() {
        for &a in movies {
            popularity[at(a)] += 1.0;
            for &b in movies {
                together[at(a) * n + at(b)] += 1.0;
            }
        }
    }
    let cosine = |a: usize, b: usize| {
        let norm = (popularity[a] * popularity[b]).sqrt();
        if norm > 0.0 {
            together[a * n + b] / norm
        } else {
            0.0
        }
    };
    let (mut by_popularity, mut by_cosine) = (0, 0);
    for (user, &wanted) in &held {
        let history: HashSet<usize> = liked[user].iter().map(|&movie| at(movie)).collect();
        let hit = |score: &dyn Fn(usize) -> f64| {
            let wanted_score = score(at(wanted));
            let above = (0..n)
                .filter(|movie| !history.contains(movie) && score(*movie) > wanted_score)
                .count();
            usize::from(above < 10)
        };
        by_popularity += hit(&|movie| popularity[movie]);
        by_cosine += hit(&|movie| history.iter().map(|&seen| cosine(seen, movie)).sum());
    }
    let users = held.len() as f64;
    let (popular, cosine) = (by_popularity as f64 / users, by_cosine as f64 / users);
    println!("hit rate at 10 over {users} users: popularity {popular:.3}, item-item cosine {cosine:.3}");
    assert!(
        cosine > 1.5 * popular && cosine - popular > 0.03,
        "popularity {popular:.3}, cosine {cosine:.3}"
    );
}
