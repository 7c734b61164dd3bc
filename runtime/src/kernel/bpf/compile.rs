//! C to eBPF objects with clang, cached by content.
//!
//! The cache key is a hash over the preprocessed source, the flags and the compiler's version, so an edited header or
//! another clang compiles again and nothing else does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{AccessFlags, access, geteuid};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// C to compile.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    /// Text from a script; `#include "..."` resolves in `directory`.
    Text {
        source: String,
        directory: PathBuf,
    },
}

/// Extra flags and where to look for headers.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    pub cflags: Vec<String>,
    /// Searched before the system's: the project's own `bpf/include`, then the script's.
    pub include: Vec<PathBuf>,
}

/// A compiled object.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// In the cache; stays there.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// The source and every header it included, system headers too: what a watcher looks at.
    pub inputs: Vec<PathBuf>,
    /// Whether the cache had it.
    pub cached: bool,
    /// clang's warnings; empty from the cache.
    pub diagnostics: String,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Text { .. } => "source".into(),
        }
    }
}

/// Compiles `source` for eBPF: `-target bpf -O2 -g -mcpu=v3 -Wall`, then `options.cflags`. Blocks.
///
/// # Errors
/// ENOENT without clang or without the file; EINVAL when clang refuses, with its diagnostics as detail.
pub fn compile(source: &Source, options: &CompileOptions) -> Result<Compiled> {
    let about = |e: Error| e.about(source.name());
    if let Source::File(path) = source
        && let Err(e) = std::fs::metadata(path)
    {
        return Err(about(Error::io("bpf.compile", &e)));
    }
    let clang = Clang::find().map_err(about)?;
    let flags = flags(source, options);
    let cache = Cache::find().map_err(about)?;
    let dependencies = cache.write.join(format!(".deps-{}", unique()));
    let preprocessed = clang.preprocess(source, &flags, &dependencies);
    let inputs = read_dependencies(&dependencies);
    let object = format!("{}.o", key(&clang, &flags, source, &preprocessed.map_err(about)?));
    if let Some((path, bytes)) = cache.read(&object) {
        return Ok(Compiled { path, bytes, inputs, cached: true, diagnostics: String::new() });
    }
    let path = cache.write.join(object);
    let diagnostics = clang.compile(source, &flags, &path).map_err(about)?;
    let bytes = std::fs::read(&path).map_err(|e| about(Error::io("bpf.compile", &e)))?;
    Ok(Compiled { path, bytes, inputs, cached: false, diagnostics })
}

fn flags(source: &Source, options: &CompileOptions) -> Vec<String> {
    let mut flags: Vec<String> =
        ["-target", "bpf", "-O2", "-g", "-mcpu=v3", "-Wall", "-fno-stack-protector"]
            .map(String::from)
            .into();
    flags.push(format!("-D__TARGET_ARCH_{}", target_arch()));
    if let Source::Text { directory, .. } = source {
        flags.push(format!("-iquote{}", directory.display()));
    }
    flags.extend(options.include.iter().map(|dir| format!("-I{}", dir.display())));
    // asm/types.h lives in Debian's multiarch directory, which the bpf target does not search.
    let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    if Path::new(&multiarch).is_dir() {
        flags.extend(["-idirafter".to_owned(), multiarch]);
    }
    flags.extend(options.cflags.iter().cloned());
    flags
}

/// Part of a file name that nobody else uses: threads and processes may compile the same source at once.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// As `bpf_tracing.h` spells the machine.
fn target_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        "riscv64" => "riscv",
        "powerpc64" => "powerpc",
        "s390x" => "s390",
        other => other,
    }
}

fn key(clang: &Clang, flags: &[String], source: &Source, preprocessed: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(&clang.version);
    // The object says which file its lines are of: a copy elsewhere is another object.
    if let Source::File(path) = source {
        let whole = path.canonicalize();
        hash.update(whole.as_deref().unwrap_or(path).as_os_str().as_encoded_bytes());
    }
    for flag in flags {
        hash.update([0]);
        hash.update(flag);
    }
    hash.update([0, 0]);
    hash.update(preprocessed);
    hash.finalize().iter().take(16).fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Where objects are kept: `$XDG_CACHE_HOME/cnfscript`, `/var/cache/cnfscript` for root, else `~/.cache/cnfscript`. Where
/// that cannot be written to (a read-only root, no home), what is in it is used and new objects go to a private folder
/// in the temporary one.
struct Cache {
    kept: Option<PathBuf>,
    write: PathBuf,
}

impl Cache {
    fn find() -> Result<Cache> {
        let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let kept = home("XDG_CACHE_HOME")
            .or_else(|| geteuid().is_root().then(|| "/var/cache".into()))
            .or_else(|| home("HOME").map(|home| home.join(".cache")))
            .map(|base| base.join("cnfscript"));
        if let Some(kept) = &kept
            && std::fs::create_dir_all(kept).is_ok()
            && access(kept, AccessFlags::W_OK).is_ok()
        {
            return Ok(Cache { kept: None, write: kept.clone() });
        }
        Ok(Cache { kept, write: private_directory()? })
    }

    fn read(&self, object: &str) -> Option<(PathBuf, Vec<u8>)> {
        let folders = self.kept.iter().chain([&self.write]);
        folders.map(|folder| folder.join(object)).find_map(|path| {
            let bytes = std::fs::read(&path).ok()?;
            Some((path, bytes))
        })
    }
}

/// `/tmp/cnfscript-0`: what is in it is loaded into the kernel, so it must be ours and nobody else may write to it.
fn private_directory() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("cnfscript-{}", geteuid()));
    let failed = |e: std::io::Error| {
        let message = format!("the cache {} cannot be made: {e}", path.display());
        Error::io("bpf.compile", &e).because(message).hint("set XDG_CACHE_HOME")
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&path).map_err(failed)?;
    match found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        true => Ok(path),
        false => Err(failed(std::io::Error::other("somebody else made it, or may write to it"))),
    }
}

/// Paths of a make rule as `-MD` writes it: continued lines, spaces in names escaped.
fn read_dependencies(rule: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(rule).unwrap_or_default();
    let _ = std::fs::remove_file(rule);
    let text = text.replace("\\\n", " ").replace("\\ ", "\u{1}");
    let (_, list) = text.split_once(':').unwrap_or_default();
    let names = list.split_whitespace().map(|n| n.replace('\u{1}', " "));
    names.filter(|n| n != "-" && n != "<stdin>").map(PathBuf::from).collect()
}

struct Clang {
    program: PathBuf,
    version: String,
}

impl Clang {
    /// `$CLANG`, `clang`, or the newest versioned one on the path.
    fn find() -> Result<Clang> {
        let named = std::env::var_os("CLANG").filter(|v| !v.is_empty()).map(PathBuf::from);
        let versioned = (11..=30).rev().map(|v| PathBuf::from(format!("clang-{v}")));
        let candidates = named.into_iter().chain(["clang".into()]).chain(versioned);
        for program in candidates {
            let run = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
            if let Ok(output) = run
                && output.status.success()
            {
                let version = String::from_utf8_lossy(&output.stdout).into_owned();
                return Ok(Clang { program, version });
            }
        }
        Err(Error::new("bpf.compile", "ENOENT", "clang is not installed")
            .hint("apt install clang libbpf-dev"))
    }

    fn preprocess(
        &self,
        source: &Source,
        flags: &[String],
        dependencies: &Path,
    ) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.args(flags).args(["-E", "-MD", "-MT", "object", "-MF"]).arg(dependencies);
        let output = feed(command, source)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(refused(&output)),
        }
    }

    /// Compiles next to `object` and renames, so that no reader sees half a file. clang's warnings.
    fn compile(&self, source: &Source, flags: &[String], object: &Path) -> Result<String> {
        let unfinished = object.with_extension(format!("{}.tmp", unique()));
        let mut command = Command::new(&self.program);
        command.args(flags).arg("-c").arg("-o").arg(&unfinished);
        // From a file, even when it came as text: its lines go into BTF, and the verifier quotes them.
        let file = match source {
            Source::File(path) => path.clone(),
            Source::Text { source, .. } => {
                let file = object.with_extension("c");
                let written = object.with_extension(format!("{}.c", unique()));
                std::fs::write(&written, source)
                    .and_then(|()| std::fs::rename(&written, &file))
                    .map_err(|e| Error::io("bpf.compile", &e))?;
                file
            }
        };
        let mut output = feed(command, &Source::File(file.clone()))?;
        if matches!(source, Source::Text { .. }) {
            let text = String::from_utf8_lossy(&output.stderr);
            output.stderr = text.replace(&file.display().to_string(), "source").into_bytes();
        }
        if !output.status.success() {
            let _ = std::fs::remove_file(&unfinished);
            return Err(refused(&output));
        }
        std::fs::rename(&unfinished, object).map_err(|e| Error::io("bpf.compile", &e))?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether a path that debugging information names is where [`compile`] put text that came from a script.
pub fn is_text(path: &Path) -> bool {
    let hash = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    path.extension().is_some_and(|e| e == "c")
        && hash.len() == 32
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Runs clang on a file, or on text through its standard input.
fn feed(mut command: Command, source: &Source) -> Result<Output> {
    let failed = |e: std::io::Error| Error::io("bpf.compile", &e);
    match source {
        Source::File(path) => command.arg(path).stdin(Stdio::null()).output().map_err(failed),
        Source::Text { source, .. } => {
            command.args(["-x", "c", "-"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().map_err(failed)?;
            let input = child.stdin.take();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    // clang that stops reading early says why itself.
                    let _ = input.map(|mut pipe| pipe.write_all(source.as_bytes()));
                });
                child.wait_with_output().map_err(failed)
            })
        }
    }
}

/// clang's first error as the message, all it said as detail.
fn refused(output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr).replace("<stdin>", "source");
    let first = text.lines().find(|line| line.contains("error:")).unwrap_or("clang failed");
    let error = Error::invalid("bpf.compile", first.trim()).detail(text.trim_end());
    match first.contains("bpf/bpf_helpers.h") {
        true => error.hint("apt install libbpf-dev"),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> Source {
        Source::Text { source: source.into(), directory: ".".into() }
    }

    #[test]
    fn compiles_once() {
        let unique = format!("int unique_{}(void) {{ return 1; }}", std::process::id());
        let first = compile(&text(&unique), &CompileOptions::default()).expect("compiles");
        assert!(!first.cached && first.bytes.starts_with(b"\x7fELF"));
        let second = compile(&text(&unique), &CompileOptions::default()).expect("compiles");
        assert!(second.cached && second.path == first.path);
        let other = CompileOptions { cflags: vec!["-DOTHER".into()], ..Default::default() };
        let third = compile(&text(&unique), &other).expect("compiles");
        assert!(third.path != first.path);
        for made in [first.path, third.path] {
            let _ = std::fs::remove_file(made);
        }
    }

    /// Several threads compile the same source at once: each gets a whole object.
    #[test]
    fn compiles_in_parallel() {
        let source = text(&format!("int parallel_{}(void) {{ return 1; }}", std::process::id()));
        let path = std::thread::scope(|scope| {
            let run = || compile(&source, &CompileOptions::default()).expect("compiles");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            let made: Vec<_> = threads.into_iter().map(|t| t.join().expect("no panic")).collect();
            assert!(made.iter().all(|m| m.bytes == made[0].bytes));
            made[0].path.clone()
        });
        let _ = std::fs::remove_file(path.with_extension("c"));
        let _ = std::fs::remove_file(path);
    }

    #[test]
    fn headers_are_inputs_and_part_of_the_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let (source, header) = (dir.path().join("a b.c"), dir.path().join("value.h"));
        std::fs::write(&header, "#define VALUE 1\n").expect("written");
        std::fs::write(&source, "#include \"value.h\"\nint f(void) { return VALUE; }\n")
            .expect("written");
        let first =
            compile(&Source::File(source.clone()), &CompileOptions::default()).expect("compiles");
        assert!(
            first.inputs.contains(&source) && first.inputs.contains(&header),
            "{:?}",
            first.inputs
        );
        std::fs::write(&header, "#define VALUE 2\n").expect("written");
        let second = compile(&Source::File(source), &CompileOptions::default()).expect("compiles");
        assert!(!second.cached && second.path != first.path);
        for made in [first.path, second.path] {
            let _ = std::fs::remove_file(made);
        }
    }

    #[test]
    fn clang_says_what_is_wrong() {
        let error = compile(&text("int f(void) { return x; }\n"), &CompileOptions::default())
            .expect_err("refused");
        assert!(error.message().contains("use of undeclared identifier 'x'"), "{error}");
        assert!(error.get_detail().is_some_and(|d| d.contains("source:1:22")), "{error:?}");
        let error = compile(&Source::File("/nowhere.c".into()), &CompileOptions::default());
        assert_eq!(error.expect_err("no file").code(), "ENOENT");
    }
}
