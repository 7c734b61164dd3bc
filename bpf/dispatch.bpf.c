// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * What holds a link's XDP hook for the library's programs: it calls them one after the other (stages.h).
 *
 * Maps
 *   stages   the programs, in order
 *
 * The fate of every frame: what the stages say; the network stack, when none says anything.
 */
#include "include/stages.h"

SEC("xdp.frags") int dispatch(struct xdp_md *ctx)
{
	return run_stages(ctx, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
