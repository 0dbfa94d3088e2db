//! The registry in a bucket of an S3-compatible server instead of a folder.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use marquee_schemas::{ModelEvent, ModelEventKind};
use marquee_testkit::{Foreign, Guarded, python_with, required};

use crate::harness::{
    Marquee, ask_for_training, beginning_of_ml_100k, data_dir, eventually, records, tool_in,
};

const REQUIREMENTS: &str = "moto[server,s3]==5.2.5";

#[test]
fn models_may_lie_in_a_bucket() {
    let Some(data) = data_dir() else { return };
    let Some(python) = required(python_with(REQUIREMENTS), Foreign::REQUIRE) else {
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let mut command = Command::new(python);
    command
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Guarded::spawn(&mut command).unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    eventually("the server makes a bucket", || {
        ureq::put(format!("{endpoint}/models")).send_empty().ok()
    });
    let environment = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "marquee"),
        ("AWS_SECRET_ACCESS_KEY", "marquee"),
        ("MARQUEE_MODEL_STORE", "s3://models/marquee"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let args = beginning_of_ml_100k(&data, "1/s");
    let mut marquee = Marquee::up_in(&environment, &state, None, &args);
    marquee.wait_model();
    let bus = marquee.bus();
    let request = ask_for_training(&bus, "a second version for the bucket");
    eventually("the second version is trained", || {
        let done = |event: &ModelEvent| {
            event.kind == ModelEventKind::Trained
                && event.retrain_event_id.as_deref() == Some(&request.event_id)
        };
        records::<ModelEvent>(&bus).iter().any(done).then_some(())
    });
    marquee.kill_9();

    let mut marquee = Marquee::up_in(&environment, &state, None, &args);
    marquee.wait_model();
    let listed = tool_in(&environment, &state, &["models", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("v000001") && listed.contains("v000002"),
        "{listed}"
    );
    assert!(
        !state.join("models").exists(),
        "nothing lies in the state directory"
    );
}
