//! Makes objects written for libbpf acceptable to the parser: every spelling of a program section becomes one it knows.
//!
//! `SEC("tc")`, `SEC("tcx/ingress")`, `SEC("netkit/peer")` ... are what sources use, `classifier` is what `aya_obj` parses.
//! Section names sit in the ELF section header string table, often the same one that symbols use, and again in the BTF
//! string table, where `.BTF.ext` finds its sections. Both get new strings at their end; nothing existing moves. The
//! original names say what each program is (`Documentation/bpf/libbpf/program_types.rst`).

use object::elf::{FileHeader64, SHF_EXECINSTR, SectionHeader64};
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{
    Endianness, LittleEndian as LE, Object as _, ObjectSection as _, ObjectSymbol as _,
    RelocationTarget, U64,
};

use crate::{Error, Result};

mod section;
mod types;

pub use section::ProgramSection;
pub(super) use section::{cgroup_hooks, sections_of};
pub(super) use types::PROGRAM_VALUES;

use section::{SPELLINGS, unknown_section};

type Header = FileHeader64<Endianness>;
type Section = SectionHeader64<Endianness>;

/// An object the parser takes, with what its sections were called.
#[derive(Debug)]
pub struct Rewritten {
    pub bytes: Vec<u8>,
    pub sections: Vec<ProgramSection>,
    pub initial: Vec<InitialSlot>,
    /// Whether it has a `license` section: the parser takes one without for GPL, the kernel and libbpf do not.
    pub licensed: bool,
}

/// A slot that a map's declaration fills: `.values = { [1] = &inner }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialSlot {
    pub map: String,
    /// Bytes from the start of the map's declaration.
    pub offset: u64,
    /// The map or program that goes there.
    pub target: String,
}

/// Checks that `data` is an eBPF object for this machine and rewrites its program sections.
///
/// # Errors
/// EINVAL, saying what the file is instead: empty, source text, truncated, for another machine, without programs, or
/// with a section that no hook of ours runs.
pub fn rewrite(data: &[u8]) -> Result<Rewritten> {
    check_identity(data)?;
    let header = Header::parse(data).map_err(|e| truncated(&e))?;
    let endian = Endianness::Little;
    check_bounds(header, data)?;
    let sections = header.sections(endian, data).map_err(|e| truncated(&e))?;
    let mut programs = Vec::new();
    let mut licensed = false;
    for (index, section) in sections.enumerate() {
        let name = sections.section_name(endian, section).map_err(|e| truncated(&e))?;
        let name = String::from_utf8_lossy(name);
        licensed |= name == "license";
        let code = section.sh_flags(endian) & u64::from(SHF_EXECINSTR) != 0;
        if !code || section.sh_size(endian) == 0 || name.starts_with(".text") {
            continue;
        }
        programs.push(ProgramSection::parse(&name, index.0).ok_or_else(|| unknown_section(&name))?);
    }
    if programs.is_empty() {
        return Err(invalid("the object has no programs")
            .hint(format!("a program is a function with SEC(\"...\"), one of: {SPELLINGS}")));
    }
    let file = ElfFile64::<Endianness>::parse(data).map_err(|e| truncated(&e))?;
    check_symbols(&file)?;
    let initial = initial_slots(&file);
    let mut bytes = data.to_vec();
    rename_sections(&mut bytes, header, &programs)?;
    types::rename(&mut bytes, data, header, &programs)?;
    Ok(Rewritten { bytes, sections: programs, initial, licensed })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("bpf.load", message)
}

fn truncated(error: &object::read::Error) -> Error {
    invalid(format!("the object is truncated or damaged: {}", lower(&error.to_string())))
        .hint(TARGET)
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Says what a file that is no eBPF object is instead.
fn check_identity(data: &[u8]) -> Result<()> {
    if data.is_empty() {
        return Err(invalid("the file is empty").hint(TARGET));
    }
    if !data.starts_with(b"\x7fELF") {
        return Err(not_elf(data));
    }
    if data.len() < 64 {
        let text = format!("the object is truncated: {} bytes", data.len());
        return Err(invalid(text).hint(TARGET));
    }
    if data[4] != object::elf::ELFCLASS64 {
        return Err(invalid("a 32-bit ELF file; eBPF objects are 64-bit").hint(TARGET));
    }
    if data[5] != object::elf::ELFDATA2LSB {
        return Err(invalid("a big-endian object; this machine is little-endian").hint(TARGET));
    }
    let machine = u16::from_le_bytes([data[18], data[19]]);
    if machine != object::elf::EM_BPF {
        return Err(
            invalid(format!("built for {}, not for eBPF", machine_name(machine))).hint(TARGET)
        );
    }
    let kind = u16::from_le_bytes([data[16], data[17]]);
    if kind != object::elf::ET_REL {
        return Err(invalid("not a relocatable object").hint("compile with `clang -target bpf -c`"));
    }
    Ok(())
}

const TARGET: &str = "compile with `clang -target bpf`, or use bpf.compile";

fn not_elf(data: &[u8]) -> Error {
    let head = &data[..data.len().min(4096)];
    let text = !head.contains(&0) && std::str::from_utf8(&head[..head.len().min(512)]).is_ok();
    if head.starts_with(b"BC\xc0\xde") {
        return invalid("LLVM bitcode, not an object").hint("compile with `clang -target bpf -c`");
    }
    if !text {
        return invalid("not an ELF object").hint(TARGET);
    }
    let source = String::from_utf8_lossy(head);
    if ["#include", "SEC(", "#define", "/*", "//"].iter().any(|mark| source.contains(mark)) {
        return invalid("C source, not an object").hint("compile it: bpf.compile(path)");
    }
    invalid("text, not an ELF object").hint(TARGET)
}

/// The machines an object is likely to be for by mistake.
fn machine_name(machine: u16) -> String {
    use object::elf;
    match machine {
        elf::EM_X86_64 => "x86-64".into(),
        elf::EM_386 => "x86".into(),
        elf::EM_AARCH64 => "arm64".into(),
        elf::EM_ARM => "arm".into(),
        elf::EM_RISCV => "riscv".into(),
        elf::EM_S390 => "s390".into(),
        elf::EM_PPC64 => "powerpc64".into(),
        elf::EM_LOONGARCH => "loongarch".into(),
        other => format!("machine {other}"),
    }
}

/// How large `.bss` may be, in bytes.
const MOST_ZEROES: u64 = 1 << 28;

/// Every section must lie in the file: later stages index without looking.
fn check_bounds(header: &Header, data: &[u8]) -> Result<()> {
    let endian = Endianness::Little;
    let headers = header.section_headers(endian, data).map_err(|e| truncated(&e))?;
    for (index, section) in headers.iter().enumerate() {
        if section.sh_type(endian) == object::elf::SHT_NOBITS {
            // It takes no room in the file, but as much in memory as it says.
            if section.sh_size(endian) > MOST_ZEROES {
                return Err(invalid(format!(
                    "its uninitialised variables take {} bytes: {MOST_ZEROES} is the most",
                    section.sh_size(endian)
                )));
            }
            continue;
        }
        let end = section.sh_offset(endian).checked_add(section.sh_size(endian));
        if end.is_none_or(|end| end > data.len() as u64) {
            return Err(invalid(format!(
                "the object is truncated: section {index} ends beyond the file's {} bytes",
                data.len()
            )));
        }
    }
    Ok(())
}

/// Symbols must lie in their sections, and every one that code refers to must be defined here.
fn check_symbols(file: &ElfFile64<'_>) -> Result<()> {
    for symbol in file.symbols() {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index).map_err(|e| truncated(&e))?;
        if symbol.address().checked_add(symbol.size()).is_none_or(|end| end > section.size()) {
            let name = symbol.name().unwrap_or("?");
            return Err(invalid(format!("damaged: symbol \"{name}\" ends beyond its section")));
        }
    }
    for section in file.sections() {
        if section.kind() != object::SectionKind::Text {
            continue;
        }
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index).map_err(|e| truncated(&e))?;
            if symbol.is_undefined() && !symbol.name().unwrap_or_default().is_empty() {
                let name = symbol.name().unwrap_or_default();
                return Err(invalid(format!("\"{name}\" is used but not defined in this object"))
                    .hint("kernel functions (__ksym), __kconfig and linking several objects are not supported"));
            }
        }
    }
    Ok(())
}

/// What the declarations in `.maps` put into maps of maps and program arrays: relocations that name the targets.
fn initial_slots(file: &ElfFile64<'_>) -> Vec<InitialSlot> {
    let Some(maps) = file.section_by_name(".maps") else { return Vec::new() };
    let name = |symbol: object::Result<_>| -> Option<String> {
        let symbol: object::read::elf::ElfSymbol64<'_, '_> = symbol.ok()?;
        symbol.name().ok().map(String::from)
    };
    let slot = |(at, relocation): (u64, object::Relocation)| {
        let RelocationTarget::Symbol(target) = relocation.target() else { return None };
        let map = file.symbols().find(|s| {
            s.section_index() == Some(maps.index())
                && (s.address()..s.address() + s.size()).contains(&at)
        })?;
        Some(InitialSlot {
            map: map.name().ok()?.to_owned(),
            offset: at - map.address(),
            target: name(file.symbol_by_index(target))?,
        })
    };
    maps.relocations().filter_map(slot).collect()
}

/// Replaces the section name table by a copy with the aliases at its end, and points the sections there.
fn rename_sections(
    bytes: &mut Vec<u8>,
    header: &Header,
    programs: &[ProgramSection],
) -> Result<()> {
    let endian = Endianness::Little;
    let sections = header.section_headers(endian, &bytes.clone()[..]).map(<[Section]>::to_vec);
    let sections = sections.map_err(|e| truncated(&e))?;
    let table_index = header.e_shstrndx(endian) as usize;
    let table = sections.get(table_index).ok_or_else(|| invalid("damaged: no section names"))?;
    let start = table.sh_offset(endian) as usize;
    let mut names = bytes[start..start + table.sh_size(endian) as usize].to_vec();
    let headers = header.e_shoff(endian) as usize;
    let size = size_of::<Section>();
    for program in programs {
        let at = headers + program.index * size;
        let name = names.len() as u32;
        names.extend(program.alias().bytes());
        names.push(0);
        // sh_name is the first word of a section header.
        bytes[at..at + 4].copy_from_slice(&name.to_le_bytes());
    }
    append_section(bytes, headers + table_index * size, &names);
    Ok(())
}

/// Appends `contents` to the file and points the section header at byte `at` to it.
fn append_section(bytes: &mut Vec<u8>, at: usize, contents: &[u8]) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let offset = U64::<LE>::new(LE, bytes.len() as u64);
    bytes.extend(contents);
    let length = U64::<LE>::new(LE, contents.len() as u64);
    // sh_offset and sh_size follow sh_name, sh_type (4 bytes each), sh_flags and sh_addr (8 each).
    bytes[at + 24..at + 32].copy_from_slice(object::bytes_of(&offset));
    bytes[at + 32..at + 40].copy_from_slice(object::bytes_of(&length));
}
