//! The layout that the eBPF half reads: bpf/include/router_abi.h, field by field.

/// A cell of an arena, in 64-bit words.
pub const CELL_WORDS: usize = 8;
pub const CELL_BYTES: u32 = 64;
pub const PROBE_LIMIT: u32 = 8;
pub const MAX_DEVICES: usize = 16384;
pub const MAX_SHAPES: usize = 64;

pub const KEY_USED: u64 = 1 << 63;
const KEY_LENGTH_SHIFT: u32 = 32;
const KEY_SIDE_SHIFT: u32 = 40;
pub const CONDITION_SHAPE_SHIFT: u32 = 8;
pub const CONDITION_VLAN_SHIFT: u32 = 16;
pub const VLAN_TAGGED: u16 = 0x1000;

pub const VALUE_ID_MASK: u64 = 0xff_ffff;
pub const VALUE_OWN: u64 = 1 << 24;
/// Policy ids are 24 bits; the first are the totals'.
pub const FIRST_POLICY_ID: u32 = 16;
pub const MAX_POLICIES: usize = (VALUE_ID_MASK as usize) - FIRST_POLICY_ID as usize;

const VERDICT_KIND_SHIFT: u32 = 28;
pub const VERDICT_PASS: u32 = 1;
pub const VERDICT_DROP: u32 = 2;
pub const VERDICT_HOP: u32 = 3;
pub const VERDICT_GROUP: u32 = 4;

pub const SHAPE_PROTOCOL: u8 = 0x01;
pub const SHAPE_SOURCE_PORT: u8 = 0x02;
pub const SHAPE_DESTINATION_PORT: u8 = 0x04;
pub const SHAPE_MARK: u8 = 0x08;
pub const SHAPE_VLAN: u8 = 0x10;

pub const HOP_TAG: u8 = 0x01;
pub const GROUP_MIRROR_TAG: u32 = 0x01;
pub const PLAN_NEEDS_PORTS: u32 = 0x01;

/// Slots of the map of maps; + the plan's index.
pub const SETS_ARENA: u32 = 0;
pub const SETS_COUNTERS: u32 = 2;
pub const SETS_MEMORY: u32 = 4;

/// Offsets in `struct state`.
pub const STATE_LIVE: usize = 0;
pub const STATE_TAG: usize = 4;
pub const STATE_PLAN: usize = 64;
pub const STATE_DOWN: usize = STATE_PLAN + 2 * PLAN_BYTES;

pub const PLAN_BYTES: usize = 5040;
const MAX_STEPS4: usize = 64;
const MAX_STEPS6: usize = 256;

/// What a counter below [`FIRST_POLICY_ID`] counts, in the order of `enum total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    Routed,
    Passed,
    Dropped,
    Unmatched,
    Local,
    TooBig,
    TooBigAnswered,
    Redirected,
    NoHop,
    Failed,
    Mirrored,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Source,
    Destination,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Source, Side::Destination];
}

/// The key of an IPv4 prefix, and the first word of an IPv6 one's.
pub fn prefix_key(side: Side, length: u8, address: u32) -> u64 {
    KEY_USED
        | (side as u64) << KEY_SIDE_SHIFT
        | u64::from(length) << KEY_LENGTH_SHIFT
        | u64::from(address)
}

pub fn verdict(kind: u32, index: u32) -> u32 {
    kind << VERDICT_KIND_SHIFT | index
}

pub fn value(id: u32, verdict: u32) -> u64 {
    u64::from(verdict) << 32 | VALUE_OWN | u64::from(id)
}

/// A node of the search over prefix lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    pub length: u8,
    pub hit: u8,
    pub miss: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    pub fields: u8,
    pub from_length: u8,
    pub to_length: u8,
    pub id: u8,
    pub priority: u32,
    pub specificity: u32,
    pub order: u32,
}

/// Where a set's sections are, in cells, and its lengths and shapes.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub seed: u64,
    pub table4: u32,
    pub mask4: u32,
    pub table6: u32,
    pub mask6: u32,
    pub conditions: u32,
    pub condition_mask: u32,
    pub groups: u32,
    pub hops: u32,
    pub buckets: u32,
    pub flags: u32,
    pub counter_capacity: u32,
    pub shard_mask: u32,
    pub fallback: [u64; 2],
    pub zero: [[u64; 2]; 2],
    /// Ascending, 0 not among them: [family][side].
    pub lengths: [[Vec<u8>; 2]; 2],
    /// The search's steps, the first at 1.
    pub steps: [[Vec<Step>; 2]; 2],
    /// Best first.
    pub shapes: [Vec<Shape>; 2],
}

impl Plan {
    /// `struct plan`, as words.
    pub fn words(&self) -> Vec<u64> {
        let mut out = Vec::with_capacity(PLAN_BYTES);
        out.extend(self.seed.to_ne_bytes());
        for word in [
            self.table4,
            self.mask4,
            self.table6,
            self.mask6,
            self.conditions,
            self.condition_mask,
            self.groups,
            self.hops,
            self.buckets,
            self.flags,
            self.counter_capacity,
            self.shard_mask,
        ] {
            out.extend(word.to_ne_bytes());
        }
        for word in self.fallback.iter().chain(self.zero.iter().flatten()) {
            out.extend(word.to_ne_bytes());
        }
        out.extend(self.lengths.iter().flatten().map(|lengths| lengths.len() as u8));
        out.extend(self.shapes.iter().map(|shapes| shapes.len() as u8));
        out.extend([0, 0]);
        for (steps, max) in self.steps.iter().zip([MAX_STEPS4, MAX_STEPS6]) {
            for side in steps {
                for i in 0..max {
                    let step = side.get(i).copied().unwrap_or_default();
                    out.extend([step.length, step.hit, step.miss, 0]);
                }
            }
        }
        for (lengths, max) in self.lengths.iter().zip([32, 128]) {
            for side in lengths {
                out.extend((0..max).map(|i| side.get(i).copied().unwrap_or(0)));
            }
        }
        for shapes in &self.shapes {
            for i in 0..MAX_SHAPES {
                let shape = shapes.get(i).copied().unwrap_or_default();
                out.extend([shape.fields, shape.from_length, shape.to_length, shape.id]);
                out.extend(shape.priority.to_ne_bytes());
                out.extend(shape.specificity.to_ne_bytes());
                out.extend(shape.order.to_ne_bytes());
            }
        }
        assert_eq!(out.len(), PLAN_BYTES, "struct plan of router_abi.h");
        out.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8"))).collect()
    }
}

/// The words of a `struct hop`, half a cell.
pub fn hop_words(ifindex: u32, device: u16, via: Option<std::net::IpAddr>, flags: u8) -> [u64; 4] {
    let mut bytes = [0u8; 32];
    bytes[..4].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[4..6].copy_from_slice(&device.to_ne_bytes());
    bytes[7] = flags;
    match via {
        None => {}
        Some(std::net::IpAddr::V4(a)) => {
            bytes[6] = 4;
            bytes[8..12].copy_from_slice(&a.octets());
        }
        Some(std::net::IpAddr::V6(a)) => {
            bytes[6] = 6;
            bytes[8..24].copy_from_slice(&a.octets());
        }
    }
    std::array::from_fn(|i| u64::from_ne_bytes(bytes[i * 8..][..8].try_into().expect("8")))
}

/// Two 32-bit fields that follow each other in memory, as one word.
pub fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0u8; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}
