//! What a person types: the command line, one file a command.

mod attach;
mod check;
mod clean;
mod down;
mod features;
mod instances;
mod logs;
mod next;
mod reach;
mod reload;
mod repl;
pub mod run;
mod test;
mod up;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::kernel::bpf::verifier;
use crate::report::{self, LogFormat};

/// Exit statuses, as the contract has them.
pub mod status {
    pub const DONE: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const MISSING: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
}

/// Build Linux networks and steer their packets with eBPF, from Lua.
///
/// Without SCRIPT or a command: an interactive prompt.
#[derive(Parser)]
#[command(
    name = "cnfscript",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases that Lua files register with test.case
    Test(test::TestArgs),
    /// Show what this kernel and these privileges give, and what is done without it
    Features(features::FeaturesArgs),
    /// Write completions for a shell to standard output
    Completions(write::CompletionsArgs),
    /// Write the type stubs of the Lua modules, for editors with the Lua language server, to a directory
    Types(write::TypesArgs),
    /// Rehearse a script in throw-away namespaces: what it would create, every error, nothing left
    Check(check::CheckArgs),
    /// Run a script in the background
    Up(up::UpArgs),
    /// Show instances: what they own and how they are
    Status(instances::StatusArgs),
    /// Load an instance's script again, in its place
    Reload(reload::ReloadArgs),
    /// Type into a running instance: a prompt inside it; :reload loads its script again, Ctrl-D detaches
    Attach(attach::AttachArgs),
    /// Show what a background instance has said
    Logs(logs::LogsArgs),
    /// Tear an instance down
    Down(down::DownArgs),
    /// Remove what killed instances left behind
    Clean(clean::CleanArgs),
}

impl Cli {
    /// Whether another process of ours started this one, and shares its files.
    fn is_worker(&self) -> bool {
        match &self.command {
            Some(Command::Test(args)) => args.is_worker(),
            Some(Command::Up(args)) => args.is_second(),
            _ => false,
        }
    }
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Say more; twice: trace
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Write all that the verifier says of programs it refuses to a file
    #[arg(long, global = true, value_name = "FILE")]
    verifier_log: Option<PathBuf>,
    /// How much memory Lua may use
    #[arg(long, default_value = "1g", global = true, value_name = "SIZE", value_parser = memory)]
    memory: usize,
}

fn memory(text: &str) -> Result<usize, String> {
    match crate::api::option::parse_size(text) {
        Some(bytes) if bytes >= 4 << 20 => Ok(bytes as usize),
        Some(_) => Err("a script needs at least 4m".into()),
        None => Err("not a size; write \"256m\" or \"1g\"".into()),
    }
}

/// The names of all commands.
fn commands() -> Vec<String> {
    let cli = <Cli as clap::CommandFactory>::command();
    cli.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbosity = if cli.common.quiet { -1 } else { cli.common.verbose as i8 };
    report::start(verbosity, cli.common.log_format);
    if let Some(path) = &cli.common.verifier_log
        && let Err(error) = verifier::keep_logs(path, !cli.is_worker())
    {
        report::error(&error, None);
        return ExitCode::from(status::USAGE);
    }
    match cli.command {
        Some(Command::Test(args)) => ExitCode::from(test::test(&args, &cli.common)),
        Some(Command::Features(args)) => ExitCode::from(features::features(&args)),
        Some(Command::Completions(args)) => ExitCode::from(write::completions(&args)),
        Some(Command::Types(args)) => ExitCode::from(write::types(&args)),
        Some(Command::Check(args)) => ended(check::check(&args, &cli.common)),
        Some(Command::Up(args)) => ExitCode::from(up::up(&args, &cli.common)),
        Some(Command::Status(args)) => ended(instances::status(&args)),
        Some(Command::Reload(args)) => ended(reload::reload(&args)),
        Some(Command::Attach(args)) => ended(attach::attach(&args)),
        Some(Command::Logs(args)) => ended(logs::logs(&args, &cli.common)),
        Some(Command::Down(args)) => ended(down::down(&args)),
        Some(Command::Clean(args)) => ended(clean::clean(&args)),
        None => ExitCode::from(run::run(&cli.run, &cli.common)),
    }
}

/// The exit status of a command, and its error printed.
fn ended(outcome: crate::Result<u8>) -> ExitCode {
    ExitCode::from(outcome.unwrap_or_else(|error| {
        report::error(&error, None);
        status::FAILED
    }))
}
