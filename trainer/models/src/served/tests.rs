use super::*;

mod large;

fn event(user: u32, item: u32, time_ms: i64) -> Interaction {
    Interaction {
        user,
        item,
        rating: Some(5.0),
        weight: 1.0,
        time_ms,
    }
}

fn catalogue(items: u32) -> Catalogue {
    Catalogue::new(
        (0..items)
            .map(|index| CatalogueItem {
                external_id: 100 + index,
                year: Some(1990 + index as u16),
                genres: 1 << (index % 3),
            })
            .collect(),
    )
}

/// Users who watch 0, 1, 2, ... in that order, and one who watches item 7 alone.
fn stream() -> Vec<Interaction> {
    let mut events = Vec::new();
    for user in 0..20 {
        for item in 0..6 {
            events.push(event(
                user,
                item,
                i64::from(user) * 1_000_000 + i64::from(item) * 1000,
            ));
        }
    }
    events.push(event(50, 7, 30_000_000));
    events
}

fn fitted() -> (ServedModel, LiveState, Binding) {
    let catalogue = catalogue(8);
    let params = ServedParams::default();
    let model = ServedModel::fit(&stream(), &catalogue, &params, 7).unwrap();
    let mut live = LiveState::new(params.live).unwrap();
    for event in stream() {
        live.observe(&event);
    }
    let binding = model.bind(&catalogue.external_ids());
    (model, live, binding)
}

fn query<'a>(binding: &'a Binding, live: &'a LiveState, context: Context<'a>, now_ms: i64) -> Query<'a> {
    Query {
        binding,
        live,
        context,
        now_ms,
    }
}

#[test]
fn the_usual_next_item_comes_first_and_is_explained_by_the_last_one() {
    let (model, mut live, binding) = fitted();
    live.observe(&event(60, 0, 40_000_000));
    live.observe(&event(60, 1, 40_001_000));
    let mut scratch = ScoreScratch::new();
    let context = Context::of_user(&live, 60);
    let list = model.recommend(
        &query(&binding, &live, context, 40_002_000),
        3,
        |_| false,
        &mut scratch,
    );
    assert_eq!(list.items[0].item, 2);
    assert_eq!(list.fallback, None);
    assert!(list.items.iter().all(|item| item.item > 1));
    let why = &model.explain(&query(&binding, &live, context, 40_002_000), &[2], &mut scratch)[0];
    assert!(
        why.because
            .is_some_and(|reason| reason.item <= 1 && reason.share > 0.0)
    );
    assert!(!why.terms.is_empty());
}

#[test]
fn people_alike_explain_a_list_where_they_weigh() {
    let (mut model, mut live, binding) = fitted();
    live.observe(&event(60, 0, 40_000_000));
    let context = Context::of_user(&live, 60);
    let alike = features::NAMES[features::Column::AlikeEver as usize];
    let mut scratch = ScoreScratch::new();
    for (weight, explains) in [(1.0, true), (0.0, false)] {
        model.params.blend.weights = [(alike.to_owned(), weight)].into();
        let why = &model.explain(&query(&binding, &live, context, 40_002_000), &[2], &mut scratch)[0];
        assert_eq!(
            why.because.is_some_and(|reason| reason.item == 0),
            explains,
            "{why:?}"
        );
    }
}

#[test]
fn without_a_history_the_list_is_popularity_and_says_so() {
    let (model, live, binding) = fitted();
    let mut scratch = ScoreScratch::new();
    let nobody = Context::of_user(&live, 999);
    let list = model.recommend(
        &query(&binding, &live, nobody, 31_000_000),
        2,
        |_| false,
        &mut scratch,
    );
    assert_eq!(list.fallback, Some(Fallback::Popularity));
    assert!(list.items[0].item < 6);
    let wish = nobody.with_genres(0b010);
    let list = model.recommend(
        &query(&binding, &live, wish, 31_000_000),
        2,
        |_| false,
        &mut scratch,
    );
    assert_eq!(list.fallback, Some(Fallback::GenrePopularity));
    assert!(list.items.iter().all(|item| item.item % 3 == 1));
}

#[test]
fn an_item_the_model_never_saw_is_scored_by_its_live_terms() {
    let (model, mut live, _) = fitted();
    let mut ids = catalogue(8).external_ids();
    ids.push(999);
    let binding = model.bind(&ids);
    assert_eq!(binding.model_index(8), None);
    for user in 70..80 {
        live.observe(&event(user, 8, 40_000_000));
    }
    let mut scratch = ScoreScratch::new();
    let nobody = Context::of_user(&live, 999);
    let list = model.recommend(
        &query(&binding, &live, nobody, 40_000_001),
        9,
        |_| false,
        &mut scratch,
    );
    assert!(list.items.iter().any(|item| item.item == 8 && item.score > 0.0));
}

#[test]
fn excluded_items_do_not_appear() {
    let (model, live, binding) = fitted();
    let mut scratch = ScoreScratch::new();
    let nobody = Context::of_user(&live, 999);
    let list = model.recommend(
        &query(&binding, &live, nobody, 31_000_000),
        8,
        |item| item == 0,
        &mut scratch,
    );
    assert_eq!(list.items.len(), 7);
    assert!(list.items.iter().all(|item| item.item != 0));
}

#[test]
fn similar_items_are_those_of_the_same_sequence() {
    let (model, live, binding) = fitted();
    let mut scratch = ScoreScratch::new();
    let similar = model.similar(&binding, &live, &[2], 31_000_000, 4, &mut scratch);
    assert!(!similar.is_empty() && similar.iter().all(|item| item.item != 2 && item.item != 7));
}

#[test]
fn a_model_survives_storage_and_refuses_damage() {
    let (model, _, _) = fitted();
    let bytes = model.to_bytes().unwrap();
    assert_eq!(ServedModel::from_bytes(&bytes).unwrap(), model);
    assert_eq!(bytes, fitted().0.to_bytes().unwrap());
    for length in (0..bytes.len()).step_by(7) {
        assert!(matches!(
            ServedModel::from_bytes(&bytes[..length]),
            Err(Error::Stored(_))
        ));
    }
    // The manifest is text inside the header: another version number is recognised before anything else is read.
    let place = bytes
        .windows(12)
        .position(|part| part == b"version\\\":2,")
        .unwrap();
    let of_version = |digit| {
        let mut other = bytes.clone();
        other[place + 10] = digit;
        ServedModel::from_bytes(&other)
    };
    assert_eq!(
        of_version(b'9'),
        Err(Error::NewerFormat {
            found: 9,
            supported: 2
        })
    );
    assert!(matches!(of_version(b'1'), Err(Error::Stored(message)) if message.contains("older")));
}

#[test]
fn bad_streams_are_refused_with_a_reason() {
    let params = ServedParams::default();
    let items = catalogue(3);
    let refuse = |events: &[Interaction]| {
        ServedModel::fit(events, &items, &params, 0)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&[]).contains("no interaction"));
    assert!(refuse(&[event(0, 0, 5), event(0, 1, 4)]).contains("time order"));
    assert!(refuse(&[event(0, 9, 5)]).contains("outside the catalogue"));
    let mut wild = event(0, 0, 5);
    wild.rating = Some(f32::NAN);
    assert!(refuse(&[wild]).contains("not finite"));
}

/// People who walk one of two circles of items, with a favourite genre in between, for long enough to learn a ranker.
fn long_stream(events: u32) -> Vec<Interaction> {
    (0..events)
        .map(|step| {
            let (user, turn) = (step / 8, step % 8);
            let item = if user % 2 == 0 {
                (user + turn) % 12
            } else {
                12 + (user * 5 + turn * 3) % 12
            };
            Interaction {
                rating: Some(if step % 7 == 0 { 2.0 } else { 5.0 }),
                // Pairs of events share a moment.
                ..event(user, item, i64::from(step / 2) * 60_000)
            }
        })
        .collect()
}

fn quick_params() -> ServedParams {
    let mut params = ServedParams {
        fit: FitParams {
            warm_up: 100,
            window: 1200,
            generator_stride: 400,
            candidates: 10,
            ..FitParams::default()
        },
        ..ServedParams::default()
    };
    params.ranker.min_lists = 100;
    params.ranker.gbdt.trees = 10;
    params.ranker.gbdt.min_leaf_hessian = 0.1;
    params
}

#[test]
fn a_fitter_that_goes_on_gives_the_model_of_a_fresh_one() {
    let (events, catalogue, params) = (long_stream(2400), catalogue(24), quick_params());
    let mut fitter = Fitter::new(&params, 3).unwrap();
    // Some of the cuts lie within a moment.
    for end in [50, 901, 1500, 1501, 2400] {
        let grown = fitter.fit(&events[..end], &catalogue).unwrap();
        let fresh = ServedModel::fit(&events[..end], &catalogue, &params, 3).unwrap();
        assert_eq!(grown, fresh, "after {end} events");
    }
    let verdict = fitter.fit(&events, &catalogue).unwrap().verdict();
    assert!(verdict.is_some_and(|verdict| verdict.lists > 10));
    // Back to a shorter stream, and on to another one.
    let fresh = ServedModel::fit(&events[..1500], &catalogue, &params, 3).unwrap();
    assert_eq!(fitter.fit(&events[..1500], &catalogue).unwrap(), fresh);
    let mut other = events.clone();
    other[700].rating = Some(1.0);
    let fresh = ServedModel::fit(&other, &catalogue, &params, 3).unwrap();
    assert_eq!(fitter.fit(&other, &catalogue).unwrap(), fresh);
}

#[test]
fn threads_divide_the_lists_and_change_nothing() {
    let (events, catalogue, params) = (long_stream(2400), catalogue(24), quick_params());
    let fit = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| ServedModel::fit(&events, &catalogue, &params, 3).unwrap())
    };
    let alone = fit(1);
    assert!(alone.verdict().is_some_and(|verdict| verdict.lists > 10));
    assert_eq!(fit(3), alone);
}

#[test]
fn an_earlier_verdict_decides_without_being_asked_again() {
    let (events, catalogue, params) = (long_stream(2400), catalogue(24), quick_params());
    let mut fitter = Fitter::new(&params, 3).unwrap();
    let verdict = |ranker_ndcg, trees| Verdict {
        blend_ndcg: 0.5,
        ranker_ndcg,
        trees,
        lists: 100,
    };
    let better = fitter
        .fit_as_judged(&events, &catalogue, Some(verdict(0.6, 7)))
        .unwrap();
    assert!(better.has_ranker() && better.verdict() == Some(verdict(0.6, 7)));
    let worse = fitter
        .fit_as_judged(&events, &catalogue, Some(verdict(0.4, 7)))
        .unwrap();
    assert!(!worse.has_ranker());
}

#[test]
fn rare_items_are_scored_by_live_terms_alone() {
    let (model, live, binding) = fitted();
    assert_eq!(model.generators.core.items(), [0, 1, 2, 3, 4, 5]);
    let mut scratch = ScoreScratch::new();
    let context = Context::of_user(&live, 50);
    let scores = model.score_all(&query(&binding, &live, context, 31_000_000), &mut scratch);
    assert!(scores.iter().all(|score| score.is_finite()));
}

#[test]
fn the_ranker_orders_the_best_of_what_may_be_listed() {
    let catalogue = catalogue(40);
    let mut events = Vec::new();
    for user in 0..60 {
        for step in 0..20 {
            let item = (user * 3 + step * (1 + user % 4)) % 40;
            events.push(event(
                user,
                item,
                i64::from(user) * 1_000_000 + i64::from(step) * 1000,
            ));
        }
    }
    let params = ServedParams {
        fit: FitParams {
            candidates: 5,
            warm_up: 100,
            generator_stride: 400,
            ..FitParams::default()
        },
        ranker: RankerParams {
            min_lists: 20,
            ..RankerParams::default()
        },
        ..ServedParams::default()
    };
    let mut model = ServedModel::fit(&events, &catalogue, &params, 7).unwrap();
    if model.ranker.is_none() {
        // The verdict is not what is tested: any ranker lifts its candidates.
        model.ranker = Some(Ranker::new(crate::gbdt::Gbdt::default(), features::row::WIDTH));
    }
    let mut live = LiveState::new(params.live).unwrap();
    for event in &events {
        live.observe(event);
    }
    let binding = model.bind(&catalogue.external_ids());
    let query = query(&binding, &live, Context::of_user(&live, 3), 100_000_000);
    let mut scratch = ScoreScratch::new();
    let rare = |item: u32| item.is_multiple_of(7) && !query.context.is_seen(item);
    let among = model.best(&query, 40, rare, &mut scratch);
    let lifted = |of: &[Recommended]| of.iter().filter(|item| item.score >= 0.0).count();
    assert!(
        !among.is_empty() && among.iter().all(|best| rare(best.item)),
        "{among:?}"
    );
    assert_eq!(lifted(&among), 5.min(among.len()));
    let unseen = model.best(&query, 40, |item| !query.context.is_seen(item), &mut scratch);
    assert!(
        lifted(&unseen) == 5 && unseen[..5].iter().any(|best| !rare(best.item)),
        "{unseen:?}"
    );
    // What a selection through marks lets pass is what the plain question lets pass.
    let scores = model.score_all(&query, &mut scratch);
    assert!(unseen.iter().all(|best| scores[best.item as usize] == best.score));
}
