//! As users of aya-ebpf write: an XDP program that counts packets and bytes by IPv4 source and drops one protocol.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::{HashMap, PerCpuArray},
    programs::XdpContext,
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    pub packets: u64,
    pub bytes: u64,
}

#[map]
static SOURCES: HashMap<u32, Seen> = HashMap::with_max_entries(1024, 0);

#[map]
static TOTAL: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[no_mangle]
static DROPPED_PROTOCOL: u8 = 255;

#[xdp]
pub fn count_sources(ctx: XdpContext) -> u32 {
    count(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn at<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let place = ctx.data() + offset;
    if place + core::mem::size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(unsafe { (place as *const T).read_unaligned() })
}

#[inline(always)]
fn count(ctx: &XdpContext) -> Option<u32> {
    if let Some(total) = TOTAL.get_ptr_mut(0) {
        unsafe { *total += 1 };
    }
    if u16::from_be(at(ctx, 12)?) != 0x0800 {
        return None;
    }
    let (protocol, source): (u8, u32) = (at(ctx, 14 + 9)?, at(ctx, 14 + 12)?);
    let bytes = (ctx.data_end() - ctx.data()) as u64;
    match SOURCES.get_ptr_mut(&source) {
        Some(seen) => unsafe {
            (*seen).packets += 1;
            (*seen).bytes += bytes;
        },
        None => drop(SOURCES.insert(&source, &Seen { packets: 1, bytes }, 0)),
    }
    let dropped = unsafe { core::ptr::read_volatile(&DROPPED_PROTOCOL) };
    Some(if protocol == dropped { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[link_section = "license"]
#[no_mangle]
static LICENSE: [u8; 4] = *b"GPL\0";
