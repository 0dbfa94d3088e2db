//! Result rows for people.

use std::fmt::Write as _;

use marquee_models::evaluate::{Population, ResultRow};

/// One line per model and population under a heading; rating errors in a table of their own.
pub(super) fn render(rows: &[ResultRow]) -> String {
    let mut out = String::new();
    let Some(first) = rows.first() else {
        return "nothing to judge: no case in this segment\n".to_owned();
    };
    let heading = format!(
        "protocol {}, segment {}; intervals: 95%, bootstrap over users\n\n",
        first.protocol,
        first.segment.name()
    );
    out.push_str(&heading);
    // Writing into a string cannot fail.
    writeln!(
        out,
        "{:<13} {:<11} {:>7} {:>6}  {:<24} {:>7} {:>9} {:>7} {:>7} {:>12}",
        "model", "population", "n", "users", "ndcg@10", "hr@10", "recall@20", "map@10", "mrr", "coverage@100"
    )
    .ok();
    let mut last = "";
    for row in rows {
        let model = if row.model == last { "" } else { row.model.as_str() };
        last = &row.model;
        writeln!(
            out,
            "{model:<13} {:<11} {:>7} {:>6}  {:<24} {:>7.4} {:>9.4} {:>7.4} {:>7.4} {:>12.3}",
            population(row.population),
            row.n,
            row.users,
            format!(
                "{:.4} ({:.4} to {:.4})",
                row.ndcg_10, row.ndcg_10_lo, row.ndcg_10_hi
            ),
            row.hr_10,
            row.recall_20,
            row.map_10,
            row.mrr,
            row.coverage_100
        )
        .ok();
    }
    let stars: Vec<_> = rows.iter().filter_map(|row| Some((row, row.stars?))).collect();
    if !stars.is_empty() {
        writeln!(
            out,
            "\n{:<13} {:<11} {:>7}  {:>7} {:>7} {:>7}",
            "model", "population", "ratings", "rmse", "mae", "r2"
        )
        .ok();
    }
    for (row, stars) in stars {
        writeln!(
            out,
            "{:<13} {:<11} {:>7}  {:>7.4} {:>7.4} {:>7.4}",
            row.model,
            population(row.population),
            stars.ratings,
            stars.errors.rmse,
            stars.errors.mae,
            stars.errors.r2
        )
        .ok();
    }
    out
}

fn population(population: Population) -> &'static str {
    match population {
        Population::All => "all",
        Population::Warm => "warm",
        Population::Cold => "cold",
        Population::NoHistory => "no-history",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_said_in_words_and_a_row_stands_under_its_heading() {
        assert!(render(&[]).contains("nothing to judge"));
        let pairs: Vec<(u32, u32)> = (0..6)
            .flat_map(|user| (0..5).map(move |item| (user, item)))
            .collect();
        let options = marquee_models::evaluate::EvaluationOptions {
            models: vec![marquee_models::evaluate::ModelName::Cosine],
            bootstrap_draws: 10,
            ..Default::default()
        };
        let rows = marquee_models::evaluate::random_split(&pairs, &options, &|_| ()).unwrap();
        let text = render(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("random-split") && lines[2].starts_with("model"),
            "{text}"
        );
        assert!(lines[3].starts_with("cosine        all"), "{text}");
    }
}
