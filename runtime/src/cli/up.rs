//! `cnfscript up SCRIPT`: a script in the background, as an instance with a name, a log and a control socket.
//!
//! `up` starts itself again with a hidden flag, in a session of its own, and waits at a pipe until the script is set up
//! or has failed. With --foreground there is no second process: that is for a service manager.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::run::{self, Recovery, RunArgs};
use super::{Common, instances, reach, status};
use crate::life::control::Control;
use crate::life::generation;
use crate::life::log;
use crate::life::outside::{Outside, READY, Waiting};
use crate::life::script::{self, Script};
use crate::life::socket::{Socket, wire};
use crate::own::instance::{self, Claim, Instances};
use crate::own::{Ledger, counted};
use crate::stop::StopFlag;
use crate::{Error, Result, report};

const OP: &str = "up";
/// What the second process says when it has taken the name: from then on its errors are in its log.
const CLAIMED: &[u8] = b"claimed\n";
/// How long an instance may take to say what it owns.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub struct UpArgs {
    /// The script
    #[arg(value_name = "SCRIPT")]
    script: PathBuf,
    /// The instance's name; the script's file stem by default
    #[arg(long)]
    name: Option<String>,
    /// Load the script again whenever one of its files is saved
    #[arg(long)]
    watch: bool,
    /// How long a load other than the first may take until it is set up, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = run::seconds)]
    load_timeout: Duration,
    /// Stay: for systemd, which is told when the script is set up
    #[arg(long)]
    foreground: bool,
    /// This is the second process
    #[arg(long, hide = true)]
    detached: bool,
    /// What the script finds in cnf.args
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub fn up(args: &UpArgs, common: &Common) -> u8 {
    if args.foreground || args.detached {
        return serve(args, common);
    }
    // What cannot be run is told before anything is started.
    let name = match name_of(args) {
        Ok(name) => name,
        Err(error) => {
            report::error(&error, None);
            return status::USAGE;
        }
    };
    start(&name, common).unwrap_or_else(|error| {
        report::error(&error, None);
        status::FAILED
    })
}

impl UpArgs {
    /// Whether `up` started this process.
    pub fn is_second(&self) -> bool {
        self.detached
    }

    fn run_args(&self) -> RunArgs {
        RunArgs {
            script: Some(self.script.clone()),
            execute: None,
            name: self.name.clone(),
            watch: self.watch,
            load_timeout: self.load_timeout,
            args: self.args.clone(),
        }
    }
}

/// The instance's name, of a script that can be read.
fn name_of(args: &UpArgs) -> Result<String> {
    if args.script.as_os_str() == "-" {
        return Err(Error::invalid(OP, "a script in the background is a file").subject("-"));
    }
    let name = run::prepare(OP, &args.run_args())?.0.name;
    instance::check_name(&name)?;
    Ok(name)
}

/// The first process: starts the second and tells what came of it.
fn start(name: &str, common: &Common) -> Result<u8> {
    let before = Instances::here().get(name)?;
    // As long as nobody has taken it over.
    let left = before
        .as_ref()
        .and_then(|found| Some((instances::left(found)?, found.record.as_ref()?.pid)));
    let already_logged = before
        .as_ref()
        .and_then(|found| found.paths.log().metadata().ok())
        .map_or(0, |metadata| metadata.len());
    let mut child = spawn()?;
    forward_signals(&child)?;
    let mut pipe = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut said = || {
        let mut line = Vec::new();
        let _ = pipe.read_until(b'\n', &mut line);
        line
    };
    let claimed = said() == CLAIMED;
    if claimed && said() == READY && tell(name, common) {
        if let Some((left, pid)) = left.filter(|_| !common.quiet) {
            let left = counted(&left);
            let _ = writeln!(
                io::stdout(),
                "{name} took over what process {pid}, which had died, left: {left}"
            );
        }
        return Ok(status::DONE);
    }
    let code = child.wait().map_err(|e| Error::io(OP, &e))?.code();
    if claimed {
        show_log(name, already_logged);
    }
    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(status::FAILED);
    if code == status::DONE && !common.quiet {
        let _ = writeln!(io::stdout(), "{name} has ended: it owned nothing and waited for nothing");
    }
    Ok(code)
}

/// The same command line, as the second process: `/proc/self/exe` is this binary even when it was replaced meanwhile.
fn spawn() -> Result<Child> {
    let mut words: Vec<_> = std::env::args_os().collect();
    let place = words.iter().position(|word| word == "up").expect("the command that runs");
    words.insert(place + 1, "--detached".into());
    Command::new("/proc/self/exe")
        .arg0(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io(OP, &e))
}

/// Ctrl-C while the script is being set up ends it, though it is in another session.
fn forward_signals(child: &Child) -> Result<()> {
    let pid = Pid::from_raw(child.id() as i32);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(|e| Error::io("signals", &e))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = kill(pid, Signal::SIGTERM);
        }
    });
    Ok(())
}

/// Says what is up; false if it has ended since.
fn tell(name: &str, common: &Common) -> bool {
    let limit = Instant::now() + PATIENCE;
    loop {
        let Ok(Some(found)) = Instances::here().get(name) else { return false };
        let asked = reach::Connection::open(OP, &found, Some(PATIENCE))
            .and_then(|mut connection| connection.ask(&wire::Command::Status));
        match asked {
            Ok(known) => {
                let pid = known.get("pid").cloned().unwrap_or_default();
                if !common.quiet {
                    let owns = instances::owns(&known);
                    let _ = writeln!(io::stdout(), "{name} is up: pid {pid}, {owns}");
                }
                return true;
            }
            Err(_) if !found.alive => return false,
            // Its socket closes just before it ends.
            Err(_) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                report::error(&error, Some("it is up, but"));
                return true;
            }
        }
    }
}

/// What the instance has said since it was started.
fn show_log(name: &str, from: u64) {
    let Ok(Some(found)) = Instances::here().get(name) else { return };
    let show = || -> io::Result<()> {
        let mut log = File::open(found.paths.log())?;
        // Shorter: it was turned over meanwhile.
        if log.metadata()?.len() >= from {
            log.seek(SeekFrom::Start(from))?;
        }
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        io::stderr().write_all(&text)
    };
    let _ = show();
}

/// The process that is the instance.
fn serve(args: &UpArgs, common: &Common) -> u8 {
    let ledger = Arc::new(Ledger::default());
    let mut claim = None;
    let status = match live(args, common, &ledger, &mut claim) {
        Ok((ended, _socket)) => {
            let status = run::finish(&ended);
            run::tear_down(&ledger);
            // The socket closes now, when there is nothing left: that is what `down` waits for.
            status
        }
        Err(error) => {
            report::error(&error, None);
            run::tear_down(&ledger);
            run::status_of(&error)
        }
    };
    if let Some(claim) = claim {
        claim.finish(status);
    }
    status
}

fn live(
    args: &UpArgs,
    common: &Common,
    ledger: &Arc<Ledger>,
    kept: &mut Option<Claim>,
) -> Result<(generation::Ended, Socket)> {
    let run_args = args.run_args();
    let (mut instance, chunk) = run::prepare(OP, &run_args)?;
    let claim = run::claim(&instance)?;
    let claim = kept.insert(claim);
    claim.set_background()?;
    let waiting = if args.detached { Waiting::Up(detach(claim)?) } else { Waiting::Systemd };
    run::say_missing_privilege();
    // Where nothing can be pinned, hooks end with the process; attaching says so.
    instance.pins = Some(claim.paths().pins().to_owned());
    run::recover(claim, ledger, Recovery::Adopt)?;
    let control = Control::start(Arc::new(StopFlag::default()), Arc::clone(ledger))?;
    control.reload_on_hangup();
    let socket = Outside::open(claim, waiting, &control, ledger)?;
    let script = Script { stay: false, ..run_args.script(instance, chunk, common.memory) };
    let ended = script::run(script, &control, ledger)?;
    Ok((ended, socket))
}

/// Leaves the terminal: a session of its own, and its log instead of whatever it wrote to. Returns the pipe to `up`.
fn detach(claim: &Claim) -> Result<File> {
    // EPERM: it leads one already.
    let _ = nix::unistd::setsid();
    let mut pipe = log::take_over(claim.paths())?;
    let _ = pipe.write_all(CLAIMED);
    Ok(pipe)
}
