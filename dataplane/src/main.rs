//! `lanesplitd`: parse arguments, set up the log, run.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dataplane::config::{self, Config, ConfigError};
use dataplane::control::{self, Answer, Request};
use dataplane::daemon::{self, DaemonError};
use dataplane::status::Status;
use tracing_subscriber::EnvFilter;

/// The Lanesplit gateway: keeps short flows from queueing behind long ones.
#[derive(Parser)]
#[command(name = "lanesplitd", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM; SIGHUP reads the configuration again
    Run {
        /// Configuration file
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
        /// Print the last counters as JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Find everything that is wrong with a configuration, without touching a port
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE.toml")]
        config: PathBuf,
    },
    /// Ask the running gateway how it is
    Status(StatusArguments),
}

#[derive(Args)]
struct StatusArguments {
    /// Configuration file that names the control socket; without it, the default socket is asked
    #[arg(long, value_name = "FILE.toml", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The control socket itself
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The exit status for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, json } => run(&config, json),
        Command::Check { config } => check(&config),
        Command::Status(arguments) => status(&arguments),
    }
}

fn run(path: &Path, json: bool) -> ExitCode {
    let level = Config::load(path).map(|config| config.log_level).unwrap_or("info".to_owned());
    let filter = EnvFilter::try_from_env("LANESPLIT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    end_the_process_when_a_thread_panics();
    match daemon::run(path) {
        Ok(status) => print(&status, json),
        Err(DaemonError::Config(error)) => complain_of_config(&error),
        Err(error) => complain(&error.to_string()),
    }
}

fn check(path: &Path) -> ExitCode {
    match daemon::check(path) {
        Ok(()) => {
            let _ = writeln!(std::io::stdout(), "{}: good", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => complain_of_config(&error),
    }
}

fn status(arguments: &StatusArguments) -> ExitCode {
    let socket = match (&arguments.socket, &arguments.config) {
        (Some(socket), _) => socket.clone(),
        (None, Some(path)) => match Config::load(path) {
            Ok(config) => config.control_socket,
            Err(error) => return complain_of_config(&error),
        },
        (None, None) => Config::defaults().control_socket,
    };
    match control::ask(&socket, &Request::Status) {
        Ok(Answer::Status(status)) => print(&status, arguments.json),
        Ok(Answer::Error { message }) => complain(&message),
        Err(error) => complain(&format!(
            "no answer at the control socket {}: {error}. Is lanesplitd running, and may you read the \
             socket? --config or --socket names another one",
            socket.display()
        )),
    }
}

fn print(status: &Status, json: bool) -> ExitCode {
    let printed = if json {
        serde_json::to_string_pretty(status)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(std::io::stdout(), "{text}"))
    } else {
        write!(std::io::stdout(), "{status}")
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot write to standard output: {error}")),
    }
}

fn complain(message: &str) -> ExitCode {
    eprintln!("lanesplitd: {message}");
    ExitCode::FAILURE
}

fn complain_of_config(error: &ConfigError) -> ExitCode {
    eprintln!("lanesplitd: {error}");
    if let ConfigError::Problems(problems) = error {
        config::show(problems);
    }
    ExitCode::from(BAD_CONFIGURATION)
}

/// Half a gateway is worse than none: without this process the kernel carries the traffic.
fn end_the_process_when_a_thread_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
