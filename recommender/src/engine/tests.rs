use marquee_schemas::{Filters, MovieId, UserId};

use super::*;
use crate::testing::{World, rated, user_features};
use crate::view::Change;

fn ask(user: Option<u64>) -> RecommendAsk {
    RecommendAsk {
        user: user.map(UserId),
        k: 5,
        ..RecommendAsk::default()
    }
}

fn ids(answer: &Answer) -> Vec<u32> {
    answer.items.iter().map(|item| item.movie.movie_id.0).collect()
}

#[test]
fn a_known_user_gets_a_personal_list_without_what_was_seen() {
    let world = World::new();
    let answer = world.state.engine.recommend(&ask(Some(1))).unwrap();
    assert_eq!(answer.fallback, None);
    assert_eq!(answer.feature_version, Some(8));
    assert_eq!(answer.candidates, 4);
    assert!(
        ids(&answer).iter().all(|id| (108..112).contains(id)),
        "{:?}",
        ids(&answer)
    );
    assert!(answer.items.iter().all(|item| item.source == "blend"));
    assert_eq!(answer.as_of_ms, Some(12_007_000));
}

#[test]
fn include_seen_lists_what_was_seen() {
    let world = World::new();
    let mut ask = ask(Some(1));
    ask.include_seen = true;
    ask.k = 12;
    let answer = world.state.engine.recommend(&ask).unwrap();
    assert_eq!(answer.candidates, 12);
    let mut all = ids(&answer);
    all.sort_unstable();
    assert_eq!(all, (100..112).collect::<Vec<_>>());
}

#[test]
fn one_event_makes_a_user_known() {
    let world = World::new();
    let engine = &world.state.engine;
    assert_eq!(
        engine.recommend(&ask(Some(99))).unwrap().fallback,
        Some(Fallback::UnknownUser)
    );
    world.observe(99, &[rated(103, 5.0, 13_000_000)]);
    let answer = engine.recommend(&ask(Some(99))).unwrap();
    assert_eq!((answer.fallback, answer.feature_version), (None, Some(1)));
    // Everybody who saw 103 saw 104 next.
    assert_eq!(ids(&answer)[0], 104);
}

#[test]
fn fallbacks_say_why() {
    let world = World::new();
    let engine = &world.state.engine;
    assert_eq!(
        engine.recommend(&ask(None)).unwrap().fallback,
        Some(Fallback::Anonymous)
    );
    world.view.apply_changes(vec![
        Change::User {
            partition: 0,
            features: Box::new(user_features(50, 1, &[])),
        },
        Change::User {
            partition: 0,
            features: Box::new(user_features(51, 1, &["Western"])),
        },
    ]);
    assert_eq!(
        engine.recommend(&ask(Some(50))).unwrap().fallback,
        Some(Fallback::NoHistory)
    );
    let wish = engine.recommend(&ask(Some(51))).unwrap();
    assert_eq!(wish.fallback, Some(Fallback::PreferredGenres));
    assert_eq!(wish.items[0].movie.genres, ["Western"]);

    let world = World::without_model();
    let answer = world.state.engine.recommend(&ask(Some(1))).unwrap();
    assert_eq!(answer.fallback, Some(Fallback::NoModel));
    assert_eq!(answer.model_version, None);
    assert_eq!(ids(&answer).len(), 4, "what was seen is left out all the same");
}

#[test]
fn seeds_make_an_anonymous_list_personal_and_are_not_listed() {
    let world = World::new();
    let mut ask = ask(None);
    ask.seeds = vec![MovieId(104), MovieId(104)];
    let answer = world.state.engine.recommend(&ask).unwrap();
    assert_eq!(answer.fallback, None);
    assert_eq!(ids(&answer)[0], 105);
    assert!(!ids(&answer).contains(&104));
    ask.seeds.push(MovieId(9));
    assert_eq!(
        world.state.engine.recommend(&ask).unwrap_err(),
        Refused::UnknownMovie {
            field: "context.seeds",
            movie_id: MovieId(9)
        }
    );
}

#[test]
fn filters_let_only_matching_movies_pass() {
    let world = World::new();
    let list = |filters: Filters| {
        let ask = RecommendAsk {
            k: 12,
            filters,
            ..RecommendAsk::default()
        };
        let answer = world.state.engine.recommend(&ask).unwrap();
        assert_eq!(answer.candidates as usize, answer.items.len());
        answer.items
    };
    let western = |name: &str| vec![name.to_owned()];
    let any = list(Filters {
        genres_any: western("Western"),
        ..Filters::default()
    });
    assert!(any.len() == 4 && any.iter().all(|item| item.movie.genres == ["Western"]));
    let none = list(Filters {
        genres_none: western("Western"),
        ..Filters::default()
    });
    assert!(none.len() == 8 && none.iter().all(|item| item.movie.genres != ["Western"]));
    let all = list(Filters {
        genres_all: vec!["Western".into(), "Drama".into()],
        ..Filters::default()
    });
    assert!(all.is_empty());
    let years = list(Filters {
        year_from: Some(1992),
        year_to: Some(1993),
        ..Filters::default()
    });
    assert_eq!(years.len(), 2, "a movie of unknown year does not pass");
    let without = list(Filters {
        exclude: vec![MovieId(100), MovieId(101), MovieId(123_456)],
        ..Filters::default()
    });
    assert_eq!(without.len(), 10);
}

#[test]
fn filters_that_no_movie_can_meet_are_refused_by_field() {
    let world = World::new();
    let refuse = |filters: Filters| {
        let ask = RecommendAsk {
            filters,
            ..RecommendAsk::default()
        };
        match world.state.engine.recommend(&ask).unwrap_err() {
            Refused::InvalidFilter { field, detail } => (field, detail),
            other => panic!("{other}"),
        }
    };
    let (field, detail) = refuse(Filters {
        genres_none: vec!["western".into()],
        ..Filters::default()
    });
    assert_eq!(field, "filters.genres_none");
    assert!(
        detail.contains("western") && detail.contains("Comedy, Drama, Western"),
        "{detail}"
    );
    let (field, _) = refuse(Filters {
        year_from: Some(2000),
        year_to: Some(1999),
        ..Filters::default()
    });
    assert_eq!(field, "filters.year_from");
}

#[test]
fn an_explanation_names_the_movie_behind_a_suggestion() {
    let world = World::new();
    world.observe(99, &[rated(103, 5.0, 13_000_000)]);
    let mut ask = ask(Some(99));
    ask.explain = Explain::Numbers;
    let answer = world.state.engine.recommend(&ask).unwrap();
    let reasons = answer.items[0].reasons.as_ref().unwrap();
    assert!(
        reasons.iter().any(
            |reason| matches!(reason, Reason::Because { movie_id: MovieId(103), text, .. }
                if text == "because you liked Movie 103")
        ),
        "{reasons:?}"
    );
    assert!(reasons.iter().any(|reason| matches!(reason, Reason::Term { .. })));
    assert!(answer.stages.iter().any(|stage| stage.stage == "explain"));
}

#[test]
fn similar_movies_come_from_behaviour_first_and_from_genres_after() {
    let world = World::new();
    let similar = |movie: u32, filters: Filters| {
        world
            .state
            .engine
            .similar(&SimilarAsk {
                movies: vec![MovieId(movie)],
                k: 5,
                filters,
            })
            .unwrap()
    };
    let answer = similar(103, Filters::default());
    assert_eq!(answer.fallback, None);
    assert!(!ids(&answer).contains(&103));
    assert_eq!(answer.items[0].source, "item_item");
    let mut once = ids(&answer);
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), answer.items.len());

    let drama = similar(
        103,
        Filters {
            genres_any: vec!["Drama".into()],
            ..Filters::default()
        },
    );
    assert!(drama.items.iter().all(|item| item.movie.genres == ["Drama"]));

    // Nobody touched 111.
    let cold = similar(111, Filters::default());
    assert_eq!(cold.fallback, Some(Fallback::NoEvidence));
    assert!(
        !cold.items.is_empty()
            && cold
                .items
                .iter()
                .all(|item| item.source == "genre" && item.movie.genres == ["Comedy"])
    );
}

#[test]
fn popular_follows_the_window() {
    let world = World::without_model();
    let hour = 3_600_000;
    // Long ago everybody liked 107; lately two people liked 110.
    let entries = [rated(110, 5.0, 5_000 * hour)];
    world.observe(60, &entries);
    world.observe(61, &entries);
    let first = |window| {
        let ask = PopularAsk {
            k: 3,
            window,
            ..PopularAsk::default()
        };
        ids(&world.state.engine.popular(&ask).unwrap())[0]
    };
    assert_eq!(first(Window::Day), 110);
    assert_ne!(first(Window::All), 110);
}

#[test]
fn a_movie_removed_from_the_catalogue_is_no_longer_listed() {
    let world = World::new();
    world.view.apply_changes(vec![Change::MovieGone(MovieId(108))]);
    for rebound in [false, true] {
        if rebound {
            world.champion.rebind(&world.view);
        }
        let mut ask = ask(None);
        ask.k = 12;
        let answer = world.state.engine.recommend(&ask).unwrap();
        assert_eq!(answer.items.len(), 11);
        assert!(!ids(&answer).contains(&108));
    }
}

#[test]
fn an_empty_catalogue_gives_an_empty_list() {
    let world = World::empty(crate::Config::default());
    let answer = world.state.engine.recommend(&ask(Some(1))).unwrap();
    assert!(answer.items.is_empty());
    assert_eq!(answer.as_of_ms, None);
}

/// Positions of `answer` in the undrawn list `ranked`.
fn places(answer: &Answer, ranked: &[u32]) -> Vec<usize> {
    ids(answer)
        .iter()
        .map(|id| ranked.iter().position(|ranked| ranked == id).unwrap())
        .collect()
}

/// Probability of a list by the Plackett-Luce model, in closed form.
fn probability(places: &[usize], pool: usize, steepness: f64) -> f64 {
    let weight = |place: usize| ((place + 1) as f64).powf(-steepness);
    let mut open: f64 = (0..pool).map(weight).sum();
    places
        .iter()
        .map(|&place| {
            let share = weight(place) / open;
            open -= weight(place);
            share
        })
        .product()
}

/// A list of three is drawn from five movies 100,000 times. Pearson's chi-square statistic of the 60 possible lists
/// against the product of the propensities that each list carried stays below the 99.9% quantile with 59 degrees of
/// freedom (level 0.001), and is far above it against a slightly other steepness.
#[test]
fn lists_are_drawn_as_often_as_their_propensities_say() {
    const LISTS: u32 = 100_000;
    const QUANTILE: f64 = 98.3;
    let world = World::new();
    let engine = &world.state.engine;
    let mut ask = ask(None);
    ask.k = 5;
    ask.filters.exclude = (105..112).map(MovieId).collect();
    let ranked = ids(&engine.recommend(&ask).unwrap());
    assert_eq!(ranked.len(), 5);
    ask.k = 3;
    let requests = marquee_runtime::ids::IdSource::seeded(11);
    let mut lists = std::collections::BTreeMap::<Vec<usize>, (u32, f64)>::new();
    for _ in 0..LISTS {
        ask.explore = Explore::Always(requests.next(1).into_bytes());
        let answer = engine.recommend(&ask).unwrap();
        assert_eq!(answer.policy, Policy::PlackettLuce);
        let logged = answer.items.iter().map(|item| item.propensity).product();
        let entry = lists.entry(places(&answer, &ranked)).or_insert((0, logged));
        entry.0 += 1;
        assert_eq!(entry.1, logged, "the same list has the same probability");
    }
    assert_eq!(lists.len(), 60);
    let total: f64 = lists.values().map(|(_, logged)| logged).sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
    let statistic = |expected: &dyn Fn(&[usize], f64) -> f64| -> f64 {
        lists
            .iter()
            .map(|(places, &(count, logged))| {
                let expected = expected(places, logged) * f64::from(LISTS);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum()
    };
    let steepness = ExploreConfig::default().steepness;
    let logged = statistic(&|_, logged| logged);
    let exact = statistic(&|places, _| probability(places, 5, steepness));
    let other = statistic(&|places, _| probability(places, 5, steepness * 0.95));
    assert!((logged - exact).abs() < 1e-6, "{logged} {exact}");
    assert!(logged < QUANTILE, "{logged}");
    assert!(other > QUANTILE, "{other}");
}

#[test]
fn a_drawn_list_obeys_filters_and_follows_from_the_request_alone() {
    let world = World::new();
    let mut ask = ask(Some(1));
    ask.filters.genres_none = vec!["Western".into()];
    ask.explore = Explore::Always([7; 16]);
    let answer = world.state.engine.recommend(&ask).unwrap();
    assert!(answer.items.iter().all(|item| item.movie.genres != ["Western"]));
    assert!(ids(&answer).iter().all(|id| (108..112).contains(id)));
    assert_eq!(ids(&answer), ids(&world.state.engine.recommend(&ask).unwrap()));
    ask.explore = Explore::Slice([7; 16]);
    let ranked = world.state.engine.recommend(&ask).unwrap();
    assert_eq!(ranked.policy, Policy::Ranked);
    assert!(ranked.items.iter().all(|item| item.propensity == 1.0));
}

#[test]
fn wanted_genres_come_first_with_and_without_a_model() {
    for world in [World::new(), World::without_model()] {
        let mut ask = ask(None);
        ask.genres = vec!["Comedy".into()];
        let answer = world.state.engine.recommend(&ask).unwrap();
        let comedies = answer
            .items
            .iter()
            .take(4)
            .filter(|item| item.movie.genres == ["Comedy"]);
        assert_eq!(comedies.count(), 4, "{:?}", ids(&answer));
        ask.genres.push("Kaiju".into());
        assert!(matches!(
            world.state.engine.recommend(&ask).unwrap_err(),
            Refused::InvalidFilter {
                field: "context.genres",
                ..
            }
        ));
    }
}

#[test]
fn movies_with_too_few_interactions_are_left_out() {
    let world = World::new();
    let mut ask = ask(None);
    ask.k = 12;
    ask.filters.min_interactions = Some(12);
    assert_eq!(world.state.engine.recommend(&ask).unwrap().candidates, 8);
    ask.filters.min_interactions = Some(13);
    assert!(world.state.engine.recommend(&ask).unwrap().items.is_empty());
}

#[test]
fn diversity_mixes_genres() {
    let world = World::new();
    let mut ask = ask(None);
    ask.k = 3;
    ask.shape.diversity = 0.9;
    let answer = world.state.engine.recommend(&ask).unwrap();
    let genres: std::collections::BTreeSet<_> = answer
        .items
        .iter()
        .map(|item| item.movie.genres[0].as_str())
        .collect();
    assert_eq!(genres.len(), 3, "{:?}", ids(&answer));
}

#[test]
fn what_would_be_late_is_left_out_and_said_so() {
    let world = World::new();
    let mut ask = ask(Some(1));
    ask.shape.diversity = 0.5;
    ask.explain = Explain::Words;
    ask.arrived = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(60));
    assert!(ask.arrived.is_some());
    let answer = world.state.engine.recommend(&ask).unwrap();
    assert_eq!(
        answer.left_out,
        [LeftOut::PersonalRanking, LeftOut::Shaping, LeftOut::Explanations]
    );
    assert_eq!(answer.fallback, Some(Fallback::Late));
    assert!(
        ids(&answer).iter().all(|id| (108..112).contains(id)),
        "filters still hold"
    );
    ask.arrived = Some(std::time::Instant::now() + std::time::Duration::from_secs(60));
    let answer = world.state.engine.recommend(&ask).unwrap();
    assert!(answer.left_out.is_empty() && answer.fallback.is_none());
}

#[test]
fn numbers_are_told_only_when_asked_for() {
    let world = World::new();
    world.observe(99, &[rated(103, 5.0, 13_000_000)]);
    let mut ask = ask(Some(99));
    let reasons = |ask: &RecommendAsk| {
        let answer = world.state.engine.recommend(ask).unwrap();
        serde_json::to_string(&answer.items[0].reasons).unwrap()
    };
    ask.explain = Explain::Words;
    let words = reasons(&ask);
    assert!(
        words.contains("because you liked") && !words.contains("share") && !words.contains("term"),
        "{words}"
    );
    ask.explain = Explain::Numbers;
    let numbers = reasons(&ask);
    assert!(
        numbers.contains("share") && numbers.contains("contribution"),
        "{numbers}"
    );
}

#[test]
fn an_explanation_names_the_genre_that_was_asked_for() {
    let world = World::new();
    let mut ask = ask(None);
    ask.genres = vec!["Comedy".into()];
    ask.explain = Explain::Words;
    let answer = world.state.engine.recommend(&ask).unwrap();
    let reasons = answer.items[0].reasons.as_ref().unwrap();
    assert!(
        reasons.iter().any(
            |reason| matches!(reason, Reason::Genre { text, .. } if text == "because you asked for Comedy")
        ),
        "{reasons:?}"
    );
}

#[test]
fn search_finds_titles_and_follows_the_catalogue() {
    let world = World::new();
    let engine = &world.state.engine;
    let first = |query: &str| {
        engine
            .search(query, 3)
            .first()
            .map(|found| found.movie.movie_id.0)
    };
    assert_eq!(first("movie 104"), Some(104));
    assert_eq!(first("moive 104"), Some(104));
    assert_eq!(engine.search("movie", 5).len(), 5);
    assert_eq!(first("quux"), None);
}

#[test]
fn a_model_is_not_asked_about_a_view_that_it_is_not_bound_to() {
    let world = World::new();
    let engine = &world.state.engine;
    // The same movies at other places.
    let mut changes = crate::testing::changes();
    changes[..crate::testing::MOVIES as usize].reverse();
    let anew = ViewState::fold(marquee_models::live::LiveParams::default(), changes).unwrap();
    world.view.replace(anew);
    let mut ask = ask(Some(1));
    ask.explain = Explain::Words;
    let similar = SimilarAsk {
        movies: vec![MovieId(103)],
        k: 5,
        ..SimilarAsk::default()
    };
    for answer in [engine.recommend(&ask).unwrap(), engine.similar(&similar).unwrap()] {
        assert_eq!(
            (answer.fallback, answer.model_version),
            (Some(Fallback::NoModel), None)
        );
    }
    assert!(world.champion.rebind(&world.view).is_empty());
    for answer in [engine.recommend(&ask).unwrap(), engine.similar(&similar).unwrap()] {
        assert_eq!(answer.fallback, None);
    }
}

#[test]
fn similar_movies_are_as_many_where_one_left_the_catalogue() {
    let world = World::new();
    let similar = || {
        let ask = SimilarAsk {
            movies: vec![MovieId(103)],
            k: 3,
            ..SimilarAsk::default()
        };
        let answer = world.state.engine.similar(&ask).unwrap();
        assert!(answer.items.iter().all(|item| item.source == "item_item"));
        ids(&answer)
    };
    let before = similar();
    assert_eq!(before.len(), 3);
    world
        .view
        .apply_changes(vec![Change::MovieGone(MovieId(before[0]))]);
    let after = similar();
    assert_eq!((after.len(), &after[..2]), (3, &before[1..]));
}
