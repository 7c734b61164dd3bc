//! The BTF half of the rewriting: section names that `.BTF.ext` refers to, and declarations the parser does not take.

use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, LittleEndian as LE, U32};

use super::{Header, ProgramSection, Section, append_section, invalid, truncated};
use crate::Result;

/// What `values` of a program array (`__array(values, int (void *))`) is renamed to: the parser takes only maps there.
pub(in crate::kernel::bpf) const PROGRAM_VALUES: &str = "program_values";

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let slot = bytes.get(at..at + 4).ok_or_else(|| invalid("damaged: BTF ends early"))?;
    object::from_bytes::<U32<LE>>(slot)
        .map(|(w, _)| w.get(LE) as usize)
        .map_err(|()| invalid("damaged: BTF ends early"))
}

/// Adds the aliases to the BTF strings and lets `.BTF.ext` refer to them.
pub(super) fn rename(
    bytes: &mut Vec<u8>,
    data: &[u8],
    header: &Header,
    programs: &[ProgramSection],
) -> Result<()> {
    let endian = Endianness::Little;
    let sections = header.sections(endian, data).map_err(|e| truncated(&e))?;
    let Some((btf_index, btf)) = sections.section_by_name(endian, b".BTF") else { return Ok(()) };
    let blob = btf.data(endian, data).map_err(|e| truncated(&e))?;
    // struct btf_header: magic, version, flags; hdr_len @4, type_off @8, type_len @12, str_off @16, str_len @20.
    let strings_at = word(blob, 4)? + word(blob, 16)?;
    let strings_end = strings_at + word(blob, 20)?;
    let strings =
        blob.get(strings_at..strings_end).ok_or_else(|| invalid("damaged: BTF ends early"))?;
    let mut grown = blob[..strings_end].to_vec();
    let mut renames = Vec::new();
    for program in programs {
        renames.push((program.name.as_bytes(), grown.len() - strings_at));
        grown.extend(program.alias().bytes());
        grown.push(0);
    }
    let alias = (grown.len() - strings_at) as u32;
    grown.extend(PROGRAM_VALUES.bytes());
    grown.push(0);
    for at in program_values(blob, strings)? {
        grown[at..at + 4].copy_from_slice(&alias.to_le_bytes());
    }
    let length = (grown.len() - strings_at) as u32;
    grown[20..24].copy_from_slice(&length.to_le_bytes());

    let header_at = header.e_shoff(endian) as usize + btf_index.0 * size_of::<Section>();
    append_section(bytes, header_at, &grown);
    let Some((_, ext)) = sections.section_by_name(endian, b".BTF.ext") else { return Ok(()) };
    let ext_at = ext.sh_offset(endian) as usize;
    for at in section_name_offsets(ext.data(endian, data).map_err(|e| truncated(&e))?)? {
        let old = word(data, ext_at + at)?;
        let name = strings.get(old..).and_then(|s| s.split(|b| *b == 0).next()).unwrap_or_default();
        if let Some((_, new)) = renames.iter().find(|(original, _)| *original == name) {
            bytes[ext_at + at..ext_at + at + 4].copy_from_slice(&(*new as u32).to_le_bytes());
        }
    }
    Ok(())
}

/// Where in `.BTF.ext` section names stand: at the head of each block of func_info, line_info and core_relo records.
fn section_name_offsets(ext: &[u8]) -> Result<Vec<usize>> {
    // struct btf_ext_header: hdr_len @4, then offset and length of func_info @8, line_info @16, core_relo @24.
    let header = word(ext, 4)?;
    let mut found = Vec::new();
    for field in [8, 16, 24] {
        if field + 8 > header {
            break;
        }
        let (start, length) = (header + word(ext, field)?, word(ext, field + 4)?);
        if length == 0 {
            continue;
        }
        let record = word(ext, start)?;
        let mut at = start + 4;
        while at < start + length {
            found.push(at);
            // struct btf_ext_info_sec: sec_name_off, num_info, then the records.
            at += 8 + word(ext, at + 4)? * record;
        }
    }
    Ok(found)
}

/// Where the name of each `values` member stands that is an array of pointers to functions.
fn program_values(blob: &[u8], strings: &[u8]) -> Result<Vec<usize>> {
    const PTR: usize = 2;
    const ARRAY: usize = 3;
    const STRUCT: usize = 4;
    const FUNC_PROTO: usize = 13;
    let start = word(blob, 4)? + word(blob, 8)?;
    let end = start + word(blob, 12)?;
    // Where each type stands; id 0 is void. struct btf_type: name_off, info (kind, vlen), size or type.
    let mut places = vec![usize::MAX];
    let mut at = start;
    while at < end {
        places.push(at);
        let (kind, count) = (kind_at(blob, at)?, word(blob, at + 4)? & 0xffff);
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                ARRAY => 12,
                STRUCT | 5 | 15 | 19 => 12 * count,
                6 | FUNC_PROTO => 8 * count,
                _ => 0,
            };
    }
    let target = |place: usize| -> Result<Option<usize>> {
        Ok(places.get(word(blob, place)?).copied().filter(|p| *p != usize::MAX))
    };
    let mut found = Vec::new();
    for &place in places.iter().skip(1) {
        if kind_at(blob, place)? != STRUCT {
            continue;
        }
        for member in 0..word(blob, place + 4)? & 0xffff {
            // struct btf_member: name_off, type, offset.
            let at = place + 12 + 12 * member;
            let name = strings.get(word(blob, at)?..).unwrap_or_default();
            if !name.starts_with(b"values\0") {
                continue;
            }
            let Some(array) =
                target(at + 4)?.filter(|p| kind_at(blob, *p).is_ok_and(|k| k == ARRAY))
            else {
                continue;
            };
            let Some(pointer) =
                target(array + 12)?.filter(|p| kind_at(blob, *p).is_ok_and(|k| k == PTR))
            else {
                continue;
            };
            if target(pointer + 8)?.is_some_and(|p| kind_at(blob, p).is_ok_and(|k| k == FUNC_PROTO))
            {
                found.push(at);
            }
        }
    }
    Ok(found)
}

fn kind_at(blob: &[u8], place: usize) -> Result<usize> {
    Ok(word(blob, place + 4)? >> 24 & 0x1f)
}
