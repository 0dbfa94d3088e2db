use marquee_schemas::Kind;

use super::attribution::Attribution;
use super::list::Answer;
use super::list::testing::{answer, list};
use super::*;

/// Twenty users with a list of each model; the first `clicking` of them click what the first model showed.
fn evaluated(clicking: u64, clicks_known: bool) -> Evaluation {
    let mut evaluation = Evaluation {
        tallies: BTreeMap::new(),
        catalogue: 0,
        clicks_known,
    };
    for version in ["v000001", "v000002"] {
        for user in 0..20 {
            let served = list(&format!("{version}/{user}"), user, 0, &[7, 8]);
            let mut outcome = Outcome::default();
            if version == "v000001" && user < clicking {
                let click = Answer {
                    kind: Kind::Click,
                    ..answer("e", user, 7, 1, Some(&served.request_id))
                };
                let found = Attribution {
                    list: 0,
                    answer: 0,
                    by: By::RequestId,
                    rank: Some(0),
                };
                outcome.add(&click, &found);
            }
            evaluation
                .tallies
                .entry((Some(version.into()), Slice::All))
                .or_default()
                .add(&served, &outcome, 10);
        }
    }
    evaluation
}

fn clicked(evaluation: &Evaluation) -> Vec<Option<f64>> {
    let slices = evaluation.slices();
    let of = |slice: &SliceEvaluation| slice.clicked_lists.map(|estimate| estimate.value);
    slices.iter().map(of).collect()
}

fn compared(evaluation: &Evaluation) -> Option<f64> {
    let comparison = evaluation.compare("v000001", "v000002").unwrap();
    let ctr = comparison
        .differences
        .into_iter()
        .find(|(name, _)| *name == "ctr");
    ctr.map(|(_, difference)| difference.value)
}

#[test]
fn a_model_that_nobody_clicks_has_a_rate_of_zero_where_another_ones_clicks_are_reported() {
    let evaluation = evaluated(10, false);
    assert_eq!(clicked(&evaluation), [Some(0.5), Some(0.0)]);
    assert_eq!(compared(&evaluation), Some(-0.25));
    let nobody = evaluation.slices()[1].clicked_lists.unwrap();
    assert!(nobody.interval.unwrap().1 < 0.2 && nobody.n == 20, "{nobody:?}");
}

#[test]
fn where_no_click_names_a_list_there_is_no_rate_unless_such_clicks_are_known() {
    let silent = evaluated(0, false);
    assert_eq!((clicked(&silent), compared(&silent)), (vec![None, None], None));
    assert!(!silent.reports_clicks());
    let fallen = evaluated(0, true);
    assert_eq!(clicked(&fallen), [Some(0.0), Some(0.0)]);
    assert_eq!(compared(&fallen), Some(0.0));
}
