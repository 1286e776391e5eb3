//! What others do with the same data on the same machine in the same run, where they are installed:
//! PostgreSQL, VictoriaMetrics and Mosquitto from Debian. None of them decides, records or encrypts.

use crate::client::{Connection, request};
use crate::history::{self, SERIES};
use crate::process::Process;
use crate::{Figures, load, mqtt};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const VICTORIA: &str = "VictoriaMetrics, 1,000 a request, acknowledged before it is durable";
const VICTORIA_JSON: &str =
    "VictoriaMetrics in JSON, 1,000 a request, acknowledged before it is durable";

/// Rows and samples: as many as `ingest` sends, and the same.
fn rows() -> usize {
    history::points() * SERIES
}

fn find(program: &str, more: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = more.iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|d| d.join(program)).find(|p| p.exists())
}

fn port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn up(address: SocketAddr) -> anyhow::Result<()> {
    let since = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        anyhow::ensure!(since.elapsed() < Duration::from_secs(20), "a peer does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let postgres = postgres(figures).await;
    let victoria = victoria(figures).await;
    let mosquitto = mosquitto(figures).await;
    for (name, ended) in
        [("PostgreSQL", postgres), ("VictoriaMetrics", victoria), ("Mosquitto", mosquitto)]
    {
        if let Err(error) = ended {
            eprintln!("{name} is left out: {error:#}");
        }
    }
    const EACH: &str = ": per CPU-second of the server";
    for (name, ours, theirs) in [
        (
            "batch ingest to PostgreSQL's COPY",
            "batch ingest, HTTPS, 1,000 a request, durable,",
            "PostgreSQL, COPY of 1,000 rows a commit",
        ),
        (
            "batch ingest to VictoriaMetrics in its own text, which is not durable",
            "batch ingest, HTTPS, 1,000 a request, durable,",
            VICTORIA,
        ),
        (
            "batch ingest to VictoriaMetrics in JSON, which is not durable",
            "batch ingest, HTTPS, 1,000 a request, durable,",
            VICTORIA_JSON,
        ),
        (
            "MQTT to Mosquitto",
            "MQTT QoS 1, one reading a message, 100 devices, durable",
            "Mosquitto, QoS 1, in memory, no TLS",
        ),
    ] {
        if let (Some(ours), Some(theirs)) = (figures.value(ours, EACH), figures.value(theirs, EACH))
        {
            figures.add(format!("{name}, per CPU-second"), ours / theirs, "ratio");
        }
    }
    Ok(())
}

/// Runs as the user `postgres` when we are root, for its server will not.
fn as_user(program: &Path, is_root: bool) -> Command {
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

async fn postgres(figures: &mut Figures) -> anyhow::Result<()> {
    let bin = ["/usr/lib/postgresql/15/bin"];
    let (Some(initdb), Some(server), Some(psql)) =
        (find("initdb", &bin), find("postgres", &bin), find("psql", &bin))
    else {
        anyhow::bail!("not installed");
    };
    let directory = tempfile::tempdir()?;
    let is_root = Command::new("id").arg("-u").output()?.stdout.starts_with(b"0\n");
    if is_root {
        Command::new("chown").arg("postgres").arg(directory.path()).status()?;
    }
    let data = directory.path().join("data");
    let made = as_user(&initdb, is_root)
        .args(["-A", "trust", "-U", "bench", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(made.success(), "initdb");
    let port = port()?.to_string();
    let child = as_user(&server, is_root)
        .args([
            "-p",
            &port,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-D",
        ])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let process = Stopped(Process(child));
    up(SocketAddr::from(([127, 0, 0, 1], port.parse()?))).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut script = String::from(
        "create table readings (series int, at timestamptz, value double precision, primary key (series, at));\n",
    );
    for start in (0..rows()).step_by(1_000) {
        script += "copy readings from stdin;\n";
        for row in start..start + 1_000 {
            let (series, point) = (row % SERIES, row / SERIES);
            let second = history::second(point, history::points());
            script += &format!(
                "{series}\t2026-02-01 {:02}:{:02}:{:02}+00\t{:.1}\n",
                second / 3_600,
                second / 60 % 60,
                second % 60,
                history::level(series, point) as f64 / 10.0
            );
        }
        script += "\\.\n";
    }
    let before = process.0.cpu_s();
    let client = |script: &str| {
        let since = Instant::now();
        let mut client = Command::new(&psql)
            .args(["-q", "-h", "127.0.0.1", "-U", "bench", "-p", &port, "-d", "postgres"])
            .stdin(Stdio::piped())
            .spawn()?;
        client.stdin.take().map(|mut input| input.write_all(script.as_bytes())).transpose()?;
        anyhow::ensure!(client.wait()?.success(), "psql");
        anyhow::Ok(since.elapsed().as_secs_f64())
    };
    let wall = client(&script)?;
    client("checkpoint;\n")?;
    let cpu = process.0.settled_cpu_s().await - before;
    figures.rate("PostgreSQL, COPY of 1,000 rows a commit", "rows/s", rows() as f64, wall, cpu);
    Ok(())
}

/// A server that children outlive when it is killed: it is told to stop.
struct Stopped(Process);

impl Drop for Stopped {
    fn drop(&mut self) {
        let id = self.0.0.id().to_string();
        drop(Command::new("pkill").args(["-INT", "-P", &id]).status());
        drop(Command::new("kill").args(["-INT", &id]).status());
        drop(self.0.0.wait());
    }
}

async fn victoria(figures: &mut Figures) -> anyhow::Result<()> {
    let program = find("victoria-metrics", &[]).ok_or_else(|| anyhow::anyhow!("not installed"))?;
    let directory = tempfile::tempdir()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port()?));
    let child = Command::new(program)
        .arg(format!("-storageDataPath={}", directory.path().join("data").display()))
        .args([&format!("-httpListenAddr={address}"), "-retentionPeriod=100y"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let process = Process(child);
    up(address).await?;
    // Its own text, and JSON like ours.
    let line = |series: usize, at: usize, level: f64| {
        format!("level{{series=\"{series}\"}} {level:.1} {at}000\n")
    };
    let json = |series: usize, at: usize, level: f64| {
        format!(
            "{{\"metric\":{{\"__name__\":\"level\",\"series\":\"{series}\"}},\"values\":[{level:.1}],\"timestamps\":[{at}000]}}\n"
        )
    };
    type Line<'a> = &'a dyn Fn(usize, usize, f64) -> String;
    let ways: [(&str, &str, usize, Line<'_>); 2] = [
        (VICTORIA, "/api/v1/import/prometheus", 1_769_904_000, &line),
        // Of the month after, so that nothing is there yet.
        (VICTORIA_JSON, "/api/v1/import", 1_772_323_200, &json),
    ];
    for (name, path, from, write) in ways {
        let body = |batch: usize| {
            let sample = |n: usize| {
                let (series, point) = ((batch * 1_000 + n) % SERIES, (batch * 1_000 + n) / SERIES);
                let at = from + history::second(point, history::points());
                write(series, at, history::level(series, point) as f64 / 10.0)
            };
            request("POST", path, "", (0..1_000).map(sample).collect::<String>().as_bytes())
        };
        let bodies: Vec<Vec<u8>> = (0..rows() / 1_000).map(body).collect();
        let mut connections = Vec::new();
        for _ in 0..history::CONNECTIONS {
            connections.push(Connection::open(address, None).await?);
        }
        let before = process.settled_cpu_s().await;
        let wall = load::send_all(connections, bodies).await?;
        let cpu = process.settled_cpu_s().await - before;
        figures.rate(name, "samples/s", rows() as f64, wall, cpu);
    }
    Ok(())
}

async fn mosquitto(figures: &mut Figures) -> anyhow::Result<()> {
    let program =
        find("mosquitto", &["/usr/sbin"]).ok_or_else(|| anyhow::anyhow!("not installed"))?;
    let directory = tempfile::tempdir()?;
    let port = port()?;
    let config = directory.path().join("mosquitto.conf");
    std::fs::write(
        &config,
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
        ),
    )?;
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let process = Process(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    up(address).await?;
    let (messages, wall, cpu, _) =
        mqtt::many(&(address, None), &[Default::default()], "in/test", &process).await?;
    figures.rate("Mosquitto, QoS 1, in memory, no TLS", "messages/s", messages, wall, cpu);
    Ok(())
}
