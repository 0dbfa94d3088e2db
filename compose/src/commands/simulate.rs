//! `marquee simulate`: users with a taste of their own answer the lists of a running instance.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use marquee_ingestor::simulator::{Session, Simulator, SimulatorConfig};
use marquee_runtime::{Clock, SystemClock};
use marquee_schemas::{Interaction, Kind, MovieId};
use serde::Deserialize;
use serde_json::json;

use crate::cli::{Common, SimulateArgs};
use crate::ingest;
use crate::instance::StateDir;

/// Parts of the simulation that are summed up by themselves, so that a change shows.
const PARTS: u64 = 10;

/// A list as the recommender answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Served {
    pub(super) request_id: String,
    pub(super) model_version: Option<String>,
    items: Vec<Item>,
}

impl Served {
    /// The movies, from the top.
    pub(super) fn movies(&self) -> Vec<MovieId> {
        self.items.iter().map(|item| item.movie_id).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Item {
    movie_id: MovieId,
}

#[derive(Debug, Default)]
struct Part {
    lists: u64,
    shown: u64,
    clicks: u64,
    ratings: u64,
    expected: f64,
}

pub(crate) async fn run(common: &Common, args: SimulateArgs) -> Result<()> {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let running = StateDir::new(&common.state_dir)?.running();
            let http = running.and_then(|instance| instance.http);
            format!(
                "http://{}",
                http.context("no instance runs on this state directory; give --url")?
            )
        }
    };
    let dataset = ingest::load(args.dataset.clone()).await?;
    let config = SimulatorConfig {
        seed: args.seed,
        users: args.users,
        scenario: args.scenario.clone(),
        ..SimulatorConfig::default()
    };
    let simulate = move || -> Result<()> {
        let simulator = Simulator::fit(&dataset, config)?;
        for (at, part) in visit(simulator, &url, &args)?.iter().enumerate() {
            let lists = part.lists.max(1) as f64;
            println!(
                "part {:>2}: {:>6} lists, click-through rate {:.4}, clicks per list {:.4} (expected {:.4}), {} ratings",
                at + 1,
                part.lists,
                part.clicks as f64 / part.shown.max(1) as f64,
                part.clicks as f64 / lists,
                part.expected / lists,
                part.ratings
            );
        }
        Ok(())
    };
    tokio::task::spawn_blocking(simulate).await?
}

fn visit(mut simulator: Simulator, url: &str, args: &SimulateArgs) -> Result<Vec<Part>> {
    let agent = ureq::Agent::new_with_defaults();
    let pause = Duration::from_secs_f64(1.0 / args.rate.clamp(0.001, 1e6));
    let mut parts: Vec<Part> = (0..PARTS).map(|_| Part::default()).collect();
    let begun = Instant::now();
    for n in 0..args.sessions {
        // Sessions begin at their times however long an answer takes.
        let due = pause.mul_f64(n as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let session = simulator.next_session();
        let part = usize::try_from(n * PARTS / args.sessions.max(1)).unwrap_or(0);
        let Some(part) = parts.get_mut(part) else {
            bail!("there are no parts");
        };
        for _ in 0..session.lists {
            let served = ask(&agent, url, &session, args.k)?;
            let list = served.movies();
            part.lists += 1;
            part.shown += list.len() as u64;
            part.expected += simulator.expected_clicks(&session, &list);
            let acts = simulator.answer(&session, &served.request_id, &list, SystemClock.now_ms());
            let of = |kind: Kind| acts.iter().filter(|act| act.kind == kind).count() as u64;
            part.clicks += of(Kind::Click);
            part.ratings += of(Kind::Rating);
            if !acts.is_empty() {
                tell(&agent, url, &acts)?;
            }
        }
    }
    Ok(parts)
}

/// Asks for a list on behalf of who came.
pub(super) fn ask(agent: &ureq::Agent, url: &str, session: &Session, k: u32) -> Result<Served> {
    let body = json!({
        "user_id": session.user_id,
        "k": k,
        "context": { "surface": "home", "session_id": session.session_id },
    });
    let text = post(agent, &format!("{url}/recommend"), &body.to_string())?;
    serde_json::from_str(&text).with_context(|| format!("unexpected answer: {text}"))
}

fn tell(agent: &ureq::Agent, url: &str, acts: &[Interaction]) -> Result<()> {
    post(agent, &format!("{url}/events"), &serde_json::to_string(acts)?).map(drop)
}

fn post(agent: &ureq::Agent, url: &str, body: &str) -> Result<String> {
    let mut response = agent
        .post(url)
        .header("content-type", "application/json")
        .send(body)
        .with_context(|| format!("POST {url}"))?;
    response.body_mut().read_to_string().context("reading the answer")
}
