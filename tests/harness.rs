//! A city to test with, and a client of its doors.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The password of every official that tests enrol.
pub const PASSWORD: &str = "kuda meja awan tujuh belas";

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
        City::start_in(tempfile::tempdir().unwrap(), more, &[])
    }

    /// A city in a directory that was made ready, started under another program.
    pub fn start_in(directory: TempDir, more: &[&str], under: &[&str]) -> City {
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
        city.launch_under(under);
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

    fn spawn(&self) -> Child {
        let _ = std::fs::remove_file(self.ready_file());
        let mut words = self.under.iter().map(String::as_str).chain([program()]);
        Command::new(words.next().unwrap())
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
            .unwrap()
    }

    /// Starts the process, and ends it at once after a while; whether it was not ready yet.
    pub fn begin(&mut self, lives: Duration) -> bool {
        let mut child = self.spawn();
        std::thread::sleep(lives);
        let is_starting = !self.ready_file().exists();
        child.kill().unwrap();
        child.wait().unwrap();
        is_starting
    }

    /// Starts the process (again, on the same data).
    pub fn launch(&mut self) {
        let mut child = self.spawn();
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
        self.hang_up();
    }

    /// Lets go of the connections to it; another is made when it is asked again.
    pub fn hang_up(&mut self) {
        let ca = std::fs::read(self.ca()).unwrap();
        self.client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
    }

    /// The process's own number.
    pub fn process_id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
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
        self.send_with(method, path, who, body, &[])
    }

    /// The same with more headers.
    pub fn send_with(
        &self,
        method: &str,
        path: &str,
        who: &str,
        body: Option<(&str, Vec<u8>)>,
        headers: &[(&str, &str)],
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
        for (name, value) in headers {
            request = request.header(*name, *value);
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

    /// Enrols an official through the front door, with [`PASSWORD`]; gives a session's token.
    pub fn enrol_official(&self, login: &str, department: &str, roles: &[&str]) -> String {
        let body = serde_json::json!({"kind": "official", "login": login, "department": department, "roles": roles});
        let enrolled = self.act("admin", "principal.enrol", body);
        assert_eq!(enrolled.status, 200, "{}", enrolled.text);
        let code = enrolled.json()["answer"]["code"].clone();
        let chosen = serde_json::json!({"code": code, "password": PASSWORD});
        let redeemed = self.post("/api/v1/redeem", "", &chosen);
        assert_eq!(redeemed.status, 201, "{}", redeemed.text);
        redeemed.json()["token"].as_str().unwrap().to_owned()
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

/// A client of the MQTT door that publishes one reading after the other (version 3.1.1).
pub struct Mqtt {
    stream: Tls,
    next: u16,
}

impl Mqtt {
    /// Connects and signs in; none when that does not work, as while the city is down.
    pub fn connect(city: &City, login: &str, token: &str) -> Option<Mqtt> {
        let mut client = Mqtt::dial(city)?;
        client.send(&connect_packet(login, token))?;
        (client.answer()? == [0x20, 2, 0, 0]).then_some(client)
    }

    /// Connects, signs in and publishes in one write, as clients do that wait for nothing; the two answers.
    pub fn all_at_once(
        city: &City,
        login: &str,
        token: &str,
        topic: &str,
        payload: &str,
    ) -> Option<[[u8; 4]; 2]> {
        let mut client = Mqtt::dial(city)?;
        let publish = packet(0x32, &[text(topic).as_slice(), &[0, 1], payload.as_bytes()]);
        client.send(&[connect_packet(login, token), publish].concat())?;
        Some([client.answer()?, client.answer()?])
    }

    fn dial(city: &City) -> Option<Mqtt> {
        Some(Mqtt { stream: tls(city, &city.mqtt_port())?, next: 0 })
    }

    /// Asks whether the city is there; the answer's kind, none when the connection has ended.
    pub fn ping(&mut self) -> Option<u8> {
        use std::io::Read;
        self.send(&[0xc0, 0])?;
        let mut answer = [0; 2];
        self.stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    /// Publishes at quality of service 1; none unless it is acknowledged.
    pub fn publish(&mut self, topic: &str, payload: &str) -> Option<()> {
        self.next = self.next.wrapping_add(1).max(1);
        let id = self.next.to_be_bytes();
        self.send(&packet(0x32, &[text(topic).as_slice(), &id, payload.as_bytes()]))?;
        (self.answer()? == [0x40, 2, id[0], id[1]]).then_some(())
    }

    fn send(&mut self, packets: &[u8]) -> Option<()> {
        use std::io::Write;
        self.stream.write_all(packets).ok()?;
        self.stream.flush().ok()
    }

    /// An answer of four bytes: a CONNACK or a PUBACK of version 3.1.1.
    fn answer(&mut self) -> Option<[u8; 4]> {
        use std::io::Read;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).ok()?;
        Some(answer)
    }
}

/// A connection to a door, that says what a test wants and when.
pub type Tls = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;

/// Connects to a door of the city; none when that does not work.
pub fn tls(city: &City, port: &str) -> Option<Tls> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(city.ca()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let socket = std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).ok()?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    Some(rustls::StreamOwned::new(connection, socket))
}

fn connect_packet(login: &str, token: &str) -> Vec<u8> {
    let head = [text("MQTT").as_slice(), &[4, 0xc2, 0, 0]].concat();
    packet(0x10, &[&head, &text("test"), &text(login), &text(token)])
}

/// A packet of less than 16 KiB.
fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).unwrap();
    [&[kind, (length & 127) as u8 | 128, (length >> 7) as u8], body.as_slice()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [u16::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
}

/// Receives notifications: every one with its head, as it was sent.
pub fn receiver(listener: std::net::TcpListener) -> std::sync::mpsc::Receiver<(String, Value)> {
    use std::io::Write;
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                while let Some(one) = notification(&stream) {
                    if sender.send(one).is_err()
                        || (&stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    received
}

fn notification(mut stream: &std::net::TcpStream) -> Option<(String, Value)> {
    use std::io::Read;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}
