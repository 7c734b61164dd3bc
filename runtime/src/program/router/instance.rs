//! A router: its kernel objects, its policies, and what a script can do with them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::abi::{self, FIRST_POLICY_ID, Total};
use super::counters::{Count, Counters};
use super::explain::{Explanation, Live, Query, explain};
use super::group::Bucket;
use super::hops::Neighbourhood;
use super::links::Links;
use super::memory::{self, Left};
use super::monitor;
use super::policy::{Family, Match, Policy};
use super::programs::{Place, Programs};
use super::set::{self, Ancestors, Compiled, Entry};
use super::slots::Slots;
use super::spec::{Hooked, NoKeeper, PolicyStats, RouterSpec, Stats, Totals, Wanted};
use crate::kernel::bpf::{Attachment, Program};
use crate::kernel::netlink::Netlink;
use crate::kernel::netns::NetnsFd;
use crate::{Error, Result};

const OP: &str = "policy.router";

/// Cheap to clone; the programs stay attached until [`Router::detach`] or the last clone is dropped.
#[derive(Clone)]
pub struct Router(pub(super) Arc<Inner>);

pub(super) struct Inner {
    name: String,
    pub netlink: Netlink,
    pub programs: Programs,
    pub links: Arc<Links>,
    hooked: Mutex<Vec<Hooked>>,
    detached: AtomicBool,
    sets: Mutex<Sets>,
}

/// The policies and what stands for them in the kernel.
pub(super) struct Sets {
    slots: Slots,
    pub policies: Vec<Policy>,
    pub fallback: Option<Policy>,
    /// The default's policy is known by an empty match.
    ids: FxHashMap<Match, Id>,
    free: Vec<u32>,
    next_id: u32,
    counters: Arc<Counters>,
    /// Counters that packets of the set before may still add to, and what those before them held.
    retired: Vec<Arc<Counters>>,
    /// What the totals held before `counters` and `retired`.
    totals: Vec<Count>,
    ancestors: Ancestors,
    /// The kernel is told what the process after this one is to know.
    remembers: bool,
    /// What the process before this one left; none once a set of this one is live.
    left: Option<Left>,
}

#[derive(Debug, Clone, Copy)]
struct Id {
    id: u32,
    /// By which the process after this one knows the policy, if it is to know.
    key: memory::Key,
    /// What the counter held when this policy got it.
    before: Count,
}

impl Router {
    /// Loads the programs and attaches them: from the return on, the default policy is in force.
    ///
    /// # Errors
    /// As [`Place::look`] and bpf loading and attaching; as [`Router::set`] for the default policy. Nothing is left
    /// attached after an error.
    pub fn new(spec: RouterSpec) -> Result<Router> {
        let router = Router::idle(&spec)?;
        let mut wanted =
            Wanted { policies: Vec::new(), default: spec.default, attach: spec.attach };
        router.resolve(&mut wanted)?;
        router.turn_into(wanted, &NoKeeper).map_err(|e| e.operation(OP))?;
        Ok(router)
    }

    /// Loads the programs that these hooks need, without attaching them: a router that no packet sees, and that
    /// [`Router::turn_into`] makes one.
    ///
    /// # Errors
    /// As [`Place::look`] and bpf loading.
    pub fn idle(spec: &RouterSpec) -> Result<Router> {
        let about = |e: Error| e.about(spec.name.as_str());
        let netlink = Netlink::open(&spec.netns).map_err(about)?;
        let look = |attach| Place::look(&netlink, attach);
        let places: Vec<Place> = spec.attach.iter().map(look).collect::<Result<_>>()?;
        let programs = Programs::load(&spec.name, &places)?;
        let slots = Slots::new(&programs).map_err(about)?;
        slots.state().u32_at(abi::STATE_TAG).store(next_tag().into(), Ordering::Relaxed);
        let links = Arc::new(Links::new(&spec.netns, &programs, slots.state())?);
        let follower: Weak<dyn monitor::Follower> = Arc::<Links>::downgrade(&links) as _;
        monitor::follow(&spec.netns, follower)?;
        links.refresh()?;
        let sets = Sets {
            slots,
            policies: Vec::new(),
            fallback: None,
            ids: FxHashMap::default(),
            free: Vec::new(),
            next_id: FIRST_POLICY_ID,
            counters: Arc::new(Counters::new(FIRST_POLICY_ID)?),
            retired: Vec::new(),
            totals: Vec::new(),
            ancestors: Ancestors::default(),
            remembers: false,
            left: None,
        };
        Ok(Router(Arc::new(Inner {
            name: spec.name.clone(),
            netlink,
            programs,
            links,
            hooked: Mutex::default(),
            detached: AtomicBool::new(false),
            sets: Mutex::new(sets),
        })))
    }

    /// From the next set on, leaves in the kernel what [`Router::inherit`] wants.
    pub fn remember(&self) {
        let mut sets = self.sets();
        sets.remembers = true;
        for (matching, id) in &mut sets.ids {
            id.key = memory::key_of(matching);
        }
    }

    /// Goes on with the counters and flows of a dead process's router, whose program this is: packets still run through
    /// it, and it is not changed by this.
    ///
    /// # Errors
    /// ENOENT when it left nothing, EPROTO when another version of it did: they begin anew.
    pub fn inherit(&self, program: &Program) -> Result<()> {
        let mut left = Left::of(program)?;
        let mut sets = self.sets();
        sets.next_id = left.next_id;
        sets.totals = std::mem::take(&mut left.totals);
        sets.counters = Arc::clone(&left.counters);
        sets.left = Some(left);
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The namespace whose devices policies may name.
    pub fn netns(&self) -> &NetnsFd {
        self.0.netlink.netns()
    }

    /// Replaces all policies; each packet sees either the old set or the new one.
    ///
    /// Nothing has changed after an error.
    ///
    /// # Errors
    /// EEXIST: two policies match the same. EINVAL: a policy contradicts itself. ENODEV: a device is not there. ENETUNREACH: no route on the device reaches
    /// the next hop. E2BIG: more than 64 shapes of conditional policies, or more policies or devices than fit.
    pub fn set(&self, mut policies: Vec<Policy>) -> Result<()> {
        self.attached_still("router:set")?;
        refuse_equals(&policies)?;
        self.prepare(&mut policies)?;
        self.sets().apply(&self.0.links, policies).map(drop)
    }

    /// Adds a policy, in the place of one with an equal match if there is one.
    ///
    /// # Errors
    /// As [`Router::set`].
    pub fn add(&self, mut policy: Policy) -> Result<()> {
        self.attached_still("router:add")?;
        self.prepare(std::slice::from_mut(&mut policy)).map_err(|e| e.operation("router:add"))?;
        let mut sets = self.sets();
        let mut policies = sets.policies.clone();
        match policies.iter_mut().find(|p| p.matching == policy.matching) {
            Some(old) => *old = policy,
            None => policies.push(policy),
        }
        sets.apply(&self.0.links, policies).map(drop).map_err(|e| e.operation("router:add"))
    }

    /// Removes the policy with this match.
    ///
    /// # Errors
    /// ENOENT when there is none.
    pub fn remove(&self, matching: &Match) -> Result<()> {
        self.attached_still("router:remove")?;
        let mut sets = self.sets();
        let mut policies = sets.policies.clone();
        policies.retain(|policy| policy.matching != *matching);
        if policies.len() == sets.policies.len() {
            return Err(no_such_policy(matching));
        }
        sets.apply(&self.0.links, policies).map(drop).map_err(|e| e.operation("router:remove"))
    }

    /// The policies as they were given, devices filled in; without the router's default.
    pub fn list(&self) -> Vec<Policy> {
        self.sets().policies.clone()
    }

    /// How many policies it has, the default not counted.
    pub fn len(&self) -> usize {
        self.sets().policies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all policies; the default stays.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn clear(&self) -> Result<()> {
        self.attached_still("router:clear")?;
        let cleared = self.sets().apply(&self.0.links, Vec::new());
        cleared.map(drop).map_err(|e| e.operation("router:clear"))
    }

    pub fn stats(&self) -> Stats {
        let sets = self.sets();
        let policies = sets
            .policies
            .iter()
            .chain(sets.fallback.as_ref().filter(|_| !sets.overridden()))
            .map(|policy| {
                let count = sets
                    .ids
                    .get(&policy.matching)
                    .map_or(Count::default(), |id| sets.count(id.id).minus(id.before));
                PolicyStats { policy: policy.clone(), packets: count.packets, bytes: count.bytes }
            })
            .collect();
        let total = |which: Total| sets.count(which as u32);
        Stats {
            policies,
            total: Totals {
                routed: total(Total::Routed),
                passed: total(Total::Passed),
                dropped: total(Total::Dropped),
                unmatched: total(Total::Unmatched),
                local: total(Total::Local),
                too_big: total(Total::TooBig),
                answered: total(Total::TooBigAnswered),
                redirected: total(Total::Redirected),
                no_hop: total(Total::NoHop),
                failed: total(Total::Failed),
                mirrored: total(Total::Mirrored),
                expired: total(Total::Expired),
            },
        }
    }

    /// Which policy and hop would take a packet, by a plain evaluation of the list.
    pub fn explain(&self, query: &Query) -> Explanation {
        let sets = self.sets();
        let view = View { sets: &sets, links: &self.0.links };
        explain(&sets.policies, sets.fallback.as_ref(), query, &view)
    }

    pub fn attachments(&self) -> Vec<Attachment> {
        self.hooked().iter().map(|hooked| hooked.attachment.clone()).collect()
    }

    pub fn programs(&self) -> Vec<Program> {
        self.0.programs.all()
    }

    /// Takes the programs off their hooks. The router can be read afterwards.
    ///
    /// # Errors
    /// The first refusal; the others are detached all the same.
    pub fn detach(&self) -> Result<()> {
        self.0.detached.store(true, Ordering::Relaxed);
        let hooked = std::mem::take(&mut *self.hooked());
        let results: Vec<_> = hooked.iter().rev().map(|h| h.attachment.detach()).collect();
        results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }

    /// A set that no packet meets is not changed in silence.
    fn attached_still(&self, op: &'static str) -> Result<()> {
        match self.0.detached.load(Ordering::Relaxed) {
            true => {
                Err(Error::new(op, "ENODEV", "the router has been detached").subject(self.name()))
            }
            false => Ok(()),
        }
    }

    /// All that can be refused, before anything changes.
    pub(super) fn prepare(&self, policies: &mut [Policy]) -> Result<()> {
        if policies.len() > abi::MAX_POLICIES {
            return Err(Error::new("router:set", "E2BIG", "more policies than a router can hold"));
        }
        let mut neighbourhood = Neighbourhood::new(&self.0.netlink)?;
        for policy in policies {
            policy.check().map_err(|e| e.operation("router:set"))?;
            neighbourhood.resolve(policy)?;
        }
        Ok(())
    }

    pub(super) fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.sets.lock().expect("no panic while a router's sets are changed")
    }

    pub(super) fn hooked(&self) -> MutexGuard<'_, Vec<Hooked>> {
        self.0.hooked.lock().expect("no panic while attaching")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A clsact filter stays unless it is detached; a device that is gone took it along.
        for hooked in self.hooked.lock().expect("no panic while attaching").drain(..) {
            let _ = hooked.attachment.detach();
        }
    }
}

impl Sets {
    fn overridden(&self) -> bool {
        self.policies.iter().any(|policy| policy.matching == Match::default())
    }

    fn count(&self, id: u32) -> Count {
        self.count_before(id).plus(self.counters.get(id))
    }

    /// What counters that are no longer written held.
    fn count_before(&self, id: u32) -> Count {
        let before = self.totals.get(id as usize).copied().unwrap_or_default();
        self.retired.iter().fold(before, |sum, counters| sum.plus(counters.get(id)))
    }

    /// What the process after this one is to know of a set about to be live.
    fn memory(
        &self,
        compiled: &Compiled,
        ids: &[Id],
        next_id: u32,
        counters: &Arc<Counters>,
    ) -> Option<Vec<u64>> {
        let same = Arc::ptr_eq(counters, &self.counters);
        let retired = |id: u32| match same {
            true => self.count_before(id),
            false => self.count(id),
        };
        let mut owners = ids.iter().map(|id| (id.key, id.id, id.before));
        self.remembers.then(|| memory::words(compiled, counters, next_id, &mut owners, &retired))
    }

    fn key(&self, matching: &Match) -> memory::Key {
        if self.remembers { memory::key_of(matching) } else { memory::Key::default() }
    }

    /// The id of a policy that has one, in this process or the one before.
    fn id(&self, matching: &Match) -> Option<Id> {
        let left = || {
            let (id, before) = self.left.as_ref()?.owner(matching)?;
            Some(Id { id, key: self.key(matching), before })
        };
        self.ids.get(matching).copied().or_else(left)
    }

    /// Makes `policies` the live set; gives back those that were. Ids, buckets and devices of the old set are let go only when it is.
    pub fn apply(&mut self, links: &Links, policies: Vec<Policy>) -> Result<Vec<Policy>> {
        let overridden = policies.iter().any(|policy| policy.matching == Match::default());
        let fallback = self.fallback.clone().filter(|_| !overridden);
        let all = || policies.iter().chain(&fallback);
        let (mut free, mut next_id, mut known) = (self.free.clone(), self.next_id, 0);
        let ids: Vec<Id> = all()
            .map(|policy| {
                if let Some(id) = self.id(&policy.matching) {
                    known += 1;
                    return id;
                }
                let id = free.pop().unwrap_or_else(|| {
                    next_id += 1;
                    next_id - 1
                });
                Id { id, key: self.key(&policy.matching), before: self.count(id) }
            })
            .collect();
        let entry = |(policy, id): (_, &Id)| Entry { policy, id: id.id };
        let entries: Vec<Entry<'_>> = all().zip(&ids).map(entry).collect();
        let devices = links.devices(all())?;
        match &self.left {
            Some(left) => self.ancestors = left.ancestors(&entries),
            None => self.read_buckets(),
        }
        let (given, default) = entries.split_at(policies.len());
        let mut compiled = set::compile(given, default.first(), &devices, &self.ancestors)?;
        let counters = match next_id > self.counters.capacity {
            true => Arc::new(Counters::new(next_id)?),
            false => self.counters.clone(),
        };
        let memory = self.memory(&compiled, &ids, next_id, &counters);
        self.slots.publish(&mut compiled, &counters, memory.as_deref())?;
        if !Arc::ptr_eq(&counters, &self.counters) {
            let old = std::mem::replace(&mut self.counters, counters);
            self.retired.push(old);
        }
        let inherits = self.left.take().is_some();
        // A set that matches what the one before did is the usual case, and ids need no other table then.
        if inherits || known < ids.len() || known < self.ids.len() {
            let now: FxHashMap<Match, Id> = all().map(|p| p.matching.clone()).zip(ids).collect();
            let gone = self.ids.iter().filter(|(matching, _)| !now.contains_key(*matching));
            free.extend(gone.map(|(_, id)| id.id));
            if inherits {
                let used: HashSet<u32> = now.values().map(|id| id.id).collect();
                free.extend((FIRST_POLICY_ID..next_id).filter(|id| !used.contains(id)));
            }
            self.ids = now;
        }
        (self.free, self.next_id) = (free, next_id);
        self.ancestors = Ancestors { groups: compiled.groups, of: compiled.group_of };
        links.settle(devices);
        Ok(std::mem::replace(&mut self.policies, policies))
    }

    /// The buckets as packets have moved them.
    fn read_buckets(&mut self) {
        for group in &mut self.ancestors.groups {
            for (i, bucket) in group.buckets.iter_mut().enumerate() {
                if let Some(word) = self.slots.word(group.buckets_at + i) {
                    *bucket = Bucket::from_word(word);
                }
            }
        }
    }
}

/// What explain() asks beside the policies.
struct View<'a> {
    sets: &'a Sets,
    links: &'a Links,
}

impl Live for View<'_> {
    fn is_local(&self, to: IpAddr) -> bool {
        self.links.is_local(to)
    }

    fn is_up(&self, ifindex: u32) -> bool {
        self.links.is_up(ifindex)
    }

    fn bucket(&self, policy: &Policy, family: Family, hash: u32) -> Option<usize> {
        let group = self.sets.ancestors.of.get(&(policy.matching.clone(), family))?;
        let group = &self.sets.ancestors.groups[*group];
        let index = hash as usize & (group.buckets.len().checked_sub(1)?);
        let bucket = Bucket::from_word(self.sets.slots.word(group.buckets_at + index)?);
        Some(usize::from(bucket.hop))
    }
}

/// Told to whoever would remove what is not there.
pub fn no_such_policy(matching: &Match) -> Error {
    Error::new("router:remove", "ENOENT", "the router has no such policy")
        .subject(matching.to_string())
}

/// Two policies of one set, counted from 0, match the same: which of them counts, nobody could tell from reading it.
pub fn match_the_same(first: usize, second: usize, matching: &Match) -> Error {
    let message = format!("[{}] and [{}] match the same", first + 1, second + 1);
    Error::new("router:set", "EEXIST", message)
        .subject(matching.to_string())
        .hint("leave one out; router:add replaces a policy that matches the same")
}

fn refuse_equals(policies: &[Policy]) -> Result<()> {
    let mut seen = FxHashMap::with_capacity_and_hasher(policies.len(), FxBuildHasher);
    for (i, policy) in policies.iter().enumerate() {
        if let Some(first) = seen.insert(&policy.matching, i) {
            return Err(match_the_same(first, i, &policy.matching));
        }
    }
    Ok(())
}

/// A tc_index that other routers, of other processes too, seldom use; never 0.
fn next_tag() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(0x9e37);
    start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) | 1 << 15
}
