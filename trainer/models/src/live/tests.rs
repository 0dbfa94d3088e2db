use super::*;

fn rated(user: u32, item: u32, stars: f32, time_ms: i64) -> Interaction {
    Interaction {
        user,
        item,
        rating: Some(stars),
        weight: 1.0,
        time_ms,
    }
}

fn state() -> LiveState {
    LiveState::new(LiveParams::default()).unwrap()
}

#[test]
fn popularity_halves_after_one_half_life_and_counts_likes_apart() {
    let mut live = state();
    live.observe(&rated(0, 3, 5.0, 0));
    live.observe(&rated(1, 3, 2.0, 0));
    let stats = live.item_stats(3, HOUR_MS);
    assert!((stats.interactions[0] - 1.0).abs() < 1e-6);
    assert!((stats.likes[0] - 0.5).abs() < 1e-6);
    assert_eq!((stats.count, stats.like_count), (2, 1));
    assert_eq!(stats.mean_rating, Some(3.5));
    assert_eq!(live.items(), 4);
}

#[test]
fn a_late_event_enters_history_in_time_order_and_teaches_no_transition() {
    let mut live = state();
    assert_eq!(live.observe(&rated(0, 1, 5.0, 10)), Observed::InOrder);
    assert_eq!(live.observe(&rated(0, 2, 5.0, 20)), Observed::InOrder);
    let before = live.transitions().clone();
    assert_eq!(live.observe(&rated(0, 3, 5.0, 15)), Observed::Late);
    let order: Vec<u32> = live.history(0).iter().map(|entry| entry.item).collect();
    assert_eq!(order, [1, 3, 2]);
    assert!(live.is_seen(0, 3));
    assert_eq!(live.transitions(), &before);
}

#[test]
fn a_forgotten_user_has_no_history_and_the_items_keep_their_counts() {
    let mut live = state();
    live.observe(&rated(0, 1, 5.0, 10));
    assert!(live.forget(0));
    assert!(!live.forget(0) && !live.forget(99));
    assert!(live.history(0).is_empty() && !live.is_seen(0, 1));
    assert_eq!(live.item_stats(1, 10).count, 1);
}

#[test]
fn the_history_is_bounded_and_the_seen_set_is_not() {
    let mut live = LiveState::new(LiveParams {
        history_limit: 3,
        ..LiveParams::default()
    })
    .unwrap();
    for item in 0..10 {
        live.observe(&rated(0, item, 4.0, i64::from(item)));
    }
    let order: Vec<u32> = live.history(0).iter().map(|entry| entry.item).collect();
    assert_eq!(order, [7, 8, 9]);
    assert_eq!(live.seen(0).len(), 10);
    assert_eq!(live.history_len(0), 10);
}

#[test]
fn settings_out_of_their_domain_are_named() {
    let params = LiveParams {
        session_gap_ms: 0,
        ..LiveParams::default()
    };
    let error = LiveState::new(params).unwrap_err();
    assert!(error.to_string().contains("session_gap_ms"), "{error}");
}

proptest::proptest! {
    #[test]
    fn order_free_statistics_do_not_depend_on_arrival_order(
        events in proptest::collection::vec((0_u32..4, 0_u32..6, 1_u8..=5, 0_i64..50), 1..60),
    ) {
        let events: Vec<Interaction> = events
            .into_iter()
            .map(|(user, item, stars, hours)| rated(user, item, f32::from(stars), hours * HOUR_MS))
            .collect();
        let mut forward = state();
        let mut backward = state();
        for event in &events {
            forward.observe(event);
        }
        for event in events.iter().rev() {
            backward.observe(event);
        }
        for item in 0..6 {
            let (a, b) = (forward.item_stats(item, 50 * HOUR_MS), backward.item_stats(item, 50 * HOUR_MS));
            proptest::prop_assert_eq!(a.count, b.count);
            for slot in 0..HALF_LIVES {
                proptest::prop_assert!((a.likes[slot] - b.likes[slot]).abs() < 1e-4);
                proptest::prop_assert!((a.interactions[slot] - b.interactions[slot]).abs() < 1e-4);
            }
        }
        for user in 0..4 {
            proptest::prop_assert_eq!(forward.seen(user), backward.seen(user));
            let times: Vec<i64> = backward.history(user).iter().map(|entry| entry.time_ms).collect();
            proptest::prop_assert!(times.is_sorted());
        }
    }
}
