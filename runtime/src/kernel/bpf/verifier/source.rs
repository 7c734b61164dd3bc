//! Which line of C an instruction is from: the line info that clang writes into `.BTF.ext` (`struct bpf_line_info`,
//! Documentation/bpf/btf.rst).

use std::path::Path;

use crate::kernel::bpf::compile;

/// The line records of one program, with the strings they refer to.
#[derive(Debug, Default, Clone)]
pub(in crate::kernel::bpf) struct Lines {
    records: Vec<Record>,
    strings: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    instruction: usize,
    file: u32,
    text: u32,
    /// The line times 1024, plus the column.
    line_column: u32,
}

/// A place in the source.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kernel::bpf) struct Place<'a> {
    /// As messages show it: below the working directory without it; "source" for text from a script.
    file: &'a str,
    line: u32,
    /// Counted from 1; 0 when unknown.
    column: usize,
    text: &'a str,
}

impl Lines {
    /// `records` as bpf(2) takes them (16 bytes each, in instructions), `btf` the blob whose strings they name.
    pub fn new(records: &[u8], btf: &[u8]) -> Self {
        let word = |bytes: &[u8], at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        // struct btf_header: hdr_len @4, str_off @16, str_len @20.
        let strings = || {
            let start = word(btf, 4)?.checked_add(word(btf, 16)?)? as usize;
            btf.get(start..start.checked_add(word(btf, 20)? as usize)?)
        };
        let records = records.chunks_exact(16).filter_map(|record| {
            Some(Record {
                instruction: word(record, 0)? as usize,
                file: word(record, 4)?,
                text: word(record, 8)?,
                line_column: word(record, 12)?,
            })
        });
        Lines { records: records.collect(), strings: strings().unwrap_or_default().to_vec() }
    }

    /// The place that instruction `at` comes from; lines that the compiler made up have the number 0.
    pub fn at(&self, at: usize) -> Option<Place<'_>> {
        let before = self.records.iter().rev().skip_while(|r| r.instruction > at);
        let record = before.into_iter().find(|r| r.line_column >> 10 != 0)?;
        Some(Place {
            file: shown(self.string(record.file)?),
            line: record.line_column >> 10,
            column: (record.line_column & 0x3ff) as usize,
            text: self.string(record.text)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.strings.get(offset as usize..)?;
        std::str::from_utf8(bytes.split(|b| *b == 0).next()?).ok()
    }
}

/// A path without the working directory.
fn shown(path: &str) -> &str {
    if compile::is_text(Path::new(path)) {
        return "source";
    }
    let here = std::env::current_dir().unwrap_or_default();
    match Path::new(path).strip_prefix(here) {
        Ok(below) => below.to_str().unwrap_or(path),
        Err(_) => path,
    }
}

impl Place<'_> {
    /// `refused.bpf.c:12`
    pub fn short(&self) -> String {
        format!("{}:{}", self.file.rsplit('/').next().unwrap_or(self.file), self.line)
    }

    /// The place, the line, and a mark below what is meant:
    ///
    /// ```text
    /// lib/refused.bpf.c:52:14
    ///   return ip->protocol;
    ///              ^
    /// ```
    pub fn snippet(&self) -> Vec<String> {
        let mut lines = vec![match self.column {
            0 => format!("{}:{}", self.file, self.line),
            column => format!("{}:{}:{column}", self.file, self.line),
        }];
        let code = self.text.trim();
        if code.is_empty() {
            return lines;
        }
        lines.push(format!("  {}", code.replace('\t', " ")));
        let indent = self.text.len() - self.text.trim_start().len();
        if self.column > indent && self.column <= indent + code.len() {
            let before = self.text.get(indent..self.column - 1).map_or(0, |s| s.chars().count());
            lines.push(format!("  {}^", " ".repeat(before)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        let strings = b"\0/src/a.c\0  return data[100];\0";
        let mut btf = vec![0u8; 24];
        btf[4] = 24;
        btf[20] = strings.len() as u8;
        btf.extend(strings);
        let record = |instruction: u32, line: u32, column: u32| {
            [instruction, 1, 10, line << 10 | column].map(u32::to_le_bytes).concat()
        };
        Lines::new(&[record(0, 3, 1), record(4, 7, 10), record(6, 0, 0)].concat(), &btf)
    }

    #[test]
    fn the_line_of_an_instruction() {
        let lines = lines();
        assert_eq!(lines.at(3).map(|p| p.short()), Some("a.c:3".into()));
        assert_eq!(lines.at(6).map(|p| p.short()), Some("a.c:7".into()), "line 0 is no line");
        let place = lines.at(5).expect("it has one");
        assert_eq!(place.snippet(), ["/src/a.c:7:10", "  return data[100];", "         ^"]);
        assert_eq!(Lines::default().at(0), None);
    }

    #[test]
    fn damaged_strings_give_no_place() {
        let mut lines = lines();
        lines.strings.truncate(3);
        assert_eq!(lines.at(4), None);
        assert!(Lines::new(&[1; 20], &[0; 5]).at(u32::MAX as usize).is_none());
    }
}
