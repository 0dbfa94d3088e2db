//! Lists go on, and none goes unlogged, while models are swapped and the broker is away.
//!
//! `SOAK_MINUTES=10 cargo test --release -p marquee --test e2e soak -- --nocapture` runs the long form, with the
//! broker away for a minute; without the variable the same story takes three quarters of a minute.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use marquee_schemas::RequestLog;
use marquee_testkit::EmbeddedServer;
use serde_json::{Value, json};

use crate::harness::{Marquee, data_dir, eventually, get, records};

const ASKING: u64 = 4;
/// Between two requests of one who asks.
const PAUSE: Duration = Duration::from_millis(20);
/// The key `secret`, and its SHA-256 as it is configured.
const KEY: &str = "Bearer secret";
const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

fn admin(url: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let answer = match body {
        Some(body) => agent()
            .post(format!("{url}{path}"))
            .header("authorization", KEY)
            .header("content-type", "application/json")
            .send(body.to_string()),
        None => agent()
            .get(format!("{url}{path}"))
            .header("authorization", KEY)
            .call(),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (
        answer.status().as_u16(),
        serde_json::from_str(&text).unwrap_or(Value::Null),
    )
}

/// Lets a version serve.
fn swap(url: &str, version: &str) {
    let body = json!({"version": version, "reason": "to see whether anybody notices"});
    let (status, answer) = admin(url, "/admin/models/promote", Some(&body));
    assert_eq!(status, 202, "{answer}");
    eventually("the promoted model serves", || {
        (get(&format!("{url}/health")).1["model_version"] == version).then_some(())
    });
    println!("{version} serves");
}

#[derive(Debug, Default)]
struct Asked {
    statuses: BTreeMap<u16, u64>,
    request_ids: HashSet<String>,
}

/// Asks for lists until told to stop; status 0 is no answer.
fn ask_on(url: &str, who: u64, stop: &AtomicBool) -> Asked {
    let agent = agent();
    let mut asked = Asked::default();
    let mut user = who;
    while !stop.load(Ordering::Relaxed) {
        user = user % 900 + ASKING;
        let answer = agent
            .post(format!("{url}/recommend"))
            .header("content-type", "application/json")
            .send(format!("{{\"user_id\":{user},\"k\":10}}"));
        let status = match answer {
            Err(_) => 0,
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                let text = answer.body_mut().read_to_string().unwrap_or_default();
                let list: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
                asked.request_ids.extend(
                    list["request_id"]
                        .as_str()
                        .filter(|_| status == 200)
                        .map(str::to_owned),
                );
                status
            }
        };
        *asked.statuses.entry(status).or_default() += 1;
        std::thread::sleep(PAUSE);
    }
    asked
}

/// A metric without labels.
fn metric(url: &str, name: &str) -> f64 {
    let (_, text) = get(&format!("{url}/metrics"));
    let line = text
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn lists_go_on_through_three_swaps_and_an_outage() {
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(0.75, |text| text.parse().unwrap());
    let whole = Duration::from_secs_f64(minutes * 60.0);
    let away = (whole / 10).clamp(Duration::from_secs(8), Duration::from_secs(60));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("marquee.toml");
    std::fs::write(
        &config,
        format!("[recommender]\nadmin_key_sha256 = \"{DIGEST}\"\n"),
    )
    .unwrap();
    let mut broker = EmbeddedServer::start_fresh().unwrap();
    let mut args = vec!["--live-speed", "50/s", "--config", config.to_str().unwrap()];
    let data = data_dir();
    match &data {
        Some(data) => args.extend(["--dataset", "ml-100k", "--data-dir", data.to_str().unwrap()]),
        None => args.extend(["--dataset", "synthetic"]),
    }
    let state = folder.path().join("state");
    let mut marquee = Marquee::up(&state, Some(&broker.brokers()), &args);
    let url = marquee.url();
    marquee.wait_ready();
    let first = marquee.wait_model();

    // A second model, whatever the gate thinks of it.
    let (status, answer) = admin(
        &url,
        "/admin/retrain",
        Some(&json!({"reason": "one to swap with"})),
    );
    assert_eq!(status, 202, "{answer}");
    let second = eventually("a second model is in the registry", || {
        let (_, answer) = admin(&url, "/admin/models", None);
        let versions = answer["models"]
            .as_array()?
            .iter()
            .filter_map(|model| model["version"].as_str());
        versions
            .filter(|&version| version != first)
            .max()
            .map(str::to_owned)
    });

    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..ASKING)
            .map(|who| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || ask_on(url, who, stop))
            })
            .collect();
        let begun = Instant::now();
        let until = |share: f64| {
            let due = whole.mul_f64(share);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        };
        // Whatever fails in here must end the asking, too.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(0.1);
            swap(&url, &second);
            until(0.2);
            swap(&url, &first);
            until(0.3);
            broker.stop();
            println!("the broker is away for {away:?}");
            std::thread::sleep(away);
            // On a busy machine it may take longer than one attempt waits.
            eventually("the broker answers again", || broker.restart().ok());
            println!(
                "the broker is back; {} logs wait",
                metric(&url, "marquee_request_log_spool_records")
            );
            until(0.8);
            swap(&url, &second);
            until(1.0);
        }));
        stop.store(true, Ordering::Relaxed);
        let mut all = Asked::default();
        for one in asking {
            let one = one.join().unwrap();
            for (status, count) in one.statuses {
                *all.statuses.entry(status).or_default() += count;
            }
            all.request_ids.extend(one.request_ids);
        }
        if let Err(cause) = told {
            std::panic::resume_unwind(cause);
        }
        all
    });
    eventually("all logs are delivered", || {
        let accepted = metric(&url, "marquee_request_logs_accepted_total");
        let delivered = metric(&url, "marquee_request_logs_delivered_total");
        let waiting = metric(&url, "marquee_request_log_spool_records");
        (delivered >= accepted && waiting == 0.0).then_some(())
    });
    let spooled = metric(&url, "marquee_request_logs_spooled_total");
    println!("{:?} by status, {spooled} logs went by the spool", asked.statuses);
    assert_eq!(
        asked.statuses.keys().collect::<Vec<_>>(),
        [&200],
        "{:?}",
        asked.statuses
    );
    assert!(spooled > 0.0, "the outage was too short to matter");
    let logged: HashSet<String> = records::<RequestLog>(&marquee.bus())
        .into_iter()
        .map(|log| log.request_id)
        .collect();
    let missing = asked.request_ids.difference(&logged).count();
    assert_eq!(missing, 0, "of {} answered lists", asked.request_ids.len());
    println!("{} lists answered, each in the log", asked.request_ids.len());
}
