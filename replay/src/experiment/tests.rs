use super::*;
use crate::evaluation::testing::list;

fn shares(named: &[(&str, f64)]) -> BTreeMap<String, f64> {
    named
        .iter()
        .map(|(arm, share)| ((*arm).to_owned(), *share))
        .collect()
}

fn users(sizes: &[(&str, u64)]) -> BTreeMap<Arc<str>, u64> {
    sizes.iter().map(|(arm, users)| ((*arm).into(), *users)).collect()
}

#[test]
fn arms_without_a_named_share_divide_the_rest() {
    let arms: Vec<Arc<str>> = ["a", "b", "c"].map(Into::into).into();
    let of: Vec<f64> = intended(arms, &shares(&[("a", 0.5)]))
        .into_iter()
        .map(|(_, share)| share)
        .collect();
    assert_eq!(of, [0.5, 0.25, 0.25]);
}

#[test]
fn shares_that_cannot_be_are_refused() {
    check_shares(&shares(&[("a", 0.9), ("b", 0.1)])).unwrap();
    for wrong in [
        shares(&[("a", 0.9), ("b", 0.2)]),
        shares(&[("a", -0.1)]),
        shares(&[("a", f64::NAN)]),
    ] {
        assert!(matches!(check_shares(&wrong), Err(Error::Config(_))), "{wrong:?}");
    }
}

#[test]
fn an_arm_that_appears_without_a_share_is_named_and_no_old_p_value_stands_for_it() {
    let named = shares(&[("a", 0.5), ("b", 0.5)]);
    let mut sizes = Sizes::default();
    sizes.look(&users(&[("a", 1_000), ("b", 1_000)]), &named);
    assert!(sizes.p.unwrap() > 0.9 && sizes.without_share.is_none());
    sizes.look(&users(&[("a", 1_000), ("b", 1_000), ("c", 1)]), &named);
    assert_eq!(sizes.without_share.as_deref(), Some("c"));
    // With a rest it shares in, the check begins anew.
    let mut sizes = Sizes::default();
    let half = shares(&[("a", 0.5)]);
    sizes.look(&users(&[("a", 1_000), ("b", 200)]), &half);
    assert!(sizes.p.unwrap() < 0.001);
    sizes.look(&users(&[("a", 1_000), ("b", 500), ("c", 500)]), &half);
    assert!(sizes.p.unwrap() > 0.9 && sizes.without_share.is_none());
}

#[test]
fn a_named_arm_that_nobody_is_in_has_lost_its_users_and_one_of_no_share_is_not_judged() {
    let mut sizes = Sizes::default();
    sizes.look(&users(&[("a", 1_000)]), &shares(&[("a", 0.5), ("b", 0.5)]));
    assert!(sizes.p.unwrap() < 0.001);
    let mut sizes = Sizes::default();
    let by_request = shares(&[("a", 0.5), ("b", 0.5), ("c", 0.0)]);
    sizes.look(&users(&[("a", 1_000), ("b", 1_000), ("c", 3)]), &by_request);
    assert!(sizes.p.unwrap() > 0.9);
    let mut alone = Sizes::default();
    alone.look(&users(&[("a", 1_000)]), &BTreeMap::new());
    assert_eq!(alone.p, None);
}

#[test]
fn a_user_who_crosses_often_is_one_crossed_user() {
    let options = ExperimentOptions {
        experiment: "trial".into(),
        control: "a".into(),
        shares: BTreeMap::new(),
        alpha: 0.05,
        effect: 0.01,
        least_users: 1,
        k: 10,
        attribution_window_ms: 1,
        as_of_ms: 1,
    };
    let mut state = State::default();
    for (n, (user, arm)) in [(1, "a"), (2, "b"), (1, "b"), (1, "b"), (2, "b")]
        .into_iter()
        .enumerate()
    {
        let mut served = list(&format!("r{n}"), user, 0, &[7]);
        served.experiment = Some("trial".into());
        served.arm = Some(arm.into());
        state.add(&Served::of(&served, &Outcome::default(), &options));
    }
    assert_eq!(state.crossed.len(), 1);
    assert_eq!(state.sizes, users(&[("a", 1), ("b", 1)]));
}
