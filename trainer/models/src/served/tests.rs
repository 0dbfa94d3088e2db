use super::*;

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
    assert!(similar.iter().all(|item| item.item != 2 && item.item != 7));
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
    // The manifest is text inside the header: a later version number is recognised before anything else is read.
    let mut newer = bytes.clone();
    let place = newer
        .windows(12)
        .position(|part| part == b"version\\\":1,")
        .unwrap();
    newer[place + 10] = b'9';
    assert_eq!(
        ServedModel::from_bytes(&newer),
        Err(Error::NewerFormat {
            found: 9,
            supported: 1
        })
    );
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
