//! Programs on what the sockets of a sockmap or sockhash receive (`sk_skb`) and send (`sk_msg`).

use std::os::fd::AsFd;

use aya_obj::generated::bpf_attach_type::{
    self, BPF_SK_MSG_VERDICT, BPF_SK_SKB_STREAM_PARSER, BPF_SK_SKB_STREAM_VERDICT,
    BPF_SK_SKB_VERDICT,
};
use nix::errno::Errno;

use super::{Beyond, wrong_type};
use crate::kernel::bpf::elf::ProgramSection;
use crate::kernel::bpf::map::{Map, MapKind};
use crate::kernel::bpf::program::{Program, ProgramKind, refusal};
use crate::kernel::bpf::sys;
use crate::kernel::release;
use crate::{Error, Result};

/// The hooks of such a map, each for one program.
const HOOKS: [(&str, ProgramKind, bpf_attach_type); 4] = [
    ("stream_parser", ProgramKind::SK_SKB, BPF_SK_SKB_STREAM_PARSER),
    ("stream_verdict", ProgramKind::SK_SKB, BPF_SK_SKB_STREAM_VERDICT),
    ("verdict", ProgramKind::SK_SKB, BPF_SK_SKB_VERDICT),
    ("msg_verdict", ProgramKind::SK_MSG, BPF_SK_MSG_VERDICT),
];
/// The first kernel with links for it (`sock_map_link_create`, net/core/sock_map.c).
const SINCE: (u32, u32) = (6, 10);

/// Runs `program` for the sockets that are put into the map from now on: at the hook its section names, or `hook`.
///
/// # Errors
/// EINVAL for a map or a program of another kind; EBUSY when the map has a program there, or one that excludes it; EOPNOTSUPP
/// before Linux 6.10, and without CONFIG_BPF_STREAM_PARSER; EPERM without CAP_NET_ADMIN.
pub fn attach_sockmap(map: &Map, program: &Program, hook: Option<&str>) -> Result<Beyond> {
    let kind = map.info().kind;
    if ![MapKind::SOCKMAP, MapKind::SOCKHASH].contains(&kind) {
        return Err(Error::invalid("", format!("takes a sockmap or a sockhash, not a {kind}")));
    }
    let (word, attach_type) = hook_of(program, hook)?;
    let subject = format!("{}, {word}", map.name());
    let link = sys::link_create_on(program.as_fd(), map.as_fd(), attach_type as u32);
    let link = link.map_err(|errno| {
        let error = match errno {
            Errno::EBUSY => Error::new("", "EBUSY", "the map has a program there, or one that excludes it")
                .hint("each hook takes one program; stream_verdict and verdict exclude each other"),
            Errno::EINVAL if release::version().is_some_and(|version| version < SINCE) => {
                let (major, minor) = SINCE;
                let message = format!("attachments to sockmaps that end with their script need Linux {major}.{minor}, this is {}", release::name());
                Error::new("", "EOPNOTSUPP", message)
                    .hint("pin both, then: bpftool prog attach pinned PROGRAM HOOK pinned MAP")
            }
            Errno::EOPNOTSUPP => Error::new("", "EOPNOTSUPP", format!("this kernel has no {word} hook"))
                .hint("it needs CONFIG_BPF_STREAM_PARSER"),
            errno => refusal("", errno),
        };
        error.subject(subject.clone())
    })?;
    Beyond::new("sockmap", subject, program, link, None)
}

/// The hook that is asked for, or said by the program's section.
fn hook_of(program: &Program, asked: Option<&str>) -> Result<(&'static str, bpf_attach_type)> {
    let fitting = || HOOKS.iter().filter(|(_, kind, _)| *kind == program.kind());
    let words: Vec<&str> = fitting().map(|(word, ..)| *word).collect();
    if words.is_empty() {
        let sections = ["sk_skb/stream_verdict", "sk_skb/verdict", "sk_msg"];
        return Err(wrong_type(program, "which does not go on a map of sockets", &sections));
    }
    let section = ProgramSection::parse(program.section(), 0);
    let said = section.map(|section| section.expected_attach_type);
    let found = match asked {
        Some(asked) => fitting().find(|(word, ..)| *word == asked),
        None => fitting().find(|(.., attach)| words.len() == 1 || said == Some(*attach as u32)),
    };
    let hint = format!("it is one of {}", words.join(", "));
    match (found, asked) {
        (Some((word, _, attach_type)), _) => Ok((word, *attach_type)),
        (None, Some(asked)) => {
            let message = format!("a program of type {} has no hook \"{asked}\"", program.kind());
            Err(Error::invalid("", message).hint(hint))
        }
        (None, None) => {
            let message = format!("the hook of program \"{}\" is not known", program.name());
            Err(Error::invalid("", message).hint(format!("give hook: {hint}")))
        }
    }
}
