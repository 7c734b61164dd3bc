//! The `cnfscript` command.

fn main() -> std::process::ExitCode {
    cnfscript::cli::main()
}
