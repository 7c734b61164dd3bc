//! `cnfscript completions` and `cnfscript types`: what shells and editors ask for, written out.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, status};
use crate::api::stdlib;
use crate::{Error, report};

#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

#[derive(Args, Clone, Debug)]
pub struct TypesArgs {
    /// Where to; made when it is not there. `.luarc.json` names it under workspace.library
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Writes completions to standard output; the exit status.
pub fn completions(args: &CompletionsArgs) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cnfscript", &mut text);
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(&text);
    status::DONE
}

/// Writes one stub a module; the exit status. Nothing but these files is touched.
pub fn types(args: &TypesArgs) -> u8 {
    match write_stubs(&args.directory) {
        Ok(()) => {
            println!("{} stubs in {}", stdlib::STUBS.len(), args.directory.display());
            status::DONE
        }
        Err(error) => {
            report::error(&error, None);
            status::FAILED
        }
    }
}

fn write_stubs(directory: &Path) -> crate::Result<()> {
    let failed =
        |path: &Path, e: std::io::Error| Error::io("types", &e).subject(path.display().to_string());
    std::fs::create_dir_all(directory).map_err(|e| failed(directory, e))?;
    for (name, text) in stdlib::STUBS {
        let path = directory.join(format!("{name}.lua"));
        std::fs::write(&path, text).map_err(|e| failed(&path, e))?;
    }
    Ok(())
}
