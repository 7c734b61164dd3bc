//! Conditional policies: grouped by shape, which is the fields and prefix lengths they compare, so that a packet asks one
//! hash table once per shape (bpf/include/match.h).

use std::collections::BTreeMap;

use super::abi::{self, Plan, Shape};
use super::policy::{Family, Match, Policy};
use super::table::{Kind, Table};
use crate::{Error, Result};

/// Fields that packets' programs do not look at: a prefix without length is another match than none.
const SHAPE_FROM: u8 = 0x40;
const SHAPE_TO: u8 = 0x80;

fn shape_fields(m: &Match) -> u8 {
    let mut fields = 0;
    for (present, bit) in [
        (m.from.is_some(), SHAPE_FROM),
        (m.to.is_some(), SHAPE_TO),
        (m.proto.is_some(), abi::SHAPE_PROTOCOL),
        (m.sport.is_some(), abi::SHAPE_SOURCE_PORT),
        (m.dport.is_some(), abi::SHAPE_DESTINATION_PORT),
        (m.mark.is_some(), abi::SHAPE_MARK),
        (m.vlan.is_some(), abi::SHAPE_VLAN),
    ] {
        fields |= if present { bit } else { 0 };
    }
    fields
}

/// The table of conditional policies, and the plan's shapes, best first.
///
/// # Errors
/// E2BIG for more than 64 shapes in one family.
pub fn condition_table(
    plan: &mut Plan,
    conditions: &[(Family, u32, &Policy, u64)],
) -> Result<Table> {
    type ShapeKey = (u8, u8, u8);
    let key = |m: &Match| -> ShapeKey {
        (shape_fields(m), m.from.map_or(0, |p| p.length()), m.to.map_or(0, |p| p.length()))
    };
    let mut shapes: [BTreeMap<ShapeKey, Shape>; 2] = Default::default();
    for (family, order, policy, _) in conditions {
        let known = &mut shapes[*family as usize];
        let id = known.len() as u8 + abi::MAX_SHAPES as u8 * (*family as u8);
        let (fields, from_length, to_length) = key(&policy.matching);
        let shape = known.entry((fields, from_length, to_length)).or_insert(Shape {
            fields,
            from_length,
            to_length,
            id,
            priority: u32::MAX,
            specificity: policy.matching.specificity(),
            order: u32::MAX,
        });
        (shape.priority, shape.order) =
            (shape.priority, shape.order).min((policy.priority, *order));
        if known.len() > abi::MAX_SHAPES {
            return Err(Error::new(
                "router:set",
                "E2BIG",
                "this is the 65th different shape of conditional policies, 64 is the most",
            )
            .subject(policy.to_string())
            .hint("policies share a shape when they match the same fields with the same prefix lengths"));
        }
        if fields & (abi::SHAPE_SOURCE_PORT | abi::SHAPE_DESTINATION_PORT | abi::SHAPE_PROTOCOL)
            != 0
        {
            plan.flags |= abi::PLAN_NEEDS_PORTS;
        }
    }
    let mut table = Table::new(Kind::Condition, plan.seed, conditions.len());
    for (family, order, policy, value) in conditions {
        let m = &policy.matching;
        let shape = &shapes[*family as usize][&key(m)];
        let rank = u64::from(policy.priority) << 32 | u64::from(*order);
        table.insert(&condition_key(m, shape.id), &[rank, *value]);
    }
    for (list, known) in plan.shapes.iter_mut().zip(shapes) {
        list.extend(known.into_values());
        list.sort_by_key(|shape| (shape.priority, shape.specificity, shape.order));
    }
    Ok(table)
}

fn condition_key(m: &Match, shape: u8) -> [u64; 6] {
    let vlan = m.vlan.map_or(0, |vlan| abi::VLAN_TAGGED | vlan);
    let (from, to) = (m.from.map_or(0, |p| p.bits()), m.to.map_or(0, |p| p.bits()));
    [
        abi::KEY_USED
            | u64::from(vlan) << abi::CONDITION_VLAN_SHIFT
            | u64::from(shape) << abi::CONDITION_SHAPE_SHIFT
            | u64::from(m.proto.unwrap_or(0)),
        u64::from(m.mark.unwrap_or(0)) << 32
            | u64::from(m.sport.unwrap_or(0)) << 16
            | u64::from(m.dport.unwrap_or(0)),
        (from >> 64) as u64,
        from as u64,
        (to >> 64) as u64,
        to as u64,
    ]
}
