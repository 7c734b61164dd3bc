//! What is to run, from its words to a started child.

use std::collections::BTreeMap;

use mlua::{Table, Value};
use tokio::process::{Child, Command};

use crate::api::error::from_lua;
use crate::api::module::Args;
use crate::api::netns::Net;
use crate::api::option::{Options, expected};
use crate::kernel::process;
use crate::{Error, Result};

/// A program with its arguments, or a line for the shell.
pub struct CommandLine {
    pub argv: Vec<String>,
    /// As a person would have typed it, shortened for errors.
    pub shown: String,
}

/// The first argument of a call: words, or a line for the shell.
pub fn command_line(args: &mut Args) -> Result<CommandLine> {
    let op = args.op().to_owned();
    let bad = |got: String| {
        Error::invalid(op.clone(), format!("takes an array of words or a shell line, got {got}"))
    };
    let (argv, text) = match args.any() {
        Value::String(line) => {
            let line = line.to_string_lossy();
            (vec!["/bin/sh".into(), "-c".into(), line.clone()], line)
        }
        Value::Table(words) => {
            let words: Vec<String> = words
                .sequence_values::<Value>()
                .map(|word| match word.map_err(from_lua)? {
                    Value::String(s) => Ok(s.to_string_lossy()),
                    Value::Integer(i) => Ok(i.to_string()),
                    Value::Number(n) => Ok(n.to_string()),
                    other => Err(bad(format!("{} among the words", expected::describe(&other)))),
                })
                .collect::<Result<_>>()?;
            let text = words.join(" ");
            (words, text)
        }
        other => return Err(bad(expected::describe(&other))),
    };
    if argv.is_empty() {
        return Err(bad("an empty array".into()));
    }
    let shown = text.chars().take(60).collect::<String>();
    let shown = if shown.len() < text.len() { format!("{shown}...") } else { shown };
    Ok(CommandLine { argv, shown })
}

/// `env`, beside what the program inherits.
pub fn environment(options: &mut Options) -> Result<BTreeMap<String, String>> {
    let Some(table) = options.get::<Table>("env")? else { return Ok(BTreeMap::new()) };
    table
        .pairs::<String, Value>()
        .map(|pair| {
            let (key, value) = pair.map_err(from_lua)?;
            Ok((key, value.to_string().map_err(from_lua)?))
        })
        .collect()
}

/// The command as it runs inside the namespace.
///
/// # Errors
/// ENODEV: the namespace was deleted.
pub fn prepare(
    net: &Net,
    line: &CommandLine,
    environment: &BTreeMap<String, String>,
) -> Result<Command> {
    let open = net.open()?;
    let name = (!net.name().is_empty()).then(|| net.name());
    let mut command = process::command(&open.netns.fd, name, &line.argv[0])?;
    command.args(&line.argv[1..]).envs(environment);
    Ok(Command::from(command))
}

/// # Errors
/// ENOENT: there is no such program. EINVAL: it cannot have mounts of its own.
pub fn start(op: &str, command: &mut Command, line: &CommandLine) -> Result<Child> {
    command.spawn().map_err(|e| {
        let error = Error::io(op.to_owned(), &e).subject(line.shown.clone());
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                let program = &line.argv[0];
                let error = error.because(format!("there is no program \"{program}\""));
                match program.contains(char::is_whitespace) {
                    true => {
                        error.hint(format!("a shell line is a string, not a table: {program:?}"))
                    }
                    false => error,
                }
            }
            _ if e.raw_os_error() == Some(libc::EINVAL) => error
                .because(
                    "it cannot have mounts of its own: the root directory is not a mount point",
                )
                .hint("in a chroot: mount --bind DIRECTORY DIRECTORY, then chroot"),
            _ => error,
        }
    })
}
