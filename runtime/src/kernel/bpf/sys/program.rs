//! Loading programs and BTF, and running a program.

use super::*;

/// What `BPF_PROG_LOAD` takes.
#[derive(Debug, Clone, Copy)]
pub struct ProgramAttr<'a> {
    pub kind: u32,
    pub name: &'a str,
    pub instructions: &'a [bpf_insn],
    pub license: &'a CStr,
    pub flags: u32,
    pub expected_attach_type: u32,
    pub kernel_version: u32,
    /// The kernel function or struct that the program is for, by its number in the kernel's BTF; 0 for none.
    pub attach_btf_id: u32,
    pub btf: Option<BorrowedFd<'a>>,
    /// Packed `struct bpf_func_info` (8 bytes each); needs `btf`.
    pub func_info: &'a [u8],
    /// Packed `struct bpf_line_info` (16 bytes each); needs `btf`.
    pub line_info: &'a [u8],
}

pub const FUNC_INFO_SIZE: u32 = 8;
const LINE_INFO_SIZE: u32 = 16;

/// Loads and verifies. With `log` = (level, buffer) the verifier writes its text there, NUL-terminated.
pub fn prog_load(spec: &ProgramAttr<'_>, log: Option<(u32, &mut [u8])>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_3 };
    u.prog_type = spec.kind;
    u.prog_name = object_name(spec.name);
    u.insns = spec.instructions.as_ptr() as u64;
    u.insn_cnt = spec.instructions.len() as u32;
    u.license = spec.license.as_ptr() as u64;
    u.prog_flags = spec.flags;
    u.expected_attach_type = spec.expected_attach_type;
    u.kern_version = spec.kernel_version;
    u.attach_btf_id = spec.attach_btf_id;
    if let Some(btf) = spec.btf {
        u.prog_btf_fd = raw(btf);
        if !spec.func_info.is_empty() {
            u.func_info = spec.func_info.as_ptr() as u64;
            u.func_info_rec_size = FUNC_INFO_SIZE;
            u.func_info_cnt = spec.func_info.len() as u32 / FUNC_INFO_SIZE;
        }
        if !spec.line_info.is_empty() {
            u.line_info = spec.line_info.as_ptr() as u64;
            u.line_info_rec_size = LINE_INFO_SIZE;
            u.line_info_cnt = spec.line_info.len() as u32 / LINE_INFO_SIZE;
        }
    }
    if let Some((level, buffer)) = log {
        u.log_level = level;
        u.log_buf = buffer.as_mut_ptr() as u64;
        u.log_size = buffer.len() as u32;
    }
    descriptor(bpf_cmd::BPF_PROG_LOAD, &mut a)
}

pub fn btf_load(data: &[u8], log: Option<&mut [u8]>) -> SysResult<OwnedFd> {
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.__bindgen_anon_7 };
    u.btf = data.as_ptr() as u64;
    u.btf_size = data.len() as u32;
    if let Some(buffer) = log {
        u.btf_log_level = 1;
        u.btf_log_buf = buffer.as_mut_ptr() as u64;
        u.btf_log_size = buffer.len() as u32;
    }
    descriptor(bpf_cmd::BPF_BTF_LOAD, &mut a)
}

/// What a test run gave back.
#[derive(Debug, Default, Clone)]
pub struct TestRun {
    pub retval: u32,
    pub packet: Vec<u8>,
    pub ctx: Vec<u8>,
    /// Average per repetition.
    pub nanoseconds: u32,
}

/// `BPF_PROG_TEST_RUN`: the packet may grow by up to 256 bytes; `ctx` is `struct __sk_buff` or `struct xdp_md`.
pub fn prog_test_run(
    fd: BorrowedFd<'_>,
    packet: &[u8],
    ctx: &[u8],
    repeat: u32,
) -> SysResult<TestRun> {
    let mut out = vec![0u8; packet.len() + 256];
    let mut ctx_out = vec![0u8; ctx.len()];
    let mut a = attr();
    // SAFETY: writing plain integers into a union of plain integers.
    let u = unsafe { &mut a.test };
    u.prog_fd = raw(fd);
    u.data_in = packet.as_ptr() as u64;
    u.data_size_in = packet.len() as u32;
    u.data_out = out.as_mut_ptr() as u64;
    u.data_size_out = out.len() as u32;
    u.repeat = repeat;
    if !ctx.is_empty() {
        u.ctx_in = ctx.as_ptr() as u64;
        u.ctx_size_in = ctx.len() as u32;
        u.ctx_out = ctx_out.as_mut_ptr() as u64;
        u.ctx_size_out = ctx_out.len() as u32;
    }
    unit(bpf_cmd::BPF_PROG_TEST_RUN, &mut a)?;
    // SAFETY: the same member of the union, written by the kernel.
    let u = unsafe { a.test };
    out.truncate(u.data_size_out as usize);
    ctx_out.truncate(u.ctx_size_out as usize);
    Ok(TestRun { retval: u.retval, packet: out, ctx: ctx_out, nanoseconds: u.duration })
}
