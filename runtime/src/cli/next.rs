//! What a person can type next, as a shell takes it: the commands that hints name.

use std::path::Path;

/// `cnfscript clean NAME`
pub fn clean(name: &str) -> String {
    format!("cnfscript clean {}", quoted(name))
}

/// `cnfscript up SCRIPT`, with the name if it is not the script's: what starts that instance again, and takes over what it has
/// left. None when nothing does: it was `-e`, a prompt, or its file is gone.
pub fn up(name: &str, script: Option<&Path>) -> Option<String> {
    let script = script.filter(|script| script.is_file())?;
    let up = format!("cnfscript up {}", quoted(&script.display().to_string()));
    Some(match name == name_of(script) {
        true => up,
        false => format!("{up} --name {}", quoted(name)),
    })
}

/// What an instance of that script is called when nobody gives it a name. A hidden file is hidden, its instance is not.
pub fn name_of(script: &Path) -> String {
    let stem = script.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_default().trim_start_matches('.').to_owned()
}

/// A word as a shell would need it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
