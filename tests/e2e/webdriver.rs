//! The few calls of the W3C WebDriver protocol that a test of the pages needs, over the HTTP client that is here
//! anyway: `chromedriver` does the rest.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use marquee_testkit::{Guarded, Unavailable};
use serde_json::{Value, json};

/// The protocol's name for a reference to an element (section 11 of the recommendation).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A headless Chromium with one tab; it ends with this value.
pub(crate) struct Browser {
    _driver: Guarded,
    _profile: tempfile::TempDir,
    session: String,
}

impl Browser {
    /// # Errors
    /// [`Unavailable`] where there is no `chromedriver` or it starts no browser.
    pub(crate) fn start(width: u32, height: u32) -> Result<Self, Unavailable> {
        let unavailable = |why: String| Unavailable {
            what: "headless Chromium",
            why,
        };
        let mut driver = Guarded::spawn(
            Command::new("chromedriver")
                .arg("--port=0")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        )
        .map_err(|error| unavailable(format!("chromedriver: {error}")))?;
        let output = driver
            .child()
            .stdout
            .take()
            .ok_or_else(|| unavailable("chromedriver says nothing".into()))?;
        let mut lines = BufReader::new(output).lines();
        let port: u16 = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            })
            .ok_or_else(|| unavailable("chromedriver names no port".into()))?;
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().map_err(|error| unavailable(error.to_string()))?;
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            format!("--window-size={width},{height}"), format!("--user-data-dir={}", profile.path().display()),
        ]});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let base = format!("http://127.0.0.1:{port}/session");
        let session = call("POST", &base, &wanted).map_err(unavailable)?;
        let id = session["sessionId"]
            .as_str()
            .ok_or_else(|| unavailable(session.to_string()))?;
        Ok(Self {
            session: format!("{base}/{id}"),
            _driver: driver,
            _profile: profile,
        })
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        call("POST", &format!("{}/{path}", self.session), body).unwrap()
    }

    pub(crate) fn go(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub(crate) fn js(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    pub(crate) fn text(&self) -> String {
        self.js("return document.body.innerText")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn find(&self, selector: &str) -> String {
        let element = self.command("element", &json!({"using": "css selector", "value": selector}));
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    pub(crate) fn click(&self, selector: &str) {
        self.command(&format!("element/{}/click", self.find(selector)), &json!({}));
    }

    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        self.command(
            &format!("element/{}/value", self.find(selector)),
            &json!({ "text": text }),
        );
    }

    /// Leaves a picture of the tab among the build's temporary files, where continuous integration may keep it.
    pub(crate) fn picture(&self, name: &str) -> PathBuf {
        use base64::Engine as _;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let encoded = call("GET", &format!("{}/screenshot", self.session), &Value::Null).unwrap();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded.as_str().unwrap())
            .unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(call("DELETE", &self.session, &Value::Null));
    }
}

/// The `value` of an answer, or what is wrong in the protocol's own words.
fn call(method: &str, url: &str, body: &Value) -> Result<Value, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    let response = match method {
        "GET" => agent.get(url).call(),
        "DELETE" => agent.delete(url).call(),
        _ => agent
            .post(url)
            .header("content-type", "application/json")
            .send(body.to_string()),
    };
    let mut response = response.map_err(|error| error.to_string())?;
    let text = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string()
        .map_err(|error| error.to_string())?;
    let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    if response.status().is_success() {
        Ok(answer["value"].take())
    } else {
        Err(answer["value"].to_string())
    }
}
