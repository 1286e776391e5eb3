//! `tanggul`: the program. Command line, configuration, wiring.

mod certificates;
mod config;
mod demo;
mod doctor;
mod import;
mod offline;
mod running;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A sixth of a request's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The secure data hub of a city.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// Where a stopped hub lies.
#[derive(Args, Clone)]
pub struct Data {
    /// The data directory.
    #[arg(long)]
    data: PathBuf,
    /// The key directory, if not `DIR.keys`.
    #[arg(long)]
    keys: Option<PathBuf>,
}

/// How a running hub is reached.
#[derive(Args, Clone)]
pub struct Remote {
    /// Its address, such as `https://localhost:8443`.
    #[arg(long)]
    hub: Option<String>,
    /// Its CA certificate, as PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A file that holds a token.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a working city: hub, officials, datasets, devices.
    Demo {
        /// Where the city lies; a temporary directory unless given.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Address of the HTTPS door.
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Address of the MQTT door.
        #[arg(long)]
        mqtt: Option<SocketAddr>,
        /// Replay recorded data from this folder instead of simulating.
        #[arg(long)]
        replay: Option<PathBuf>,
        /// Configuration to lay over the demo's.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where to say, as JSON, that the doors are open.
        #[arg(long)]
        ready_file: Option<PathBuf>,
        /// How many devices.
        #[arg(long, default_value_t = 1_000)]
        devices: usize,
        /// Seed of the simulation.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the hub.
    Serve {
        #[arg(long)]
        config: PathBuf,
    },
    /// Print a new one-time code for somebody, while the hub is stopped: for whoever has no way in any more.
    Code {
        login: String,
        #[arg(long)]
        config: PathBuf,
    },
    /// Make an empty data directory and its keys.
    Init { data: PathBuf },
    /// Derive everything again, and name what does not fit (exit code 3).
    Verify {
        #[command(flatten)]
        data: Data,
        /// A checkpoint that was kept from earlier: the log must have grown out of it.
        #[arg(long)]
        since: Option<PathBuf>,
    },
    /// The log of acts.
    #[command(subcommand)]
    Log(LogCommand),
    /// Bring a file in, through the same door as everything else.
    Import {
        /// CSV, JSON lines or GeoJSON, gzip or not.
        file: PathBuf,
        /// What its columns mean (TOML).
        #[arg(long)]
        map: PathBuf,
        /// Read and check only; send nothing.
        #[arg(long)]
        dry_run: bool,
        /// The purpose it is written for.
        #[arg(long)]
        purpose: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print every limit by name, as a configuration sets them.
    Limits {
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Look at this machine and say what would keep a hub from working.
    Doctor {
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the API document.
    Openapi,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Write the log as files that other tools verify: `vkey`, `checkpoint`, `tile/`.
    Export {
        out: PathBuf,
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        keys: Option<PathBuf>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print the receipt of a record.
    Prove {
        index: u64,
        #[command(flatten)]
        data: Data,
    },
    /// Check a receipt offline.
    Check {
        receipt: PathBuf,
        /// The log's public key, as a file.
        #[arg(long)]
        vkey: PathBuf,
    },
    /// Check exported files, byte by byte.
    Verify {
        directory: PathBuf,
        /// A checkpoint that was kept from earlier: the log must have grown out of it.
        #[arg(long)]
        since: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the reference.
    Reference,
    /// Print a sample.
    Sample,
    /// Check a file.
    Check { file: PathBuf },
}

/// How a command ended: 0 done, 1 could not, 2 refused, 3 verification failed.
pub enum Ended {
    Done,
    Refused,
    Unverified,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("TANGGUL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tanggul=info,hub=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if matches!(cli.command, Command::Serve { .. }) {
        log.json().init()
    } else {
        log.init()
    }
    match run(cli) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Refused) => ExitCode::from(2),
        Ok(Ended::Unverified) => ExitCode::from(3),
        Err(error) => {
            eprintln!("tanggul: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Ended> {
    let output = cli.output;
    match cli.command {
        Command::Demo { data, listen, mqtt, replay, config, ready_file, devices, seed } => {
            let options =
                demo::DemoOptions { data, listen, mqtt, replay, config, ready_file, devices, seed };
            runtime()?.block_on(demo::run(options))?;
            Ok(Ended::Done)
        }
        Command::Serve { config } => {
            runtime()?.block_on(serve(&config))?;
            Ok(Ended::Done)
        }
        Command::Code { login, config } => {
            runtime()?.block_on(code(&login, &config))?;
            Ok(Ended::Done)
        }
        Command::Init { data } => {
            store::Files::new(&data, None).create()?;
            println!("made {} and its keys; keep the keys apart from the backups", data.display());
            Ok(Ended::Done)
        }
        Command::Verify { data, since } => offline::verify(&data, since.as_deref(), output),
        Command::Log(LogCommand::Export { out, data, keys, remote }) => {
            match (data, remote.hub.is_some()) {
                (Some(data), false) => offline::export(&Data { data, keys }, &out),
                (None, true) => runtime()?.block_on(offline::export_remote(&remote, &out)),
                _ => anyhow::bail!("give either `--data DIR` or `--hub URL`"),
            }
        }
        Command::Log(LogCommand::Prove { index, data }) => offline::prove(&data, index),
        Command::Log(LogCommand::Check { receipt, vkey }) => offline::check(&receipt, &vkey),
        Command::Log(LogCommand::Verify { directory, since }) => {
            offline::verify_export(&directory, since.as_deref(), output)
        }
        Command::Import { file, map, dry_run, purpose, remote } => {
            let options = import::ImportOptions { file, map, dry_run, purpose, remote };
            runtime()?.block_on(import::run(&options, output))
        }
        Command::Limits { config } => {
            doctor::limits(config.as_deref(), output)?;
            Ok(Ended::Done)
        }
        Command::Doctor { config } => doctor::run(config.as_deref(), output),
        Command::Config(ConfigCommand::Reference) => {
            print!("{}", config::reference());
            Ok(Ended::Done)
        }
        Command::Config(ConfigCommand::Sample) => {
            print!("{}", config::sample());
            Ok(Ended::Done)
        }
        Command::Config(ConfigCommand::Check { file }) => {
            config::Config::read(&file)?.context_documents()?;
            println!("{} fits", file.display());
            Ok(Ended::Done)
        }
        Command::Openapi => {
            println!("{:#}", server::openapi_document());
            Ok(Ended::Done)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// A new one-time code, recorded; whoever may read the key directory may make one.
async fn code(login: &str, path: &std::path::Path) -> anyhow::Result<()> {
    let config = config::Config::read(path)?;
    let data = config.data.clone();
    let data = data.ok_or_else(|| anyhow::anyhow!("`data` is missing from {}", path.display()))?;
    let files = store::Files::new(&data, config.keys.as_deref());
    anyhow::ensure!(files.exist(), "there is no hub in {} yet; start it", data.display());
    let options = running::hub_options(&config, None)?;
    let started = tokio::task::spawn_blocking(move || hub::Hub::start(files, options)).await?;
    let hub = started.map_err(|error| anyhow::anyhow!("{error}; stop the hub before"))?;
    let made = hub.sign_in_code(login).await;
    hub.stop().await;
    println!("the one-time code of {login}, good for a day:\n  {}", made?);
    Ok(())
}

async fn serve(path: &std::path::Path) -> anyhow::Result<()> {
    let config = config::Config::read(path)?;
    let data = config
        .data
        .clone()
        .ok_or_else(|| anyhow::anyhow!("`data` is missing from {}", path.display()))?;
    let running = running::start(&data, &config, None).await?;
    let ending = running::Ending::listen()?;
    let https = running::base_url("https", running.https);
    if running.hub.is_new() {
        let code = running.hub.first_code("admin").await?;
        // The one way in to a new hub: on the terminal, once.
        println!(
            "first start: set the administrator's password with the one-time code\n  {code}\nat {https}/#signin={code}"
        );
    }
    println!("listening on {https} and {}", running::base_url("mqtts", running.mqtts));
    ending.told().await;
    running.stop().await;
    Ok(())
}
