//! The programs of an object, given to the verifier.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::{LoadOptions, ObjectFile, invalid, kernel_btf};
use crate::kernel::bpf::elf::ProgramSection;
use crate::kernel::bpf::program::{Program, ProgramKind};
use crate::kernel::bpf::{sys, verifier};
use crate::kernel::capability;
use crate::{Error, Result};

impl ObjectFile {
    pub(super) fn load_programs(
        &self,
        options: &LoadOptions,
        btf_fd: Option<&Arc<OwnedFd>>,
    ) -> Result<BTreeMap<String, Program>> {
        let mut loaded = BTreeMap::new();
        for (name, section) in self.programs() {
            let wanted = match &options.programs {
                Some(names) => names.contains(name),
                None => !section.optional,
            };
            if wanted {
                loaded.insert(name.to_owned(), self.load_program(name, section, btf_fd)?);
            }
        }
        Ok(loaded)
    }

    fn load_program(
        &self,
        name: &str,
        section: &ProgramSection,
        btf_fd: Option<&Arc<OwnedFd>>,
    ) -> Result<Program> {
        let program = &self.parsed.programs[name];
        let function = self
            .parsed
            .functions
            .get(&program.function_key())
            .ok_or_else(|| invalid(format!("program \"{name}\" has no code")))?;
        let (functions, lines) =
            (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
        let attr = sys::ProgramAttr {
            kind: section.kind.0,
            name,
            instructions: &function.instructions,
            license: &program.license,
            flags: section.flags,
            expected_attach_type: section.expected_attach_type,
            kernel_version: program.kernel_version.unwrap_or(0),
            attach_btf_id: attach_target(section)?,
            btf: btf_fd.map(|fd| fd.as_fd()),
            func_info: &functions,
            line_info: &lines,
        };
        let fd = verified(&attr, || {
            let types = self.parsed.btf.as_ref().map(|btf| btf.to_bytes()).unwrap_or_default();
            verifier::Lines::new(&lines, &types)
        });
        let fd = fd.map_err(|e| refused_type(e, section))?;
        Program::new(fd, name.to_owned(), section.name.clone())
    }
}

/// The kernel function or tracepoint that a tracing program is loaded for, by its number in the kernel's BTF; 0 for other
/// types.
///
/// # Errors
/// EINVAL for a section without a target, ENOENT when the kernel has no such function, or no BTF.
fn attach_target(section: &ProgramSection) -> Result<u32> {
    use aya_obj::btf::BtfKind;
    use aya_obj::generated::bpf_attach_type::BPF_TRACE_RAW_TP;
    if section.kind != ProgramKind::TRACING {
        return Ok(0);
    }
    let target = &section.target;
    if target.is_empty() {
        return Err(invalid(format!("SEC(\"{}\") names no function", section.name))
            .hint(format!("write SEC(\"{}/FUNCTION\")", section.name)));
    }
    let (what, name, kind) = match section.expected_attach_type == BPF_TRACE_RAW_TP as u32 {
        true => ("tracepoint", format!("btf_trace_{target}"), BtfKind::Typedef),
        false => ("function", target.clone(), BtfKind::Func),
    };
    kernel_btf()?.id_by_type_name_kind(&name, kind).map_err(|_| {
        let message = format!("this kernel has no {what} \"{target}\" that can be traced");
        Error::new("bpf.load", "ENOENT", message)
            .hint("/sys/kernel/tracing/available_filter_functions lists functions; inlined ones are not there")
    })
}

/// EPERM although every capability is there: the kernel itself takes no programs of that type.
fn refused_type(error: Error, section: &ProgramSection) -> Error {
    if !error.is("EPERM") || !capability::missing().is_empty() {
        return error;
    }
    Error::new("bpf.load", "EPERM", format!("this kernel takes no programs of type {}", section.kind))
        .about(error.get_subject().unwrap_or_default().to_owned())
        .hint("no capability is missing: it is the kernel's own policy (lockdown, a security module, a patch)")
}

/// Loads without a log, which is fast; again with one when it is refused.
fn verified(
    attr: &sys::ProgramAttr<'_>,
    lines: impl FnOnce() -> verifier::Lines,
) -> Result<OwnedFd> {
    let errno = match sys::prog_load(attr, None) {
        Ok(fd) => return Ok(fd),
        Err(errno) => errno,
    };
    let text = match explained(attr) {
        Ok(fd) => return Ok(fd),
        Err(text) => text,
    };
    // Line and function records that the compiler left incomplete are no reason to refuse.
    if attr.btf.is_some() && (text.contains("line_info") || text.contains("func_info")) {
        return verified(&sys::ProgramAttr { btf: None, ..*attr }, lines);
    }
    Err(verifier::refused(attr.name, errno, &text, &lines()))
}

/// Loads with a log; the log when it is refused again. Kernels since 6.4 keep the end of a log that does not fit, older
/// ones its beginning: there the reason alone is asked for.
fn explained(attr: &sys::ProgramAttr<'_>) -> std::result::Result<OwnedFd, String> {
    const STEPS: u32 = 1;
    const REASON_ONLY: u32 = 4;
    let attempt = |level: u32, size: usize| {
        let mut log = vec![0u8; size];
        sys::prog_load(attr, Some((level, &mut log))).map_err(|errno| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            (errno, String::from_utf8_lossy(&log[..end]).into_owned())
        })
    };
    let largest = if verifier::keeps_logs() { 1 << 30 } else { 1 << 20 };
    let mut size = 1 << 20;
    loop {
        match attempt(STEPS, size) {
            Ok(fd) => return Ok(fd),
            Err((Errno::ENOSPC, _)) if size < largest => size <<= 2,
            Err((Errno::ENOSPC, _)) => break,
            Err((_, text)) => return Err(text),
        }
    }
    let (errno, reason) = match attempt(REASON_ONLY, 1 << 16) {
        Ok(fd) => return Ok(fd),
        Err(refused) => refused,
    };
    tracing::debug!(%errno, "the verifier's log is longer than {size} bytes");
    Err(reason)
}
