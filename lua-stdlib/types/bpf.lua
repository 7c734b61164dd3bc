---@meta cnf.bpf

--- eBPF objects, programs, maps, and what of them is loaded on this system. Loading needs CAP_BPF and CAP_NET_ADMIN
--- (EPERM names them). See bpf(2), `Documentation/bpf/libbpf/program_types.rst`.
---@class cnf.bpf
local bpf = {}

--- What every way of loading takes.
---@class cnf.LoadOptions
---@field name? string What messages call the object; the path by default.
---@field globals? table<string, any> Values of global variables, `const volatile` ones too, set before the programs are verified. An unknown name raises ENOENT and names the nearest; a value that does not fit raises EINVAL or ERANGE.
---@field max_entries? table<string, integer> Sizes of maps, in entries, by name.
---@field maps? table<string, cnf.Map> Maps that exist already, used in place of the object's own of that name: this is how objects share maps. Type, key and value size must agree (EINVAL).
---@field pins? string A folder on a bpffs for the maps that are declared to be pinned by name (`__uint(pinning, LIBBPF_PIN_BY_NAME)`): they are opened there, from whatever object has pinned them, or pinned there, and stay. Without it such maps are the object's own. EINVAL for a pin of another type.
---@field fresh? string[] Maps that a later load of the script makes anew: it goes on with the others, where their shape is the same.
---@field said? string What the script says with the object, where some of its maps are fresh: a later load that says the same, of the same object with the same options, keeps those too.
---@field programs? string[] Only these programs; by default all but those in optional sections (`SEC("?tc")`).

--- Loads a compiled object: makes its maps, sets its globals, relocates (CO-RE, bpf-to-bpf calls, maps) and has the
--- verifier look at its programs.
---
--- Sections: `tc`, `classifier`, `action`, `tcx/ingress`, `tcx/egress`, `netkit/primary`, `netkit/peer`, `xdp`,
--- `xdp.frags`, `xdp/devmap`, `xdp/cpumap`, `socket`, `cgroup_skb/ingress`, `cgroup_skb/egress`, `cgroup/connect4`, `6`,
--- `bind`, `sendmsg`, `recvmsg`, `getpeername`, `getsockname`, `post_bind` (each `4` and `6`), `cgroup/sock_create`,
--- `sock_release`, `getsockopt`, `setsockopt`, `dev`, `sysctl`, `sockops`, `sk_lookup`, `tracepoint/GROUP/NAME`,
--- `raw_tp/NAME`, `kprobe/FUNCTION`, `kretprobe/FUNCTION`, `fentry/FUNCTION`, `fexit/FUNCTION`, `tp_btf/NAME`; and,
--- to be attached by others through a pin (`ip route ... encap bpf`, `bpftool prog attach`), `sk_skb/stream_parser`,
--- `sk_skb/stream_verdict`, `sk_skb/verdict`, `sk_msg`, `sk_reuseport`, `flow_dissector`, `lwt_in`, `lwt_out`, `lwt_xmit`,
--- `lwt_seg6local`, `perf_event`, `raw_tp.w/NAME`. Those without a target in capitals with or without a trailing `/name`.
--- Any other raises EINVAL and names the nearest. An object has the licence its `SEC("license")` states; without one it has
--- none, and the verifier refuses it the helpers that are for GPL programs only.
---
--- Nothing stays loaded because of an object alone: a process whose script has ended does not wait for it.
---
--- In a reload, the object of the same name (`name`, or the path; of several with one name, the one in the same place of their
--- order) goes on as it is when its bytes and options are the same. Changed ones are loaded anew and go on with those of its
--- maps that have the same type, sizes, flags and BTF types, with what is in them; a line says why another is new. Data
--- sections are kept when their variables and initial values are the same, constants and program arrays never. What the load
--- writes to live maps and variables waits for its commit; it reads its own writes.
---
--- Raises ENOENT without the file; EINVAL for what is no eBPF object, saying what it is instead; the verifier's errno
--- (EACCES, EINVAL, E2BIG ...) with its reason and the place in the C source, and as `e.detail` the line, what the
--- registers held and the verifier's own words. `cnfscript --verifier-log FILE` writes all that it says.
---@param source string|{bytes: string} A path, or the file's bytes.
---@param options? cnf.LoadOptions
---@return cnf.Object
function bpf.load(source, options) end

--- What `bpf.compile` takes besides.
---@class cnf.CompileOptions: cnf.LoadOptions
---@field cflags? string[] Further flags for clang, after `-target bpf -O2 -g -mcpu=v3 -Wall`.
---@field include? string[] Folders of headers, searched before the system's.

--- Compiles C with clang and loads it. Objects are cached by the content of the source and all its headers, the flags
--- and clang's version, in `$XDG_CACHE_HOME/cnfscript` or /var/cache/cnfscript; `$CLANG` names another clang.
---
--- Raises ENOENT without clang, EINVAL when it refuses, with its diagnostics as `e.detail`; else as `bpf.load`.
---
--- ```lua
--- local object = bpf.compile { source = [[
---   #include <linux/bpf.h>
---   #include <bpf/bpf_helpers.h>
---   SEC("tc") int pass(struct __sk_buff *skb) { return -1; }
--- ]] }
--- bpf.attach(eth0, "ingress", object.programs.pass)
--- ```
---@param source string|{source: string} A path, or C text, whose `#include "..."` start at the working directory.
---@param options? cnf.CompileOptions
---@return cnf.Object
function bpf.compile(source, options) end

--- Loads a program that comes with cnfscript. An unknown name raises ENOENT with those there are.
---@param name string
---@param options? cnf.LoadOptions
---@return cnf.Object
function bpf.builtin(name, options) end

--- Puts a program on a link: on tcx where this kernel has it (Linux 6.6), else as a clsact filter, where the order
--- words become priorities. Options and errors as `tcx.attach` or `tc.attach`.
---@param link cnf.Link
---@param direction "ingress"|"egress"
---@param program cnf.Program
---@param options? cnf.AttachOptions
---@return cnf.Attachment
function bpf.attach(link, direction, program, options) end

--- Opens what is pinned at a path on a bpffs, by this script's `pin`, by `bpftool prog pin`, by another program. ENOENT when
--- nothing is, EACCES for a folder or a file elsewhere, EINVAL when it is not of the kind that was asked for.
---@param path string
---@param kind? "program"|"map"|"link" What it must be; anything by default.
---@return cnf.Program|cnf.Map|cnf.BpfLink
function bpf.pinned(path, kind) end

--- A bpf link that somebody has pinned: a program that stays on its hook as long as the pin is there.
---@class cnf.BpfLink
---@field id integer
local BpfLink = {}

--- What the kernel says of it: `index` of xdp, tcx and netkit, 0 when the device is gone.
---@return {id: integer, type: string, program_id: integer, index?: integer, attach_type?: integer, cgroup_id?: integer, netns_inode?: integer}
function BpfLink:info() end

--- Takes its program off the hook. The pin stays until its file is removed.
function BpfLink:detach() end

--- Runs a program for the processes of a cgroup, and of those below it: packets they send or get (`cgroup_skb`), addresses
--- they connect, bind or send to, which it may change (`cgroup/connect4`, `sendmsg4` ...), sockets they make, the states
--- of their connections (`sockops`). Several programs of one hook all run; packets and calls pass when all say 1.
---
--- `path` is a directory of a cgroup file system of version 2; a relative one starts where that is mounted. Raises ENOENT
--- without it, EINVAL when it is none or for a program that goes elsewhere, EPERM when a program above allows no other.
--- (`Documentation/bpf/libbpf/program_types.rst`, `bpftool cgroup tree`)
---@param path string
---@param program cnf.Program
---@param options? {hook: string} Which hook, "connect4": of a program that was loaded elsewhere; else its section says it.
---@return cnf.BeyondAttachment
function bpf.attach_cgroup(path, program, options) end

--- Runs a program (`SEC("sk_lookup")`) whenever a connection or datagram looks for its socket in a namespace: it can refuse
--- it (SK_DROP), let it pass, or choose a socket. E2BIG when 64 are there. (`Documentation/bpf/prog_sk_lookup.rst`)
---@param netns cnf.Netns|string
---@param program cnf.Program
---@return cnf.BeyondAttachment
function bpf.attach_sk_lookup(netns, program) end

--- Runs a program for what the sockets of a sockmap or sockhash receive (`SEC("sk_skb/verdict")`, `sk_skb/stream_verdict`,
--- `sk_skb/stream_parser`) or send (`SEC("sk_msg")`): it passes it on, drops it, or redirects it to another socket of the map.
--- A socket keeps the programs that its map has when it is put in, until it leaves: what is attached, replaced or detached
--- later is for later ones. A Server of `probe.serve` goes in by `m:set`, connections by a `sockops` program. A UDP socket
--- in such a map no longer tells who a datagram is from, so a Server cannot answer. Each hook takes one program, EBUSY.
---
--- Raises EINVAL for a map or a program of another kind, EOPNOTSUPP before Linux 6.10. (net/core/sock_map.c,
--- `Documentation/bpf/map_sockmap.rst`)
---@param map cnf.Map
---@param program cnf.Program
---@param options? {hook: "stream_parser"|"stream_verdict"|"verdict"|"msg_verdict"} Of a program that was loaded elsewhere; else its section says it.
---@return cnf.BeyondAttachment
function bpf.attach_sockmap(map, program, options) end

--- Runs a program where its section says: `tracepoint/GROUP/NAME`, `raw_tp/NAME`, `kprobe/FUNCTION`, `kretprobe/FUNCTION`,
--- `fentry/FUNCTION`, `fexit/FUNCTION`, `tp_btf/NAME`: on every processor, for all processes. `to` names another place of
--- the same kind, as a section would or without its first word; not for fentry, fexit and tp_btf, which are loaded for one.
---
--- Raises ENOENT and names the nearest tracepoint, or when there is no such function; EOPNOTSUPP where the kernel has no
--- kprobes; EINVAL for a program that traces nothing. (bpf(2), perf_event_open(2))
---@param program cnf.Program
---@param options? {to: string}
---@return cnf.BeyondAttachment
function bpf.attach_tracing(program, options) end

--- Every program on this system, of all processes, by id.
---@return cnf.ProgramInfo[]
function bpf.programs() end

--- Every map on this system, of all processes, by id; names are cut at 15 bytes by the kernel.
---@return cnf.MapInfo[]
function bpf.maps() end

--- Every bpf link on this system, of all processes, by id. `index` is an interface index, in a namespace the kernel
--- does not tell; 0 when the device is gone. `attach_type` is the number of `enum bpf_attach_type`, of cgroup, netns, tcx,
--- netkit and tracing links; `cgroup_id` the inode of the cgroup's directory, `netns_inode` that of the namespace's file.
---@return {id: integer, type: string, program_id: integer, index: integer?, attach_type: integer?, cgroup_id: integer?, netns_inode: integer?}[]
function bpf.links() end

--- What this kernel can do. Every answer comes from trying, never from a version number.
---@class cnf.Feature
---@field available boolean
---@field reason? string Why not.
---@field group string "system", "hooks", "program types", "map types", "link kinds", "queueing disciplines".
---@field without string What cnfscript does where it is missing.

--- Every feature by name: "tcx", "netkit", "btf", "prog_sk_lookup", "map_queue", "vxlan", "netem" ... `cnfscript
--- features` prints them as a table. All are tried at the first call: some tenths of a second. Raises EPERM when
--- privileges are missing to try them.
---@return table<string, cnf.Feature>
function bpf.features() end

--- One feature. An unknown name raises EINVAL and names the nearest.
---@param feature string
---@return cnf.Feature
function bpf.has(feature) end

--- Calls `fn(line, about)` for each line of `bpf_printk` from now on, of every program on this system, in a task of its
--- own. `about` has `cpu`, `thread` (the thread that ran when the program did; 0 is an idle processor) and `time`
--- (seconds since boot).
---
--- Each listener has a buffer of its own: nobody's `trace_pipe` loses a line to it, and no setting of the system's
--- tracing changes. Lines that find no room in it (256 KiB for each processor) are counted as `lost`, and said.
---
--- Raises ENOENT where no tracefs is mounted, EPERM without CAP_PERFMON. (perf_event_open(2), tracepoint
--- bpf_trace:bpf_trace_printk)
---@param fn fun(line: string, about: {cpu: integer, thread: integer, time: number})
---@return cnf.RecordSubscription
function bpf.trace(fn) end

--- The helpers (bpf-helpers(7)) that each type of program may call on this kernel: `bpf.helpers().tc`. About two
--- thousand tiny programs are tried, which takes some tenths of a second.
---@return table<string, string[]>
function bpf.helpers() end

--- A loaded object: its programs and maps.
---@class cnf.Object
---@field name string
---@field programs table<string, cnf.Program> By function name. A name that is not there raises ENOENT and names the nearest.
---@field maps table<string, cnf.Map> By name; data sections are ".rodata", ".data", ".bss". A name that is not there raises ENOENT.
---@field globals table<string, any> Global variables by name, read and written while the programs run: `o.globals.limit = 5`; numbers change in one step, and `pairs` goes through all. Values as those of maps (EINVAL, ERANGE). A constant (`const volatile`) raises EPERM: the `globals` of `bpf.load` set it. ENOENT names the nearest; variables are known by BTF. What a later load of the script writes, and reads itself, its programs see at the commit.
local Object = {}

--- Lets go of the object; using it afterwards raises ENODEV. What is attached stays attached, and a program or map
--- that the script holds, or that another program uses, stays loaded.
function Object:unload() end

--- What the kernel says of a program.
---@class cnf.ProgramInfo
---@field id integer
---@field name string
---@field type string "tc", "xdp" ...
---@field tag string Hash of its instructions, 16 hexadecimal digits.
---@field instructions integer As verified and rewritten by the kernel.
---@field map_ids integer[] Ids of the maps it uses; `bpf.maps()` has what they are.
---@field btf_id integer
---@field gpl_compatible boolean
---@field uid integer Of the user who loaded it.
---@field load_time number Seconds since boot.
---@field translated_size integer Bytes of eBPF code as verified.
---@field jited_size integer Bytes of machine code; 0 when it is interpreted.
---@field verified_instructions integer
---@field run_count integer Counted only while the sysctl kernel.bpf_stats_enabled is 1.
---@field run_time number Seconds, counted as run_count.

--- A loaded program.
---@class cnf.Program
---@field name string The function's whole name, as the source spells it.
---@field type string "tc" for every hook but xdp, "xdp", "socket_filter" ...
---@field id integer
---@field tag string Hash of its instructions, 16 hexadecimal digits.
local Program = {}

--- Asks the kernel.
---@return cnf.ProgramInfo
function Program:info() end

--- What a run gave. `verdict` is the result in words: "pass", "drop", "next" (-1 of tc programs), "redirect", "tx" ...;
--- nil where results have none. `ctx` is the context as the program left it; nil for types without, and for xdp unless it
--- was given.
---@class cnf.TestRun
---@field retval integer
---@field verdict? string
---@field packet string As the program left it.
---@field ctx? {mark: integer, priority: integer, ifindex: integer, ingress_ifindex: integer, tstamp: integer, wire_len: integer, gso_segs: integer, gso_size: integer, cb: integer[], rx_queue_index: integer}|string
---@field nanoseconds integer Of one run, on average.

--- Runs the program on a packet that nobody sends (BPF_PROG_TEST_RUN, net/bpf/test_run.c).
---
--- `packet` is an Ethernet frame, at least 14 bytes and about 3500 at most (EINVAL); `packet.build` makes one. Runs of
--- `repeat_count` see what the one before left of it, and a new one after every hundred thousand; between those they can be
--- interrupted. `ctx` of tc programs: mark,
--- priority, ifindex, ingress_ifindex, tstamp, wire_len, gso_segs, gso_size; of xdp: ingress_ifindex, rx_queue_index; of
--- every other type the bytes of its context. An interface index can be given as a Link, and then the program runs in its
--- namespace. EOPNOTSUPP for types that the kernel cannot run so (kprobe, tracepoint, cgroup_sock_addr ...).
---@param options {packet: string, repeat_count: integer?, ctx: table|string|nil}
---@return cnf.TestRun
function Program:test_run(options) end

--- Keeps the program at a path on a bpffs after this process; EEXIST when the path is taken, EPERM or EINVAL with a
--- hint when it lies on no bpffs. Remove the file to let go of it.
---@param path string
function Program:pin(path) end

--- What the kernel says of a map.
---@class cnf.MapInfo
---@field id integer
---@field name string
---@field type string "hash", "lpm_trie" ...
---@field key_size integer Bytes.
---@field value_size integer Bytes, of one CPU's value in per-CPU maps.
---@field max_entries integer
---@field flags integer BPF_F_*
---@field btf_id integer
---@field key_type? string As C spells it; not in `bpf.maps()`.
---@field value_type? string As C spells it; not in `bpf.maps()`.

--- A map. Keys and values follow its BTF: structs are tables by field name (fields that are not given are zero),
--- arrays are arrays, char arrays strings, enums their names (numbers are taken too). `__be32` reads as an IPv4 string
--- (an integer in host order is taken too), `struct in6_addr` as an IPv6 string, `__be16` and `__be64` as integers in
--- host order. An LPM key of a prefix length and 4 or 16 bytes is a CIDR string. A 64-bit unsigned number of 2^63 or
--- more reads, and is written, as Lua's negative integer of the same bits (`%x`, `math.ult`); pointers are such numbers.
--- Integers of 128 bits are strings of bytes, and so are the kernel's own structs (`struct bpf_spin_lock`). Without BTF:
--- strings of bytes, or integers where the size is 1, 2, 4 or 8.
---
--- Per-CPU values are arrays, the first element of CPU 0, with `:sum()`; one value that is not an array is written for
--- every CPU. Program arrays take a Program, maps of maps a Map, and give handles back; devmaps take a Link, also as
--- `{ifindex = link}`; cpumaps a queue size. Sockmaps and sockhashes take a Server, or a descriptor of this process, and
--- give the socket's cookie (EOPNOTSUPP where values have 4 bytes); a socket that closes leaves them. Socket storage takes
--- either as its key; the kernel does not list its elements (EOPNOTSUPP of `pairs`, `len` and `clear`).
---
--- Members of a union read all; written together they must agree.
---
--- A value of another type or an unknown field raises EINVAL, a number that does not fit ERANGE, with the field's
--- path. `#m` is `m:len()`.
---@class cnf.Map
---@field name string As the source spells it.
---@field id integer
local Map = {}

--- The value at `key`, or nil.
---@param key any
---@return any value
function Map:get(key) end

--- Writes one element. Raises EEXIST with "noexist" and ENOENT with "exist" when they say so; E2BIG when the map is
--- full or an index is beyond the array's end.
---@param key any
---@param value any
---@param flag? "any"|"noexist"|"exist"
function Map:set(key, value, flag) end

--- Deletes one element; whether it was there. An array's elements cannot be deleted (EINVAL).
---@param key any
---@return boolean
function Map:delete(key) end

--- `for key, value in m:pairs() do`: every element, in no order, read in batches before the loop starts. Of arrays
--- every index; of program arrays and devmaps those that are set.
---@return fun(): any, any
function Map:pairs() end

--- How many elements there are now, counted one by one; of an array all its elements. EOPNOTSUPP for queues, stacks
--- and ring buffers, where the kernel does not say.
---@return integer
function Map:len() end

--- Deletes every element; an array's become zero.
function Map:clear() end

--- Writes many elements in batches. Keys and values are checked before the first is written, but what was written
--- before the kernel refused one stays, and the error says how many.
---@param elements table<any, any>|(fun(): any, any)|{[1]: string, [2]: string} A table by key, an iterator (`m:set_many(pairs(t))`), or two strings: keys and values packed one after the other.
---@param ... any The state and first value of the iterator.
---@return integer count
function Map:set_many(elements, ...) end

--- Deletes many elements in batches; how many were there.
---@param keys any[]|(fun(): any)|string An array, an iterator (`m:delete_many(pairs(t))`), or keys packed one after the other.
---@param ... any The state and first value of the iterator.
---@return integer count
function Map:delete_many(keys, ...) end

--- Queues, stacks, bloom filters: adds a value. E2BIG when full.
---@param value any
function Map:push(value) end

--- Queues: the oldest value, stacks: the newest, removed; nil when empty. EAGAIN while a reload runs, of a map that is live.
---@return any value
function Map:pop() end

--- As `pop`, but the value stays. Of a bloom filter, whether it may hold `value`: false is certain.
---@param value? any Of bloom filters.
---@return any value
function Map:peek(value) end

--- Calls `fn(record, rest)` for each record that programs send through a ring buffer or a perf event array, in a task
--- of its own, in batches: ring buffers in order, perf arrays in order for each processor. While the handler waits,
--- later records stay in the map's buffer. An error in it is printed with its line, at most one a second, and the next
--- record comes all the same.
---
--- A record is decoded by the type that the map's declaration names, `__type(value, struct event)` (which libbpf refuses
--- for ring buffers), or by `type`; without one it is a string. `rest` is what a record has behind its type, such as the
--- packet that `bpf_perf_event_output` appends; of perf arrays it ends with up to 7 bytes of padding.
---
--- A record is the handler's to keep. A handler that takes it by name and only reads fields of it (`record.bytes`) is about
--- four times as fast as one that hands the record on, keeps it or goes through it: just these fields are decoded.
---
--- While a reload loads the script anew, records still go to the script that runs; the new one's come from the commit on.
---
--- Nothing is lost silently. A perf array's records that find no room are counted by the kernel, as `lost`, and said. A
--- ring buffer that has no room tells the program (`bpf_ringbuf_reserve` returns NULL, `bpf_ringbuf_output` fails) and
--- nobody else, so a program should count that; the script is told when the buffer was found full (`fullest`).
---
--- Raises EINVAL for other maps; EBUSY when the map has a subscription in this script already (readers in other
--- processes cannot be seen, and take records away); ENOENT for a `type` that the object's BTF does not have; EINVAL for
--- a perf array with fewer places than processors. (kernel/bpf/ringbuf.c, perf_event_open(2))
---@param fn fun(record: any, rest: string?)
---@param options? {type?: string, buffer?: integer|string, interval?: number|string} `type`: "struct event", in place of the map's own. `buffer`: bytes for each processor, of perf arrays, 256k by default; a ring buffer has its size from max_entries. `interval`: look that often even when nobody wakes us, for programs that send with BPF_RB_NO_WAKEUP.
---@return cnf.RecordSubscription
function Map:on_record(fn, options) end

--- The map's shape.
---@return cnf.MapInfo
function Map:info() end

--- Keeps the map at a path on a bpffs after this process; errors as `Program:pin`.
---@param path string
function Map:pin(path) end

--- A handler of records that is being called.
---@class cnf.RecordSubscription
---@field what string The map's name, or "bpf_printk".
---@field task cnf.Task The task that calls the handler.
local RecordSubscription = {}

--- Ends it: the handler is not called again, and is cancelled where it waits. Records that it has not seen stay in a
--- ring buffer; perf buffers go.
function RecordSubscription:close() end

--- What has come so far. `errors` of the handler; `lost`: records that found no room in the buffer, which the kernel
--- counts for perf arrays and bpf_printk, not for ring buffers (nil); `fullest`: the largest share of the buffer that was
--- found used, 0 to 1.
---@return {records: integer, errors: integer, lost: integer?, fullest: number}
function RecordSubscription:stats() end

--- What an attachment is given. At most one of the order words.
---@class cnf.AttachOptions
---@field slot? string Names the attachment on its hook, across reloads too; the program's name by default. Two of one name: EEXIST.
---@field first? boolean Before all that are there now.
---@field last? boolean After all that are there now; so is the default.
---@field before? cnf.Attachment|cnf.Program|integer An attachment, a program or a program's id on this hook; ENOENT when it is not there.
---@field after? cnf.Attachment|cnf.Program|integer As `before`.
---@field behind? string[] Names of programs: before the first on the hook that has none of them. It means the same place to the next load of the script, whose programs are others of the same names.

--- The programs of a hook, in the order they run.
---@class cnf.HookQuery
---@field revision integer Counts the changes of a tcx or netkit hook; 0 where the kernel does not count.
---@field programs {id: integer, name: string, tag: string, link_id: integer?}[]

--- A program on a hook. It stays there until it is detached, its link is deleted, or the instance ends; losing the
--- handle does nothing.
---@class cnf.Attachment
---@field link cnf.Link
---@field slot string
local Attachment = {}

--- Puts another program in the place of this one, in one step: every packet sees one of them. ENODEV when the device
--- is gone or it was detached, EINVAL for a program of another type; on tcx and netkit EEXIST when another attachment of this
--- hook has the program. The program that it has already changes nothing.
---@param program cnf.Program
function Attachment:replace(program) end

--- Takes the program off. Nothing happens when it is off, or the device gone, already.
function Attachment:detach() end

--- Asks the kernel. ENODEV when the device is gone or it was detached. `mode` is of xdp ("native", "generic",
--- "offload"), `priority` and `handle` of tc, `link_id` of all others.
---@return {hook: string, side: string, link: string, index: integer, slot: string, program: string, program_id: integer, link_id: integer?, mode: string?, priority: integer?, handle: integer?}
function Attachment:info() end

--- A program on a hook that is on no link: a cgroup, a namespace, a tracepoint, a kernel function. It stays there until it
--- is detached or the instance ends; losing the handle does nothing. It does not outlive the process.
---@class cnf.BeyondAttachment
---@field target string Where it is: "/sys/fs/cgroup/x, connect4", "sched/sched_switch".
local BeyondAttachment = {}

--- Puts another program of the same type in the place of this one, in one step. EOPNOTSUPP for tracing, where the kernel
--- cannot; ENODEV when it was detached, or its cgroup or namespace is gone.
---@param program cnf.Program
function BeyondAttachment:replace(program) end

--- Takes the program off. Nothing happens when it is off already.
function BeyondAttachment:detach() end

--- Asks the kernel. ENODEV when it was detached, or its cgroup or namespace is gone.
---@return {hook: string, target: string, program: string, program_id: integer, link_id: integer}
function BeyondAttachment:info() end

return bpf
