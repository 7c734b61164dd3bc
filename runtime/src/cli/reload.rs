//! `cnfscript reload NAME`: the instance loads its script again; what it changed, or why it did not, is shown.

use clap::Args;

use super::{reach, status};
use crate::Result;
use crate::life::socket::wire::Command;

#[derive(Args, Debug)]
pub struct ReloadArgs {
    /// The instance, or its script
    #[arg(value_name = "NAME")]
    name: String,
    /// Show the difference as data
    #[arg(long)]
    json: bool,
}

pub fn reload(args: &ReloadArgs) -> Result<u8> {
    const OP: &str = "reload";
    let found = reach::find(OP, &args.name)?;
    reach::alive(OP, &found)?;
    let answer = reach::Connection::open(OP, &found, None)?.ask(&Command::Reload)?;
    reach::show(answer, args.json);
    Ok(status::DONE)
}
