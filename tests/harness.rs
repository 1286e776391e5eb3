//! A city to test with, and a client of its doors.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest a city may take to start, in seconds: a debug build on a busy machine.
const START_S: u64 = 90;

pub struct City {
    child: Option<Child>,
    pub directory: TempDir,
    pub ready: Value,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    arguments: Vec<String>,
    /// What the program is started under: a program and its arguments.
    under: Vec<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The index of the receipt.
    pub fn receipt(&self) -> u64 {
        self.header("tanggul-receipt").split(';').next().unwrap().parse().unwrap()
    }
}

pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_tanggul")
}

/// Runs the program to its end.
pub fn tanggul(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl City {
    /// A city with a few simulated devices.
    pub fn start() -> City {
        City::start_with(&["--devices", "0"])
    }

    pub fn start_with(more: &[&str]) -> City {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut city = City {
            child: None,
            directory,
            ready: Value::Null,
            runtime,
            client: reqwest::Client::new(),
            arguments: more.iter().map(|argument| (*argument).to_owned()).collect(),
            under: Vec::new(),
        };
        city.launch();
        city
    }

    /// Starts it again under another program, such as `strace`.
    pub fn launch_under(&mut self, under: &[&str]) {
        self.under = under.iter().map(|word| (*word).to_owned()).collect();
        self.launch();
        self.under.clear();
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn ready_file(&self) -> PathBuf {
        self.directory.path().join("ready.json")
    }

    /// Starts the process (again, on the same data).
    pub fn launch(&mut self) {
        let _ = std::fs::remove_file(self.ready_file());
        let mut words = self.under.iter().map(String::as_str).chain([program()]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .args(["demo", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
            .arg("--data")
            .arg(self.data())
            .arg("--ready-file")
            .arg(self.ready_file())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = child.stderr.take().unwrap();
        let show = std::thread::spawn(move || {
            BufReader::new(errors).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
        });
        let since = Instant::now();
        while !self.ready_file().exists() {
            if child.try_wait().unwrap().is_some() {
                panic!("the city ended: {}", show.join().unwrap());
            }
            assert!(since.elapsed() < Duration::from_secs(START_S), "the city does not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
        let text = std::fs::read_to_string(self.ready_file()).unwrap();
        self.ready = serde_json::from_str(&text).unwrap();
        let ca = std::fs::read(self.ready["ca"].as_str().unwrap()).unwrap();
        self.client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends the process in order.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
            assert!(child.wait().unwrap().success());
        }
    }

    pub fn url(&self) -> &str {
        self.ready["https"].as_str().unwrap()
    }

    pub fn token(&self, name: &str) -> String {
        self.ready["tokens"][name].as_str().unwrap().to_owned()
    }

    /// One request. `who` is a token's name in the ready file, a token itself, or empty; after a
    /// `:` may come a purpose.
    pub fn call(&self, method: &str, path: &str, who: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        self.send(method, path, who, body)
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        who: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Answer {
        let (who, purpose) = who.split_once(':').unwrap_or((who, ""));
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url()));
        if !who.is_empty() {
            let known = self.ready["tokens"][who].as_str();
            request = request.bearer_auth(known.unwrap_or(who));
        }
        if !purpose.is_empty() {
            request = request.header("Tanggul-Purpose", purpose);
        }
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answer { status, headers, text: response.text().await.unwrap() }
        })
    }

    pub fn get(&self, path: &str, who: &str) -> Answer {
        self.call("GET", path, who, None)
    }

    pub fn post(&self, path: &str, who: &str, body: &Value) -> Answer {
        self.call("POST", path, who, Some(body))
    }

    /// Does an act; gives the whole answer.
    pub fn act(&self, who: &str, name: &str, body: Value) -> Answer {
        self.post("/api/v1/acts", who, &serde_json::json!({"act": name, "body": body}))
    }

    /// Enrols a device through the front door; gives its token.
    pub fn enrol_device(&self, login: &str, dataset: &str, stream: &str) -> String {
        let body = serde_json::json!({"login": login, "dataset": dataset, "streams": [stream]});
        let enrolled = self.act("steward", "device.enrol", body);
        assert_eq!(enrolled.status, 200, "{}", enrolled.text);
        let code = enrolled.json()["answer"]["code"].clone();
        let redeemed = self.post("/api/v1/redeem", "", &serde_json::json!({"code": code}));
        assert_eq!(redeemed.status, 201, "{}", redeemed.text);
        redeemed.json()["token"].as_str().unwrap().to_owned()
    }

    /// The arguments by which command-line tools reach the MQTT door.
    pub fn mqtt_port(&self) -> String {
        self.ready["mqtts"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    pub fn ca(&self) -> &str {
        self.ready["ca"].as_str().unwrap()
    }

    /// Calls until it gives something, for at most ten seconds.
    pub fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(since.elapsed() < Duration::from_secs(10), "it did not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the city and verifies it: nothing may be found.
    pub fn verify_clean(&mut self) {
        self.kill();
        let output = tanggul(&["verify", "--data", self.data().to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}{}",
            stdout(&output),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for City {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A tool from outside, where it is there.
pub fn tool(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/tools").join(path);
    path.exists().then_some(path)
}

/// The recorded data, where it is there.
pub fn recorded() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    path.exists().then_some(path)
}
