/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Several XDP programs on one link: `dispatch` (dispatch.bpf.c) holds the hook and calls the stages by tail call, in order; a
 * stage that lets a frame pass calls the next. A stage comes and goes by one write into the array, the hook itself unchanged.
 *
 * Tail calls and not freplace: nothing has to be loaded again, or checked against the dispatcher's types, when a stage comes or
 * goes; an empty place costs a jump (the kernel patches the calls in place); and a chain that is full is found by a lookup.
 */
#ifndef STAGES_H
#define STAGES_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Which kind of program stands where: lua-stdlib/stages.lua. */
#define STAGES 16

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

/* Goes on with the first stage from `first` on; to the network stack, when there is none. */
static __always_inline int run_stages(struct xdp_md *ctx, __u32 first)
{
#pragma unroll
	for (__u32 i = 0; i < STAGES; i++) {
		if (i >= first)
			bpf_tail_call(ctx, &stages, i);
	}
	return XDP_PASS;
}

/* This program's own place. */
const volatile __u32 stage = 0;

static __always_inline int next_stage(struct xdp_md *ctx)
{
	return run_stages(ctx, stage + 1);
}

#endif
