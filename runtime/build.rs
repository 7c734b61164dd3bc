//! Compiles every `bpf/*.bpf.c` with clang and writes the list of the objects for `program::embedded` to include.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let mut sources: Vec<PathBuf> = fs::read_dir("bpf")
        .expect("the package has bpf/")
        .map(|entry| entry.expect("bpf/ is readable").path())
        .filter(|path| path.to_string_lossy().ends_with(".bpf.c"))
        .collect();
    sources.sort();
    let mut list = String::from("&[\n");
    for source in &sources {
        let file = source.file_name().expect("a file").to_string_lossy();
        let name = file.trim_end_matches(".bpf.c");
        let object = out.join(format!("{name}.bpf.o"));
        compile(source, &object);
        list += &format!("    ({name:?}, include_bytes!({:?})),\n", object.display().to_string());
    }
    list += "]\n";
    fs::write(out.join("embedded.rs"), list).expect("OUT_DIR is writable");
}

fn compile(source: &Path, object: &Path) {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the architecture");
    // Debian keeps asm/types.h under the host's triplet, which `-target bpf` does not search.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    let output = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3", "-Wall", "-Werror", &include, "-c"])
        .arg(source)
        .arg("-o")
        .arg(object)
        // The build machine's paths do not belong into the binary.
        .arg(
            "-fdebug-prefix-map=".to_owned()
                + &env::current_dir().expect("a directory").display().to_string()
                + "=.",
        )
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) => fail(&format!(
            "cannot run {clang}: {e}\nThe eBPF programs in bpf/ need clang: apt install clang llvm libbpf-dev, or set CLANG"
        )),
    };
    if output.status.success() {
        return;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = if said.contains("bpf/bpf_helpers.h") {
        "\nlibbpf's headers are missing: apt install libbpf-dev"
    } else if said.contains("asm/types.h") || said.contains("linux/bpf.h") {
        "\nthe kernel's headers are missing: apt install linux-libc-dev"
    } else {
        ""
    };
    fail(&format!("{} does not compile:\n{said}{hint}", source.display()));
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1);
}
